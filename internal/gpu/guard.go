package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"infer/internal/engine"
)

// Rules say what an engine expects of the GPUs.
type Rules struct {
	Required bool // without a GPU the engine shall not start
	Used     bool // the engine runs in this container, and on a GPU where there is one
}

// idleBytes is what a GPU has in use when nobody computes on it, at most. A
// CUDA context alone takes more than a hundred MiB.
const idleBytes = 64 << 20

// Guard returns a failure when a GPU can no longer be trusted, when there is
// none though one is required, and when an engine that is ready has left the
// GPUs empty: it runs on the CPU, which nobody would notice but by its speed.
// It returns nil when ctx ends. It runs beside Run.
func (m *Monitor) Guard(ctx context.Context, eng engine.Engine, rules Rules) error {
	for {
		s, changed := m.now.Load(), eng.Changed()
		if f := m.refuse(s, eng.Status(), rules); f != nil {
			return f
		}
		rules.Required = rules.Required && s.at.IsZero() // a GPU that goes later is another matter
		select {
		case <-ctx.Done():
			return nil
		case <-s.replaced:
		case <-changed:
		}
	}
}

func (m *Monitor) refuse(s *look, st engine.Status, rules Rules) *engine.Failure {
	const remedy = "give the container NVIDIA_DRIVER_CAPABILITIES=compute,utility and the engine a build for CUDA; or run with --device cpu"
	switch {
	case m.Failure() != nil:
		return m.Failure()
	case rules.Required && s.reason != "" && !s.at.IsZero():
		return &engine.Failure{Cause: engine.CauseDeviceUnavailable, Message: "--device cuda, and there is no GPU: " + s.reason,
			Remedy: "give the container a GPU; " + remedy}
	case rules.Used && m.empty(s, st):
		return &engine.Failure{Cause: engine.CauseDeviceUnavailable, Remedy: remedy,
			Message: fmt.Sprintf("a GPU is present and the engine runs on the CPU: it is ready, and nobody uses memory of any of the %d GPUs", len(s.devices))}
	}
	return nil
}

// empty says that the engine is ready and that a look after that found nobody's
// memory on any GPU. Process lists are of no use for this: they have the
// host's process numbers.
func (m *Monitor) empty(s *look, st engine.Status) bool {
	if st.Phase != engine.Ready || s.reason != "" || s.at.Before(st.Since.Add(m.cfg.Period)) {
		return false
	}
	for _, r := range s.devices {
		if !r.memory.exact || r.memory.used >= idleBytes {
			return false
		}
	}
	return len(s.devices) > 0
}

// Look looks at the GPUs now instead of at the end of the period, for as long
// as ctx lasts, and returns Failure.
func (m *Monitor) Look(ctx context.Context) *engine.Failure {
	if _, err := m.ask(ctx); err != nil {
		m.log.Warn("look at the gpus", "err", err)
	}
	return m.Failure()
}

// busyRatio is the utilization from which on a GPU works: what runs a kernel
// now and then, such as a driver's own housekeeping, stays below.
const busyRatio = 0.1

// Busy says that a GPU has worked since the look before the last. It is false
// for MIG instances, whose utilization NVML does not tell, and when the driver
// does not answer. It never blocks. A kernel that hangs is busy, too.
func (m *Monitor) Busy() bool {
	s, fresh := m.fresh()
	return fresh && slices.ContainsFunc(s.devices, func(r reading) bool { return !r.lost && r.utilization >= busyRatio })
}

// Memory is that of one GPU, or of one MIG instance.
type Memory struct {
	Name       string // as people know it, such as GPU 0
	FreeBytes  int64
	TotalBytes int64
}

// Memory reads the memory of every GPU now. There are none where there is no
// driver. Who holds it is not told: inside a container the process numbers of
// NVML mean nothing.
func (m *Monitor) Memory(ctx context.Context) ([]Memory, error) {
	s, err := m.ask(ctx)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return nil, nil
	case s.reason != "" && len(s.devices) > 0:
		return nil, errors.New("read gpu memory: " + s.reason)
	}
	var all []Memory
	for _, r := range s.devices {
		if known(r.memory.free) {
			all = append(all, Memory{Name: "GPU " + r.index, FreeBytes: int64(r.memory.free), TotalBytes: int64(r.memory.total)})
		}
	}
	return all, nil
}
