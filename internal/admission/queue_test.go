package admission

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// from is a request of a caller.
func from(caller string) Request { return Request{Caller: caller} }

// end releases c and lets what follows come to rest.
func (c *caller) end(t Tokens) {
	c.release(t)
	synctest.Wait()
}

// busy is a gate with one slot, taken, and that slot.
func busy(t *testing.T, cfg Config) (*Gate, *caller) {
	t.Helper()
	g := New(cfg)
	g.SetCapacity(Capacity{Slots: 1})
	return g, ask(t.Context(), g, from("first"))
}

func TestBoundOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, first := busy(t, Config{MaxQueue: 9, MaxQueueTokens: 100, Hold: time.Minute})
		ask(t.Context(), g, Request{Prompt: 60}).wantWaiting(t)
		ask(t.Context(), g, Request{Prompt: 41}).wantErr(t, ErrQueueTokens)
		ask(t.Context(), g, Request{Prompt: 40}).wantWaiting(t)
		ask(t.Context(), g, Request{Prompt: 1}).wantErr(t, ErrQueueTokens)
		first.end(Tokens{})
		ask(t.Context(), g, Request{Prompt: 60}).wantWaiting(t)
	})
}

// A prompt that is over the bound by itself may wait where nobody else does.
func TestOneLargePromptFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := busy(t, Config{MaxQueue: 9, MaxQueueTokens: 100, Hold: time.Minute})
		ask(t.Context(), g, Request{Prompt: 1000}).wantWaiting(t)
		ask(t.Context(), g, Request{Prompt: 1}).wantErr(t, ErrQueueTokens)
	})
}

func TestBoundOfTokensFromTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 9, Hold: time.Minute})
		ask(t.Context(), g, Request{Prompt: 1 << 40}).wantWaiting(t) // nothing is known yet
		g.SetCapacity(Capacity{Slots: 1, Context: 100})
		synctest.Wait()
		ask(t.Context(), g, Request{Prompt: 100}).wantWaiting(t)
		ask(t.Context(), g, Request{Prompt: 701}).wantErr(t, ErrQueueTokens) // 8 × 1 × 100
		ask(t.Context(), g, Request{Prompt: 700}).wantWaiting(t)
	})
}

func TestBoundOfBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, first := busy(t, Config{MaxQueue: 9, MaxQueueBytes: 10, Hold: time.Minute})
		ask(t.Context(), g, Request{Bytes: 11}).wantErr(t, ErrQueueBytes)
		ask(t.Context(), g, Request{Bytes: 6}).wantWaiting(t)
		ask(t.Context(), g, Request{Bytes: 5}).wantErr(t, ErrQueueBytes)
		first.end(Tokens{})
		ask(t.Context(), g, Request{Bytes: 10}).wantWaiting(t)
	})
}

// A newcomer takes places of whoever holds most of them, down to an equal share.
func TestFullQueueGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := busy(t, Config{MaxQueue: 4, Hold: time.Minute})
		var crowd []*caller
		for range 4 {
			crowd = append(crowd, ask(t.Context(), g, from("loud")))
		}
		ask(t.Context(), g, from("loud")).wantErr(t, ErrQueueFull)
		one := ask(t.Context(), g, from("quiet"))
		one.wantWaiting(t)
		crowd[3].wantErr(t, ErrDisplaced)
		two := ask(t.Context(), g, from("quiet"))
		two.wantWaiting(t)
		crowd[2].wantErr(t, ErrDisplaced)
		ask(t.Context(), g, from("quiet")).wantErr(t, ErrQueueFull) // both have two
		third := ask(t.Context(), g, from("third"))
		third.wantWaiting(t)
		wantStats(t, g, Stats{Running: 1, Waiting: 4, Capacity: 1, Demand: 5, Saturation: 5})
		ask(t.Context(), g, from("fourth")).wantWaiting(t)
		ask(t.Context(), g, from("fifth")).wantErr(t, ErrQueueFull) // one each
	})
}

// Places are weighed like tokens, and whichever bound is nearest counts.
func TestGivingWayIsWeighed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := busy(t, Config{MaxQueue: 4, Hold: time.Minute})
		heavy := Request{Caller: "heavy", Weight: 3}
		for range 3 {
			ask(t.Context(), g, heavy).wantWaiting(t)
		}
		ask(t.Context(), g, from("light")).wantWaiting(t)
		ask(t.Context(), g, from("light")).wantErr(t, ErrQueueFull)

		g, _ = busy(t, Config{MaxQueue: 100, MaxQueueTokens: 100, Hold: time.Minute})
		for range 5 {
			ask(t.Context(), g, Request{Caller: "small", Prompt: 1}).wantWaiting(t)
		}
		big := [3]*caller{}
		for i := range big {
			big[i] = ask(t.Context(), g, Request{Caller: "big", Prompt: 30})
		}
		ask(t.Context(), g, Request{Caller: "new", Prompt: 31}).wantWaiting(t) // 60 of big's remain
		big[2].wantErr(t, ErrDisplaced)
		ask(t.Context(), g, Request{Caller: "huge", Prompt: 61}).wantErr(t, ErrQueueTokens) // would hold most
		big[1].wantWaiting(t)
	})
}

// One large request may not sweep the queue.
func TestGivingWayIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := busy(t, Config{MaxQueue: 1000, MaxQueueTokens: 1000, Hold: time.Minute})
		for range 1000 {
			ask(t.Context(), g, Request{Caller: "small", Prompt: 1})
		}
		ask(t.Context(), g, Request{Caller: "big", Prompt: maxDisplaced + 1}).wantErr(t, ErrQueueFull)
		ask(t.Context(), g, Request{Caller: "big", Prompt: maxDisplaced}).wantWaiting(t)
		wantStats(t, g, Stats{Running: 1, Waiting: 985, Capacity: 1, Demand: 986, Saturation: 986})
	})
}

func TestBatchGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, first := busy(t, Config{MaxQueue: 2, Hold: time.Minute})
		a, b := ask(t.Context(), g, Request{Class: Batch}), ask(t.Context(), g, Request{Class: Batch, Caller: "b"})
		one := ask(t.Context(), g, Request{})
		one.wantWaiting(t)
		if a.done() == b.done() {
			t.Fatal("want one of the two displaced")
		}
		if b.done() {
			a, b = b, a
		}
		a.wantErr(t, ErrDisplaced)
		ask(t.Context(), g, Request{Class: Batch, Caller: "c"}).wantErr(t, ErrQueueFull)
		two := ask(t.Context(), g, Request{})
		two.wantWaiting(t)
		b.wantErr(t, ErrDisplaced)
		ask(t.Context(), g, Request{}).wantErr(t, ErrQueueFull)
		first.end(Tokens{})
		one.wantRunning(t, 0)
	})
}

func TestInteractiveBeforeBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, first := busy(t, Config{MaxQueue: 9, Hold: time.Minute})
		batch, late := ask(t.Context(), g, Request{Class: Batch}), ask(t.Context(), g, Request{})
		first.end(Tokens{})
		late.wantRunning(t, 0)
		batch.wantWaiting(t)
		late.end(Tokens{})
		batch.wantRunning(t, 0)
	})
}

// Batch work leaves an eighth of the slots, so that who comes then need not wait.
func TestBatchLeavesSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 99, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: 16})
		for range 14 {
			ask(t.Context(), g, Request{Class: Batch}).wantRunning(t, 0)
		}
		waits := ask(t.Context(), g, Request{Class: Batch})
		waits.wantWaiting(t)
		ask(t.Context(), g, Request{}).wantRunning(t, 0)
		one := ask(t.Context(), g, Request{})
		one.wantRunning(t, 0)
		ask(t.Context(), g, Request{}).wantWaiting(t)
		one.end(Tokens{})
		waits.wantWaiting(t)
	})
}

// An engine that parks batch work takes as much of it as it has slots, and
// interactive work as if there were none. What was parked tells nothing of how
// fast the engine works.
func TestBatchYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 99, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: 8, Yields: true})
		var batch []*caller
		for range 8 {
			batch = append(batch, ask(t.Context(), g, Request{Class: Batch}))
			batch[len(batch)-1].wantRunning(t, 0)
		}
		waits := ask(t.Context(), g, Request{Class: Batch})
		waits.wantWaiting(t)
		var one *caller
		for range 8 {
			one = ask(t.Context(), g, Request{Answers: 1})
			one.wantRunning(t, 0)
		}
		late := ask(t.Context(), g, Request{})
		late.wantWaiting(t)
		synctest.Sleep(time.Second)
		one.release(Tokens{Prompt: 1, Completion: 1})
		synctest.Wait()
		late.wantRunning(t, time.Second)
		synctest.Sleep(time.Hour)
		batch[0].release(Tokens{})
		synctest.Wait()
		waits.wantWaiting(t) // 15 of 8 slots are asked for
		if mean := g.pace.kept / g.pace.requests; mean != 1 {
			t.Errorf("a request keeps its slot for %v s, want 1", mean)
		}
	})
}

func TestMaxConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 9, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: 4})
		capped := Request{Caller: "capped", MaxConcurrent: 2}
		a := ask(t.Context(), g, capped)
		ask(t.Context(), g, capped).wantRunning(t, 0)
		third, fourth := ask(t.Context(), g, capped), ask(t.Context(), g, capped)
		third.wantWaiting(t)
		ask(t.Context(), g, from("other")).wantRunning(t, 0) // it overtakes
		a.end(Tokens{})
		third.wantRunning(t, 0)
		fourth.wantWaiting(t)
		capped.MaxConcurrent = 3
		ask(t.Context(), g, capped).wantWaiting(t)
		fourth.wantRunning(t, 0) // the new bound counts at once
	})
}

func TestDeadlineOfARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, first := busy(t, Config{MaxQueue: 9, Hold: time.Minute})
		in := func(d time.Duration) Request { return Request{Deadline: time.Now().Add(d)} }
		short, long := ask(t.Context(), g, in(2*time.Second)), ask(t.Context(), g, in(90*time.Second))
		synctest.Sleep(2*time.Second - 1)
		short.wantWaiting(t)
		synctest.Sleep(1)
		short.wantErr(t, ErrDeadline)
		if short.queued != 2*time.Second {
			t.Errorf("waited %v", short.queued)
		}
		synctest.Sleep(68 * time.Second)
		long.wantWaiting(t) // the hold is not for the queue of a ready engine
		first.end(Tokens{})
		long.wantRunning(t, 70*time.Second)

		ask(t.Context(), g, Request{}).wantWaiting(t)
		c := ask(t.Context(), g, in(34*time.Second)) // 70 s a request, one in line and one that runs
		var slow *TooSlowError
		if !c.done() || !errors.Is(c.err, ErrTooSlow) || !errors.As(c.err, &slow) {
			t.Fatalf("done %v with %v", c.done(), c.err)
		}
		if slow.Wait != 140*time.Second || slow.Allowed != 34*time.Second {
			t.Errorf("%+v", slow)
		}
		want := "the wait for a slot, about 2m20s, would outlast the request's deadline in 34s"
		if slow.Error() != want {
			t.Errorf("%s\nwant %s", slow, want)
		}
		ask(t.Context(), g, in(141*time.Second)).wantWaiting(t)
		ask(t.Context(), g, Request{Caller: "new", Deadline: time.Now().Add(71 * time.Second)}).wantWaiting(t) // it is next
	})
}

func TestDeadlineBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 9, Hold: 10 * time.Second})
		in := func(d time.Duration) Request { return Request{Deadline: time.Now().Add(d)} }
		ask(t.Context(), g, in(time.Second)).wantWaiting(t) // nothing is known
		g.SetCapacity(Capacity{ReadyAt: time.Now().Add(5 * time.Second)})
		ask(t.Context(), g, in(4*time.Second)).wantErr(t, ErrHoldTimeout)
		ask(t.Context(), g, in(6*time.Second)).wantWaiting(t)
		held := ask(t.Context(), g, in(20*time.Second))
		synctest.Sleep(10 * time.Second)
		held.wantErr(t, ErrHoldTimeout)
		wantStats(t, g, Stats{})
	})
}

// What runs beside the slots is demand too, over a capacity of its own.
func TestBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 9, Hold: time.Minute})
		beside := func() *caller {
			c := &caller{ended: make(chan struct{})}
			go func() {
				var release func()
				release, c.queued, c.err = g.Beside(t.Context(), Request{})
				c.release = func(Tokens) { release() }
				close(c.ended)
			}()
			synctest.Wait()
			return c
		}
		a := beside()
		wantStats(t, g, Stats{Held: 1, Demand: 1, Saturation: 1})
		synctest.Sleep(time.Second)
		g.SetCapacity(Capacity{Slots: 4, Beside: 8})
		synctest.Wait()
		a.wantRunning(t, time.Second)
		b := beside()
		b.wantRunning(t, 0)
		call(t.Context(), g)
		wantStats(t, g, Stats{Running: 3, Capacity: 4, Demand: 3, Saturation: 0.5})
		g.SetCapacity(Capacity{Slots: 4})
		wantStats(t, g, Stats{Running: 3, Capacity: 4, Demand: 3, Saturation: 0.75})
		b.end(Tokens{})
		b.end(Tokens{}) // once more is no fault
		wantStats(t, g, Stats{Running: 2, Capacity: 4, Demand: 2, Saturation: 0.5})
		drained := g.Drain()
		select {
		case <-drained:
			t.Error("drained while work runs beside")
		default:
		}
		a.end(Tokens{})
	})
}
