package admission

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// BenchmarkAcquire takes a free slot and gives it back.
func BenchmarkAcquire(b *testing.B) {
	g := New(Config{MaxQueue: 1})
	g.SetCapacity(Capacity{Slots: 1})
	b.ReportAllocs()
	for b.Loop() {
		release, _, err := g.Acquire(b.Context(), Request{Prompt: 100, Answers: 1})
		if err != nil {
			b.Fatal(err)
		}
		release(Tokens{Prompt: 100, Completion: 50})
	}
}

// queueOf is a gate with one slot, which is taken, and n requests of so many
// callers in its queue.
func queueOf(b *testing.B, n, callers int) (g *Gate, release func(Tokens), leave func()) {
	b.Helper()
	g = New(Config{MaxQueue: 2 * n, MaxQueueBytes: 1 << 40, Hold: time.Hour})
	g.SetCapacity(Capacity{Slots: 1, Context: 1 << 20})
	release, _, err := g.Acquire(b.Context(), Request{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if release, _, err := g.Acquire(ctx, Request{Caller: strconv.Itoa(i % callers), Prompt: 10 + i%7, Answers: 1}); err == nil {
				release(Tokens{})
			}
		})
	}
	for g.Stats().Waiting < n {
		runtime.Gosched()
	}
	return g, release, func() { cancel(); all.Wait() }
}

// BenchmarkQueued are operations beside ten thousand that wait, of as many
// callers or of ten.
func BenchmarkQueued(b *testing.B) {
	const n = 10000
	for _, callers := range []int{10, n} {
		g, release, leave := queueOf(b, n, callers)
		name := strconv.Itoa(callers) + " callers/"
		b.Run(name+"join and leave", func(b *testing.B) {
			for b.Loop() {
				w := &waiter{flow: g.lanes[Interactive].enter(Request{Caller: "new"}), size: size{tokens: 10, cost: 10}}
				g.mu.Lock()
				if err := g.join(w, time.Time{}); err != nil {
					b.Fatal(err)
				}
				g.mu.Unlock()
				g.leave(w)
			}
		})
		b.Run(name+"next", func(b *testing.B) { // a slot comes free and is taken, and the same waits again
			g.mu.Lock()
			defer g.mu.Unlock()
			l := g.lanes[Interactive]
			for b.Loop() {
				f := l.turns.top()
				w := f.first
				g.charge(f, w.size.cost)
				f.remove(w)
				g.count(w, -1)
				g.running--
				l.discharge(f, 5)
				f.push(w)
				g.count(w, 1)
			}
		})
		b.Run(name+"deadline", func(b *testing.B) { // the exact prediction, which looks at every caller
			g.mu.Lock()
			defer g.mu.Unlock()
			g.pace.requests, g.pace.kept, g.pace.cost = 1, 1, 100
			f := g.lanes[Interactive].enter(Request{Caller: "new"})
			for b.Loop() {
				if g.predict(f, 0) <= 0 {
					b.Fatal("no wait")
				}
			}
		})
		b.Run(name+"Retry-After", func(b *testing.B) {
			for b.Loop() {
				g.RetryAfter(0)
			}
		})
		b.Run(name+"Stats", func(b *testing.B) {
			for b.Loop() {
				g.Stats()
			}
		})
		leave()
		release(Tokens{})
	}
}

// What ten thousand cost that wait, each for a caller of its own: places, timers
// and channels. Their stacks are apart, since net/http starts a goroutine for a
// request whether it waits or not.
func TestTenThousandWaitCheaply(t *testing.T) {
	used := func() (heap, stacks float64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse) / (1 << 20), float64(m.StackInuse) / (1 << 20)
	}
	const n = 10000
	heap0, stacks0 := used()
	g := New(Config{MaxQueue: n, Hold: time.Hour})
	g.SetCapacity(Capacity{Slots: 1})
	ctx, cancel := context.WithCancel(t.Context())
	release, _, err := g.Acquire(ctx, Request{})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if release, _, err := g.Acquire(ctx, Request{Caller: strconv.Itoa(i), Prompt: 10, Answers: 1}); err == nil {
				release(Tokens{})
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); g.Stats().Waiting < n; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait", g.Stats().Waiting)
		}
	}
	heap, stacks := used()
	heap, stacks = heap-heap0, stacks-stacks0
	t.Logf("%d requests of as many callers cost %.1f MiB and %.1f MiB of stacks", n, heap, stacks)
	if heap > 25 {
		t.Error("want less than 25 MiB without the stacks")
	}
	cancel()
	all.Wait()
	release(Tokens{})
}
