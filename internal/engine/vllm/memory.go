package vllm

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"infer/internal/engine"
)

// Memory knows the memory of the GPUs that vLLM may use.
type Memory interface {
	// Devices reads them now.
	Devices(ctx context.Context) ([]Device, error)
}

// Device is the memory of one GPU.
type Device struct {
	Name       string // as people know it, such as GPU 0
	FreeBytes  int64
	TotalBytes int64
	Holders    []Holder // who uses it; empty when this container may not know
}

// Holder is a process with memory on a GPU.
type Holder struct {
	PID   int
	Name  string
	Bytes int64
}

const (
	memoryPatience = 2 * time.Minute // vLLM's own tests wait so long for memory to come back
	memoryInterval = 500 * time.Millisecond
	memorySlack    = 256 << 20 // what a driver may keep for itself
)

// proof waits until memory that a child used is free again. vLLM refuses to
// start without its share of a GPU, and measures wrongly while another process
// still gives memory back.
type proof struct {
	memory Memory // nil when nobody knows
	before map[string]int64
	log    *slog.Logger
}

// note remembers what is free before the first start.
func (p *proof) note(ctx context.Context) {
	if p.memory == nil {
		p.log.Info("free GPU memory is not checked before restarts: there is no GPU library")
		return
	}
	devices, err := p.memory.Devices(ctx)
	if err != nil {
		p.log.Warn("read gpu memory", "err", err)
	}
	if err == nil && len(devices) == 0 {
		p.log.Info("free GPU memory is not checked before restarts: no GPU is visible")
	}
	p.before = map[string]int64{}
	for _, d := range devices {
		p.before[d.Name] = d.FreeBytes
	}
}

// wait returns nil once every device has as much free as before the first
// start, or ctx ended, and a failure that names the holders when that does not
// come.
func (p *proof) wait(ctx context.Context) *engine.Failure {
	if p.memory == nil {
		return nil
	}
	began := time.Now()
	for {
		devices, err := p.memory.Devices(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // not knowing must not keep an engine from starting
			p.log.Warn("read gpu memory", "err", err)
			return nil
		}
		short := p.short(devices)
		if len(devices) == 0 {
			return nil
		}
		if len(short) == 0 {
			p.log.Info("gpu memory is free", "waited_seconds", time.Since(began).Seconds())
			return nil
		}
		if time.Since(began) > memoryPatience {
			return p.failure(short)
		}
		timer := time.NewTimer(memoryInterval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// short lists the devices that have less than before.
func (p *proof) short(devices []Device) []Device {
	var short []Device
	for _, d := range devices {
		if before, ok := p.before[d.Name]; ok && d.FreeBytes < before-memorySlack {
			short = append(short, d)
		}
	}
	return short
}

func (p *proof) failure(short []Device) *engine.Failure {
	var parts []string
	for _, d := range short {
		part := fmt.Sprintf("%s: %s of %s free, %s before", d.Name, gib(d.FreeBytes), gib(d.TotalBytes), gib(p.before[d.Name]))
		holders := slices.SortedFunc(slices.Values(d.Holders), func(a, b Holder) int { return cmp.Compare(b.Bytes, a.Bytes) })
		for _, h := range holders[:min(len(holders), 4)] {
			part += fmt.Sprintf(", pid %d (%s) holds %s", h.PID, h.Name, gib(h.Bytes))
		}
		if len(holders) == 0 {
			part += ", held by a process that this container cannot see"
		}
		parts = append(parts, part)
	}
	return &engine.Failure{Cause: engine.CauseMemoryHeld, Retryable: true,
		Message: fmt.Sprintf("the memory of the former engine is not free after %v: %s", memoryPatience, strings.Join(parts, "; ")),
		Remedy:  "end that process, or move this container to another node"}
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
