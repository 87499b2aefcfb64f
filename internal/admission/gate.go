package admission

import (
	"context"
	"math"
	"sync"
	"time"
)

// Config bounds a Gate.
type Config struct {
	MaxQueue       int           // requests that may wait or be held
	MaxQueueTokens int64         // estimated tokens of their prompts; 0 is 8 × slots × context
	MaxQueueBytes  int64         // what their bodies may hold together
	Hold           time.Duration // from arrival, how long a request waits for an engine that is not ready
	Expected       int           // slots to expect before the first SetCapacity; at least 1 is assumed
}

// Capacity is what an engine has.
type Capacity struct {
	Slots   int       // requests that run at once; 0 while it is not ready
	Beside  int       // requests that run at once beside the slots; 0 when unknown
	Context int       // tokens of the longest sequence; 0 when unknown
	Yields  bool      // batch work parks in the engine when interactive work needs its slots
	ReadyAt time.Time // when an engine that is not ready is expected to be; zero when unknown
}

// Gate hands out slots. As long as its capacity is zero the engine is not
// ready and requests are held. Every method may be called by any goroutine.
type Gate struct {
	cfg Config

	mu            sync.Mutex
	capacity      Capacity
	expected      Capacity  // the last that was not 0
	maxTokens     int64     // of prompts in the queue
	running       int       // slots taken; above the capacity after it shrank, or while batch work is parked
	parked        time.Time // when batch work was parked last
	beside        int       // requests that run beside the slots
	lanes         [classes]*lane
	lobby         line // of who wants only a ready engine; empty while the engine is
	inLobby       int
	inLobbyBeside int  // of those, who wants to be counted beside the slots
	held          size // of everybody who waits, in the lanes and in the lobby
	seq           uint64
	pace          pace
	failed        bool
	draining      bool
	drained       chan struct{} // closed once draining and nothing runs or waits
}

// New returns a Gate whose engine is not ready.
func New(cfg Config) *Gate {
	g := &Gate{cfg: cfg, expected: Capacity{Slots: max(cfg.Expected, 1)}, drained: make(chan struct{})}
	for c := range g.lanes {
		g.lanes[c] = newLane()
	}
	g.bound()
	return g
}

// bound computes what depends on the engine. g.mu is held.
func (g *Gate) bound() {
	switch {
	case g.cfg.MaxQueueTokens > 0:
		g.maxTokens = g.cfg.MaxQueueTokens
	case g.expected.Context > 0:
		g.maxTokens = 8 * int64(g.expected.Slots) * int64(g.expected.Context)
	default:
		g.maxTokens = math.MaxInt64
	}
}

// Acquire takes a slot, waiting for one if need be, and says how long that
// took. It returns one of the package's errors when it refuses and ctx.Err()
// when the caller left. The caller calls release when its work ends, with what
// the engine did for it; further calls do nothing.
func (g *Gate) Acquire(ctx context.Context, r Request) (release func(Tokens), queued time.Duration, err error) {
	arrived := time.Now()
	g.mu.Lock()
	if err := g.refusal(ctx); err != nil {
		g.mu.Unlock()
		return nil, 0, err
	}
	l := g.lanes[r.Class]
	f := l.enter(r)
	cost := r.expected(g.pace.answer())
	if g.free(r.Class) && f.waiting == 0 && f.open() { // nobody waits who could go, see dispatch
		g.charge(f, cost)
		l.settle(f)
		g.mu.Unlock()
		return g.releaser(f, r, cost, arrived), 0, nil
	}
	w := &waiter{flow: f, size: size{r.Bytes, int64(r.Prompt), cost}}
	err = g.wait(ctx, w, r.Deadline)
	now := time.Now()
	if err != nil {
		return nil, now.Sub(arrived), err
	}
	return g.releaser(f, r, cost, now), now.Sub(arrived), nil
}

// Ready waits, within the same bounds, until the engine is ready and takes no
// slot. It is for work that costs the engine next to nothing.
func (g *Gate) Ready(ctx context.Context, r Request) (queued time.Duration, err error) {
	return g.ready(ctx, r, false)
}

// Beside waits as Ready does and counts what runs until release is called. It
// is for work that the engine does beside its slots and bounds itself.
func (g *Gate) Beside(ctx context.Context, r Request) (release func(), queued time.Duration, err error) {
	if queued, err = g.ready(ctx, r, true); err != nil {
		return nil, queued, err
	}
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.beside--
		g.dispatch()
	}), queued, nil
}

func (g *Gate) ready(ctx context.Context, r Request, beside bool) (queued time.Duration, err error) {
	arrived := time.Now()
	g.mu.Lock()
	if err := g.refusal(ctx); err != nil {
		g.mu.Unlock()
		return 0, err
	}
	if g.capacity.Slots > 0 {
		if beside {
			g.beside++
		}
		g.mu.Unlock()
		return 0, nil
	}
	err = g.wait(ctx, &waiter{beside: beside, size: size{bytes: r.Bytes}}, r.Deadline)
	return time.Since(arrived), err
}

// refusal says why the caller is neither let in nor queued. g.mu is held.
func (g *Gate) refusal(ctx context.Context) error {
	switch {
	case g.draining:
		return ErrDraining
	case g.failed:
		return ErrEngineFailed
	}
	return ctx.Err() // a slot is no use to a caller that has left
}

// free says that there is a slot for a class. Batch work leaves some alone, or
// gives them back. g.mu is held.
func (g *Gate) free(c Class) bool {
	if c == Batch && g.lanes[Batch].running >= g.batchSlots() {
		return false
	}
	running := g.running
	if c == Interactive && g.capacity.Yields {
		running = g.lanes[Interactive].running
	}
	return running < g.capacity.Slots
}

// batchSlots is how many slots batch work may take. g.mu is held.
func (g *Gate) batchSlots() int {
	if g.capacity.Yields {
		return g.capacity.Slots
	}
	return g.capacity.Slots - g.capacity.Slots/8
}

// charge gives f a slot. g.mu is held.
func (g *Gate) charge(f *flow, cost float64) {
	if g.pace.first.IsZero() {
		g.pace.first = time.Now()
	}
	if g.running++; g.running > g.capacity.Slots {
		g.parked = time.Now()
	}
	g.lanes[f.key.class].charge(f, cost)
}

// dispatch lets in whoever can go and notices the end of a drain. Afterwards
// nobody waits who could go. g.mu is held.
func (g *Gate) dispatch() {
	for _, c := range Classes() {
		for l := g.lanes[c]; g.free(c) && l.turns.Len() > 0; {
			w := l.turns.top().first
			g.charge(w.flow, w.size.cost)
			g.settle(w, nil)
		}
	}
	for g.capacity.Slots > 0 && g.lobby.first != nil {
		if g.lobby.first.beside {
			g.beside++
		}
		g.settle(g.lobby.first, nil)
	}
	if g.running > 0 || g.beside > 0 || g.waiting() > 0 {
		return
	}
	if g.capacity.Slots > 0 {
		g.pace.forget()
	}
	if g.draining {
		select {
		case <-g.drained:
		default:
			close(g.drained)
		}
	}
}

func (g *Gate) releaser(f *flow, r Request, cost float64, granted time.Time) func(Tokens) {
	released := false // belongs to g.mu
	return func(t Tokens) {
		kept := time.Since(granted)
		g.mu.Lock()
		defer g.mu.Unlock()
		if released {
			return
		}
		released = true
		if r.Class != Batch || g.parked.Before(granted) { // who was parked did not work all the time
			g.pace.measure(kept, r, t, g.slots())
		}
		g.running--
		g.lanes[r.Class].discharge(f, t.cost()-cost)
		g.dispatch()
	}
}

// SetCapacity says what the engine has now. It also ends a failure, since an
// engine that reports again is back at work.
func (g *Gate) SetCapacity(c Capacity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.Slots = max(c.Slots, 0)
	g.failed = false
	g.capacity = c
	if c.Slots > 0 {
		g.expected = c
		g.bound()
	} else {
		g.refuseHeld()
	}
	g.dispatch()
}

// Fail refuses everybody who waits and everybody who comes, with
// ErrEngineFailed, until SetCapacity is called again.
func (g *Gate) Fail() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = true
	g.capacity = Capacity{}
	g.refuseAll(func(*waiter) error { return ErrEngineFailed })
	g.dispatch()
}

// Drain refuses newcomers from now on. Requests that already wait for a slot
// are still served; those held for an engine that is not ready are refused.
// The channel is closed once nothing runs and nothing waits.
func (g *Gate) Drain() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	if g.capacity.Slots == 0 {
		g.refuseHeld()
	}
	g.dispatch()
	return g.drained
}

// Draining says whether Drain was called.
func (g *Gate) Draining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}
