package gpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"infer/internal/engine"
)

// Config says what is watched, and how.
type Config struct {
	Library string        // NVML; empty means where the container runtime puts it
	Period  time.Duration // between looks; 0 means 2s
	App     string        // label of nvidia_gpu_utilization
}

const (
	defaultPeriod = 2 * time.Second  // drivers keep 16 s of samples at least
	maxBackoff    = 30 * time.Second // between attempts to initialise
	leavePatience = time.Second      // for a call that hangs when the program ends
	askPatience   = 10 * time.Second // for a reading that somebody waits for
)

// Monitor watches the GPUs of this container. It is a prometheus.Collector.
type Monitor struct {
	cfg    Config
	log    *slog.Logger
	ledger *Ledger

	now     atomic.Pointer[look]
	failure atomic.Pointer[engine.Failure] // the first; it stays
	asks    chan chan *snapshot
	ended   chan struct{} // closed when nobody answers asks any more
}

// look is a published snapshot.
type look struct {
	snapshot
	replaced chan struct{} // closed when there is a newer one
}

// New returns a Monitor that looks at nothing before Run.
func New(cfg Config, log *slog.Logger) *Monitor {
	if cfg.Library == "" {
		cfg.Library = defaultLibrary
	}
	if cfg.Period <= 0 {
		cfg.Period = defaultPeriod
	}
	m := &Monitor{cfg: cfg, log: log, ledger: newLedger(), asks: make(chan chan *snapshot), ended: make(chan struct{})}
	m.now.Store(&look{snapshot: snapshot{reason: "nothing was looked at yet"}, replaced: make(chan struct{})})
	return m
}

// Ledger knows what the requests cost.
func (m *Monitor) Ledger() *Ledger { return m.ledger }

// Failure is the first thing that happened after which the GPUs cannot be
// trusted, and nil while there is none. It never blocks.
func (m *Monitor) Failure() *engine.Failure { return m.failure.Load() }

// Run looks at the GPUs until ctx ends. It is called once. What it finds is
// told by the other methods; where there is no GPU it finds that.
func (m *Monitor) Run(ctx context.Context) error {
	w := &worker{Monitor: m, lib: library{path: m.cfg.Library}, known: map[string]*counters{}, xids: map[xid]float64{}}
	go func() {
		defer close(m.ended)
		w.run(ctx)
	}()
	stuck, began := false, time.Now()
	tick := time.NewTicker(m.cfg.Period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			silent := m.silence(began)
			if silent > m.patience() && !stuck {
				m.log.Warn("the gpu driver does not answer; its numbers are left out until it does", "silent_seconds", silent.Seconds())
			}
			stuck = silent > m.patience()
		case <-m.ended:
			return nil
		case <-ctx.Done():
			select {
			case <-m.ended:
			case <-time.After(leavePatience): // a call to the driver cannot be ended
				m.log.Warn("leaving a call to the gpu driver behind that does not return")
			}
			return nil
		}
	}
}

// patience is how old a snapshot may be before it is stale.
func (m *Monitor) patience() time.Duration { return 3*m.cfg.Period + time.Second }

// silence is for how long the driver has not answered although it should have.
func (m *Monitor) silence(began time.Time) time.Duration {
	switch s := m.now.Load(); {
	case s.at.IsZero():
		return time.Since(began)
	case s.reason == "":
		return time.Since(s.at)
	}
	return 0 // it is known not to work, and asked less often
}

// fresh returns the last snapshot and whether it tells what is now. It may be
// of GPUs that are lost.
func (m *Monitor) fresh() (*look, bool) {
	s := m.now.Load()
	return s, !s.at.IsZero() && time.Since(s.at) <= m.patience()
}

func (m *Monitor) publish(s snapshot) {
	close(m.now.Swap(&look{snapshot: s, replaced: make(chan struct{})}).replaced)
}

// ask has the worker look now. It returns nil where there is no GPU library.
func (m *Monitor) ask(ctx context.Context) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	answer := make(chan *snapshot, 1)
	select {
	case m.asks <- answer:
	case <-m.ended:
		return nil, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the gpu driver does not answer: %w", ctx.Err())
	}
	select {
	case s := <-answer:
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the gpu driver does not answer: %w", ctx.Err())
	}
}

// worker is the goroutine that makes every call to the driver.
type worker struct {
	*Monitor
	lib     library
	started bool
	looks   int
	known   map[string]*counters // by UUID
	xids    map[xid]float64
	failed  int       // attempts to initialise in a row
	working time.Time // when the driver last worked; zero when it never did
	heard   time.Time // when a GPU last answered; zero when none ever did
	said    string    // the last reason that was logged
}

func (w *worker) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var answer chan *snapshot
		select {
		case <-ctx.Done():
			if w.started {
				w.lib.stop()
			}
			return
		case answer = <-w.asks:
		case <-timer.C:
		}
		s, err := w.look()
		w.publish(s)
		if answer != nil {
			answer <- &s
		}
		if errors.Is(err, errNoLibrary) {
			return
		}
		wait := w.cfg.Period
		if !w.started {
			wait = min(w.cfg.Period<<min(w.failed, 8), maxBackoff)
		}
		timer.Reset(wait)
	}
}

// look reads everything once, and initialises before when it must.
func (w *worker) look() (snapshot, error) {
	if !w.started {
		if err := w.lib.start(); err != nil {
			w.failed++
			return w.nothing(err), err
		}
		w.started, w.failed, w.looks = true, 0, 0
		for _, c := range w.known {
			c.restart()
		}
		w.greet()
	}
	s, err := w.read()
	if err != nil {
		w.fail(w.lost(err))
		if !isLost(err) { // the driver went away; it may come back with new handles
			w.lib.stop()
			w.started = false
		}
	}
	return s, err
}

// nothing is the snapshot of a driver that does not work.
func (w *worker) nothing(err error) snapshot {
	if err.Error() != w.said {
		w.said = err.Error()
		w.log.Info("no gpu is watched", "reason", w.said)
	}
	w.fail(w.lost(err))
	return snapshot{at: time.Now(), answered: w.heard, reason: err.Error(), devices: w.counted(), xids: w.told()}
}

// lost is the failure that err means.
func (w *worker) lost(err error) *engine.Failure {
	switch {
	case isLost(err):
		return gpuLost("a GPU does not answer: %v", err)
	case !w.working.IsZero() && time.Since(w.working) > lostAfter:
		return gpuLost("the GPU driver is gone for %v: %v", lostAfter, err)
	}
	return nil
}

func (w *worker) greet() {
	w.said = ""
	for _, d := range w.lib.devices {
		w.log.Info("gpu", "gpu", d.index, "uuid", d.uuid, "name", d.name)
	}
	if len(w.lib.devices) == 0 {
		w.log.Info("no gpu is watched", "reason", "the driver knows of none")
	}
}

// fail notes the first failure.
func (w *worker) fail(f *engine.Failure) {
	if f != nil && w.failure.CompareAndSwap(nil, f) {
		w.log.Error("gpu lost", "message", f.Message, "remedy", f.Remedy)
	}
}
