package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"infer/internal/engine"
	"infer/internal/engine/vllm"
	"infer/internal/gpu"
	"infer/internal/serve"
)

// watchGPUs makes what knows the GPUs, and tells the server what it is good for.
func (c *serveCmd) watchGPUs(getenv func(string) string, log *slog.Logger) *gpu.Monitor {
	app := getenv("CONTAINER_APP_NAME")
	if app == "" {
		app = "infer"
	}
	m := gpu.New(gpu.Config{Library: c.NVMLLibrary, App: app}, log)
	if c.Device != "cpu" { // what is not used may break
		c.Server.Fault = m.Failure
	}
	c.Server.Bill = func(key, model string) serve.Bill { return m.Ledger().Begin(key, model) }
	return m
}

// runGPUs watches until the engine has ended; until the drain it holds the
// engine to the GPUs. A vLLM that runs elsewhere may have other GPUs than this
// container, and one for the CPU is a build of its own, which nobody has
// promised a GPU.
func (c *serveCmd) runGPUs(engineCtx, ctx context.Context, g *errgroup.Group, m *gpu.Monitor, eng engine.Engine) {
	g.Go(func() error { return m.Run(engineCtx) })
	if c.Device == "cpu" {
		return
	}
	ours := c.VLLM.URL == ""
	rules := gpu.Rules{Required: ours && strings.HasPrefix(c.Device, "cuda"), Used: ours}
	g.Go(func() error { return m.Guard(ctx, eng, rules) })
}

// lastLook is how long the end of an engine waits for what the driver says.
const lastLook = 2 * time.Second

// runEngine runs eng. When it fails, the GPUs are looked at once more: an
// engine may die of a lost GPU before the next sample, and its own cause would
// have it started again on the same node.
func (c *serveCmd) runEngine(ctx context.Context, eng engine.Engine, m *gpu.Monitor) error {
	err := eng.Run(ctx)
	if err == nil || c.Device == "cpu" || c.VLLM.URL != "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lastLook)
	defer cancel()
	if f := m.Look(ctx); f != nil {
		return fmt.Errorf("%w (the engine ended with it: %v)", f, err)
	}
	return err
}

// gpuMemory is what the supervisor of vLLM asks of the GPUs: their memory, and
// whether they work for an engine that uses them.
type gpuMemory struct {
	m    *gpu.Monitor
	used bool
}

// Busy implements vllm.Pulse.
func (g gpuMemory) Busy() bool { return g.used && g.m.Busy() }

// Devices implements vllm.Memory.
func (g gpuMemory) Devices(ctx context.Context) ([]vllm.Device, error) {
	all, err := g.m.Memory(ctx)
	devices := make([]vllm.Device, 0, len(all))
	for _, d := range all {
		devices = append(devices, vllm.Device{Name: d.Name, FreeBytes: d.FreeBytes, TotalBytes: d.TotalBytes})
	}
	return devices, err
}
