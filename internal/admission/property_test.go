package admission

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// actor is one request of the model: where it is, by the rules of the Gate.
type actor struct {
	*caller
	Request
	cancel context.CancelFunc
}

// model drives a Gate at random and holds it against lists.
type model struct {
	g       *Gate
	slots   int
	yields  bool
	waiting []*actor // in the order of arrival
	running []*actor
}

const maxQueue = 6

func (m *model) arrive(t *rapid.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r := Request{
		Caller: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "caller"),
		Class:  rapid.SampledFrom([]Class{Interactive, Interactive, Batch}).Draw(t, "class"),
		Prompt: rapid.IntRange(0, 40).Draw(t, "prompt"), Bytes: rapid.Int64Range(0, 40).Draw(t, "bytes"),
		Weight: rapid.SampledFrom([]float64{0, 2}).Draw(t, "weight"),
	}
	if r.Caller == "c" {
		r.MaxConcurrent = 2
	}
	if rapid.IntRange(0, 3).Draw(t, "impatient") == 0 {
		r.Deadline = time.Now().Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds")) * time.Second)
	}
	m.waiting = append(m.waiting, &actor{caller: ask(ctx, m.g, r), Request: r, cancel: cancel})
}

func (m *model) pick(t *rapid.T, from *[]*actor) *actor {
	if len(*from) == 0 {
		return nil
	}
	i := rapid.IntRange(0, len(*from)-1).Draw(t, "who")
	a := (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	return a
}

func (m *model) leave(t *rapid.T) {
	if a := m.pick(t, &m.waiting); a != nil {
		a.cancel()
		synctest.Wait()
		if !a.done() || !errors.Is(a.err, context.Canceled) {
			t.Fatalf("who left: done %v, %v", a.done(), a.err)
		}
	}
}

func (m *model) release(t *rapid.T) {
	if a := m.pick(t, &m.running); a != nil {
		a.release(Tokens{Prompt: a.Prompt, Completion: rapid.IntRange(0, 50).Draw(t, "tokens")})
		a.cancel()
	}
}

// race frees a slot and cancels somebody at the same moment; either may win,
// the slot must not be lost.
func (m *model) race(t *rapid.T) {
	if len(m.running) == 0 || len(m.waiting) == 0 {
		return
	}
	a, other := m.pick(t, &m.running), m.pick(t, &m.waiting)
	if rapid.Bool().Draw(t, "cancel first") {
		other.cancel()
		a.release(Tokens{})
	} else {
		a.release(Tokens{})
		other.cancel()
	}
	a.cancel()
	synctest.Wait()
	if other.err == nil {
		other.release(Tokens{})
	}
}

func (m *model) resize(t *rapid.T) {
	m.slots = rapid.IntRange(0, 9).Draw(t, "slots")
	m.yields = rapid.Bool().Draw(t, "yields")
	m.g.SetCapacity(Capacity{Slots: m.slots, Yields: m.yields})
}

func (m *model) pause(t *rapid.T) {
	synctest.Sleep(time.Duration(rapid.IntRange(0, 30).Draw(t, "pause")) * time.Second)
}

// move takes whoever is done out of the waiting, and checks that the order
// within a caller was kept.
func (m *model) move(t *rapid.T) {
	synctest.Wait()
	var still, let []*actor
	for _, a := range m.waiting {
		switch {
		case !a.done():
			still = append(still, a)
		case a.err == nil:
			let = append(let, a)
			if slices.ContainsFunc(still, func(b *actor) bool { return b.Caller == a.Caller && b.Class == a.Class }) {
				t.Fatalf("a request overtook another of its caller")
			}
		case !slices.ContainsFunc([]error{ErrQueueFull, ErrQueueTokens, ErrQueueBytes, ErrDisplaced, ErrTooSlow, ErrDeadline},
			func(err error) bool { return errors.Is(a.err, err) }):
			t.Fatalf("refused with %v", a.err)
		}
	}
	m.waiting, m.running = still, append(m.running, let...)
}

// count is how many of l satisfy is.
func count(l []*actor, is func(*actor) bool) (n int) {
	for _, a := range l {
		if is(a) {
			n++
		}
	}
	return n
}

// check compares the gate with the lists.
func (m *model) check(t *rapid.T) {
	isBatch := func(a *actor) bool { return a.Class == Batch }
	before, batchBefore := len(m.running), count(m.running, isBatch)
	m.move(t)
	n, batch := len(m.running), count(m.running, isBatch)
	if m.yields { // each class has the slots for itself
		n, before = n-batch, before-batchBefore
	}
	if n > max(m.slots, before) || batch > max(m.slots, batchBefore) {
		t.Fatalf("%d and %d of batch work run in %d slots", n, batch, m.slots)
	}
	st := m.g.Stats()
	if st.Running != len(m.running) || st.Waiting+st.Held != len(m.waiting) || st.Capacity != m.slots || st.Demand != st.Running+len(m.waiting) {
		t.Fatalf("Stats() = %+v, want %d running, %d waiting, capacity %d", st, len(m.running), len(m.waiting), m.slots)
	}
	if !(st.Saturation >= 0 && st.Saturation < 100) {
		t.Fatalf("saturation is %v", st.Saturation)
	}
	if n := len(m.waiting); n > maxQueue {
		t.Fatalf("%d wait", n)
	}
	capped := func(a *actor) bool { return a.Caller == "c" }
	for _, class := range []Class{Interactive, Batch} {
		if n := count(m.running, func(a *actor) bool { return capped(a) && a.Class == class }); n > 2 {
			t.Fatalf("%d of a caller run that may have two", n)
		}
	}
	// Who waits while a slot is free is over the bound of its caller or leaves the slot to interactive work.
	for _, a := range m.waiting {
		taken, left := len(m.running), m.slots/8
		if m.yields {
			left = 0
			if a.Class == Interactive {
				taken -= batch
			}
		}
		if taken < m.slots && !capped(a) && (a.Class == Interactive || batch < m.slots-left) {
			t.Fatalf("a request of %s waits while %d of %d slots are taken", a.Caller, len(m.running), m.slots)
		}
	}
	m.inner(t)
}

// inner holds the gate's sums against what they are sums of.
func (m *model) inner(t *rapid.T) {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	var held size
	for _, l := range m.g.lanes {
		n := 0
		for _, f := range l.flows {
			var own size
			in := 0
			for w := f.first; w != nil; w = w.next {
				own = own.plus(w.size)
				in++
			}
			if in != f.waiting || own.bytes != f.size.bytes || own.tokens != f.size.tokens || (f.large >= 0) != (in > 0) || (f.turn >= 0) != (in > 0 && f.open()) {
				t.Fatalf("flow %+v has %d waiters of %+v", f, in, own)
			}
			held, n = held.plus(own), n+in
		}
		if n != l.waiting {
			t.Fatalf("lane has %d waiters, counts %d", n, l.waiting)
		}
	}
	if held.bytes != m.g.held.bytes || held.tokens != m.g.held.tokens || held.bytes > 100 || held.tokens > 100 {
		t.Fatalf("waiters hold %+v, the gate counts %+v", held, m.g.held)
	}
}

// Never more than the slots run, nobody is lost, the bounds hold, the order of
// a caller is that of arrival, and no slot stays free for nothing, whoever
// comes, leaves and ends in whatever order.
func TestGateProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			m := &model{g: New(Config{MaxQueue: maxQueue, MaxQueueTokens: 100, MaxQueueBytes: 100, Hold: time.Hour})}
			rt.Repeat(map[string]func(*rapid.T){
				"arrive": m.arrive, "arrive too": m.arrive, "leave": m.leave, "release": m.release, "race": m.race,
				"resize": m.resize, "pause": m.pause, "": m.check,
			})
			for _, a := range slices.Concat(m.waiting, m.running) {
				a.cancel()
			}
			synctest.Wait()
		})
	})
}
