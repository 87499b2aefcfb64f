package admission

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// caller is one goroutine in Acquire.
type caller struct {
	release func(Tokens)
	queued  time.Duration
	err     error
	ended   chan struct{}
}

func (c *caller) done() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// call starts an Acquire and lets it come to rest.
func call(ctx context.Context, g *Gate) *caller { return ask(ctx, g, Request{}) }

// ask is call for any request.
func ask(ctx context.Context, g *Gate, r Request) *caller {
	c := &caller{ended: make(chan struct{})}
	go func() {
		c.release, c.queued, c.err = g.Acquire(ctx, r)
		close(c.ended)
	}()
	synctest.Wait()
	return c
}

// callReady is call for Ready.
func callReady(ctx context.Context, g *Gate) *caller {
	c := &caller{ended: make(chan struct{})}
	go func() {
		c.queued, c.err = g.Ready(ctx, Request{})
		close(c.ended)
	}()
	synctest.Wait()
	return c
}

func (c *caller) wantRunning(t *testing.T, queued time.Duration) {
	t.Helper()
	if !c.done() || c.err != nil || c.queued != queued {
		t.Errorf("done %v after %v with %v, want a slot after %v", c.done(), c.queued, c.err, queued)
	}
}

func (c *caller) wantWaiting(t *testing.T) {
	t.Helper()
	if c.done() {
		t.Errorf("ended with %v, want it to wait", c.err)
	}
}

func (c *caller) wantErr(t *testing.T, want error) {
	t.Helper()
	if !c.done() || !errors.Is(c.err, want) || c.release != nil {
		t.Errorf("done %v with %v, want %v", c.done(), c.err, want)
	}
}

func config() Config { return Config{MaxQueue: 2, Hold: time.Minute} }

func gate(slots int) *Gate {
	g := New(config())
	g.SetCapacity(Capacity{Slots: slots})
	return g
}

func wantStats(t *testing.T, g *Gate, want Stats) {
	t.Helper()
	if got := g.Stats(); got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
}

func TestHeldUntilReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(config())
		c, quick := call(t.Context(), g), callReady(t.Context(), g)
		synctest.Sleep(30 * time.Second)
		c.wantWaiting(t)
		quick.wantWaiting(t)
		wantStats(t, g, Stats{Held: 2, Demand: 1, Saturation: 1})
		g.SetCapacity(Capacity{Slots: 1})
		synctest.Wait()
		c.wantRunning(t, 30*time.Second)
		quick.wantRunning(t, 30*time.Second)
		wantStats(t, g, Stats{Running: 1, Capacity: 1, Demand: 1, Saturation: 1})
		callReady(t.Context(), g).wantRunning(t, 0) // needs no slot
	})
}

func TestHoldEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(config())
		c, quick := call(t.Context(), g), callReady(t.Context(), g)
		synctest.Sleep(time.Minute - 1)
		c.wantWaiting(t)
		synctest.Sleep(1)
		c.wantErr(t, ErrHoldTimeout)
		quick.wantErr(t, ErrHoldTimeout)
		wantStats(t, g, Stats{})
	})
}

func TestNoHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cfg := range []Config{{}, {MaxQueue: 2}, {Hold: time.Hour}} {
			call(t.Context(), New(cfg)).wantErr(t, ErrHoldTimeout)
		}
		g := New(Config{MaxQueue: 2})
		g.SetCapacity(Capacity{Slots: 1})
		call(t.Context(), g).wantRunning(t, 0)
		c := call(t.Context(), g)
		synctest.Sleep(time.Hour)
		c.wantWaiting(t)
	})
}

// The hold bounds the wait for an engine, not the wait for a slot; but who has
// waited longer than the hold is not held again.
func TestHoldIsNotForTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		call(t.Context(), g).wantRunning(t, 0)
		old := call(t.Context(), g)
		synctest.Sleep(2 * time.Minute)
		old.wantWaiting(t)
		young := call(t.Context(), g)
		g.SetCapacity(Capacity{Slots: 0})
		synctest.Wait()
		old.wantErr(t, ErrHoldTimeout)
		young.wantWaiting(t)
		wantStats(t, g, Stats{Running: 1, Held: 1, Demand: 2, Saturation: 2})
	})
}

func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		first := call(t.Context(), g)
		second, third := call(t.Context(), g), call(t.Context(), g)
		call(t.Context(), g).wantErr(t, ErrQueueFull)
		wantStats(t, g, Stats{Running: 1, Waiting: 2, Capacity: 1, Demand: 3, Saturation: 3})
		synctest.Sleep(time.Second)
		first.release(Tokens{})
		first.release(Tokens{}) // a second call must not free a second slot
		synctest.Wait()
		second.wantRunning(t, time.Second)
		third.wantWaiting(t)
		call(t.Context(), g).wantWaiting(t)
	})
}

func TestCancelLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		first := call(t.Context(), g)
		ctx, cancel := context.WithCancel(t.Context())
		second, third := call(ctx, g), call(t.Context(), g)
		cancel()
		synctest.Wait()
		second.wantErr(t, context.Canceled)
		wantStats(t, g, Stats{Running: 1, Waiting: 1, Capacity: 1, Demand: 2, Saturation: 2})
		first.release(Tokens{})
		synctest.Wait()
		third.wantRunning(t, 0)
	})
}

func TestLeftBeforeArriving(t *testing.T) {
	g := gate(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := g.Acquire(ctx, Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Acquire() = %v, want %v", err, context.Canceled)
	}
	if _, err := g.Ready(ctx, Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Ready() = %v, want %v", err, context.Canceled)
	}
	wantStats(t, g, Stats{Capacity: 1})
}

func TestDeadlineInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		call(t.Context(), g)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := call(ctx, g)
		synctest.Sleep(time.Second)
		c.wantErr(t, context.DeadlineExceeded)
	})
}

func TestDrainServesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		first, second := call(t.Context(), g), call(t.Context(), g)
		drained := g.Drain()
		call(t.Context(), g).wantErr(t, ErrDraining)
		callReady(t.Context(), g).wantErr(t, ErrDraining)
		first.release(Tokens{})
		synctest.Wait()
		second.wantRunning(t, 0)
		select {
		case <-drained:
			t.Error("drained while a request runs")
		default:
		}
		second.release(Tokens{})
		<-drained
		g.Drain() // once more is no fault
	})
}

func TestDrainRefusesTheHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(config())
		c, quick := call(t.Context(), g), callReady(t.Context(), g)
		<-g.Drain()
		synctest.Wait()
		c.wantErr(t, ErrDraining)
		quick.wantErr(t, ErrDraining)
	})
}

// An engine that goes away in a drain does not come back in time.
func TestDrainRefusesWhenTheEngineGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		first, second := call(t.Context(), g), call(t.Context(), g)
		drained := g.Drain()
		g.SetCapacity(Capacity{Slots: 0})
		synctest.Wait()
		second.wantErr(t, ErrDraining)
		first.release(Tokens{})
		<-drained
	})
}

func TestFailRefusesUntilTheEngineReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(config())
		c, quick := call(t.Context(), g), callReady(t.Context(), g)
		g.Fail()
		synctest.Wait()
		c.wantErr(t, ErrEngineFailed)
		quick.wantErr(t, ErrEngineFailed)
		call(t.Context(), g).wantErr(t, ErrEngineFailed)
		g.SetCapacity(Capacity{Slots: 0}) // it restarts
		c = call(t.Context(), g)
		c.wantWaiting(t)
		g.SetCapacity(Capacity{Slots: 1})
		synctest.Wait()
		c.wantRunning(t, 0)
	})
}

func TestCapacityShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(3)
		a, b := call(t.Context(), g), call(t.Context(), g)
		g.SetCapacity(Capacity{Slots: 1})
		c := call(t.Context(), g)
		wantStats(t, g, Stats{Running: 2, Waiting: 1, Capacity: 1, Demand: 3, Saturation: 3})
		a.release(Tokens{})
		synctest.Wait()
		c.wantWaiting(t)
		b.release(Tokens{})
		synctest.Wait()
		c.wantRunning(t, 0)
	})
}

func TestSaturationWithoutCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 10, Hold: time.Minute, Expected: 4})
		wantStats(t, g, Stats{})
		call(t.Context(), g)
		callReady(t.Context(), g) // asks for no slot
		wantStats(t, g, Stats{Held: 2, Demand: 1, Saturation: 0.25})
		g.SetCapacity(Capacity{Slots: 2})
		synctest.Wait()
		wantStats(t, g, Stats{Running: 1, Capacity: 2, Demand: 1, Saturation: 0.5})
		g.SetCapacity(Capacity{Slots: 0})
		wantStats(t, g, Stats{Running: 1, Demand: 1, Saturation: 0.5}) // 2 slots are expected back
	})
}
