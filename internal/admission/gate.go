// Package admission decides which request runs now, which waits and which is
// refused. It knows slots, places in a queue and time; it does no I/O and
// starts no goroutine.
package admission

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// The refusals of a Gate.
var (
	// ErrQueueFull: every place in the queue is taken.
	ErrQueueFull = errors.New("the queue is full")
	// ErrQueueBytes: the bodies of those who wait are over their bound.
	ErrQueueBytes = errors.New("the bodies in the queue are over their bound")
	// ErrHoldTimeout: the engine did not become ready while the request was held.
	ErrHoldTimeout = errors.New("the engine is not ready")
	// ErrDraining: the server is stopping and takes no new work.
	ErrDraining = errors.New("the server is draining")
	// ErrEngineFailed: the engine ended and waiting for it is no use.
	ErrEngineFailed = errors.New("the engine failed")
)

// Config bounds a Gate.
type Config struct {
	MaxQueue      int           // requests that may wait or be held
	MaxQueueBytes int64         // what their bodies may hold together
	Hold          time.Duration // from arrival, how long a request waits for an engine that is not ready
	Expected      int           // slots to expect before the first SetCapacity; at least 1 is assumed
}

// Gate hands out slots in the order of arrival. Its zero capacity means that
// the engine is not ready: requests are held. Every method may be called by
// any goroutine.
type Gate struct {
	cfg Config

	mu       sync.Mutex
	capacity int        // 0 while the engine is not ready
	expected int        // the last capacity that was not 0
	running  int        // slots taken; above capacity only after it shrank
	queue    *list.List // of *waiter that want a slot
	lobby    *list.List // of *waiter that want only a ready engine; empty while capacity > 0
	bytes    int64      // of the bodies of everybody in queue and lobby
	failed   bool
	draining bool
	drained  chan struct{} // closed once draining and nothing runs or waits
	service  time.Duration // moving average of how long a slot is kept; 0 until measured
}

// waiter is one request that waits. Its fields but done belong to Gate.mu.
type waiter struct {
	in      *list.List
	elem    *list.Element
	bytes   int64         // of its body
	overdue bool          // Hold has passed while the engine was ready
	err     error         // why it was refused; nil when admitted
	done    chan struct{} // closed once err is final
}

// New returns a Gate whose engine is not ready.
func New(cfg Config) *Gate {
	return &Gate{cfg: cfg, expected: max(cfg.Expected, 1), queue: list.New(), lobby: list.New(), drained: make(chan struct{})}
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
	if g.running < g.capacity { // nobody waits then, see dispatch
		g.running++
		g.mu.Unlock()
		return g.releaser(arrived), 0, nil
	}
	err = g.wait(ctx, g.queue, r.Bytes)
	now := time.Now()
	if err != nil {
		return nil, now.Sub(arrived), err
	}
	return g.releaser(now), now.Sub(arrived), nil
}

// Ready waits, within the same bounds, until the engine is ready and takes no
// slot. It is for work that costs the engine next to nothing.
func (g *Gate) Ready(ctx context.Context, bytes int64) (queued time.Duration, err error) {
	arrived := time.Now()
	g.mu.Lock()
	if err := g.refusal(ctx); err != nil {
		g.mu.Unlock()
		return 0, err
	}
	if g.capacity > 0 {
		g.mu.Unlock()
		return 0, nil
	}
	err = g.wait(ctx, g.lobby, bytes)
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

// wait queues the caller. It is entered with g.mu held and returns without.
func (g *Gate) wait(ctx context.Context, in *list.List, bytes int64) error {
	if g.capacity == 0 && g.cfg.MaxQueue == 0 {
		g.mu.Unlock()
		return ErrHoldTimeout
	}
	if g.queue.Len()+g.lobby.Len() >= g.cfg.MaxQueue {
		g.mu.Unlock()
		return ErrQueueFull
	}
	if bytes > g.cfg.MaxQueueBytes-g.bytes {
		g.mu.Unlock()
		return ErrQueueBytes
	}
	w := &waiter{in: in, bytes: bytes, done: make(chan struct{})}
	w.elem = in.PushBack(w)
	g.bytes += bytes
	g.mu.Unlock()

	hold := time.NewTimer(g.cfg.Hold)
	defer hold.Stop()
	for {
		select {
		case <-w.done:
			return w.err
		case <-hold.C:
			g.overdue(w)
		case <-ctx.Done():
			g.leave(w)
			return ctx.Err()
		}
	}
}

// overdue ends the hold of w, or remembers that it has no hold left.
func (g *Gate) overdue(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.overdue = true
	if w.elem != nil && g.capacity == 0 {
		g.settle(w, ErrHoldTimeout)
	}
}

// leave takes w out because its caller is gone. A slot that was granted at the
// same moment passes on to the next.
func (g *Gate) leave(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case w.elem != nil:
		g.settle(w, context.Canceled)
	case w.err == nil && w.in == g.queue: // it got a slot
		g.running--
	}
	g.dispatch()
}

// settle takes w out of its list and tells it the outcome. g.mu is held.
func (g *Gate) settle(w *waiter, err error) {
	w.in.Remove(w.elem)
	w.elem = nil
	g.bytes -= w.bytes
	w.err = err
	close(w.done)
}

// settleAll settles everybody in l for whom refuse gives an error. g.mu is held.
func (g *Gate) settleAll(l *list.List, refuse func(*waiter) error) {
	for e := l.Front(); e != nil; {
		w := e.Value.(*waiter)
		e = e.Next()
		if err := refuse(w); err != nil {
			g.settle(w, err)
		}
	}
}

// dispatch lets in whoever can go and notices the end of a drain. g.mu is held.
func (g *Gate) dispatch() {
	for g.running < g.capacity && g.queue.Len() > 0 {
		g.running++
		g.settle(g.queue.Front().Value.(*waiter), nil)
	}
	for g.capacity > 0 && g.lobby.Len() > 0 {
		g.settle(g.lobby.Front().Value.(*waiter), nil)
	}
	if g.draining && g.running == 0 && g.queue.Len() == 0 && g.lobby.Len() == 0 {
		select {
		case <-g.drained:
		default:
			close(g.drained)
		}
	}
}

func (g *Gate) releaser(granted time.Time) func(Tokens) {
	var once sync.Once
	return func(Tokens) {
		once.Do(func() {
			kept := time.Since(granted)
			g.mu.Lock()
			defer g.mu.Unlock()
			g.measure(kept)
			g.running--
			g.dispatch()
		})
	}
}

// SetCapacity says how many slots the engine has now; 0 means not ready. It
// also ends a failure, since an engine that reports again is back at work.
func (g *Gate) SetCapacity(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = false
	g.capacity = max(n, 0)
	if n > 0 {
		g.expected = n
	} else {
		g.refuseHeld()
	}
	g.dispatch()
}

// refuseHeld refuses those that a not ready engine can no longer serve:
// everybody in a drain, otherwise those whose hold is over. g.mu is held.
func (g *Gate) refuseHeld() {
	refuse := func(w *waiter) error {
		switch {
		case g.draining:
			return ErrDraining
		case w.overdue:
			return ErrHoldTimeout
		}
		return nil
	}
	g.settleAll(g.queue, refuse)
	g.settleAll(g.lobby, refuse)
}

// Fail refuses everybody who waits and everybody who comes, with
// ErrEngineFailed, until SetCapacity is called again.
func (g *Gate) Fail() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = true
	g.capacity = 0
	refuse := func(*waiter) error { return ErrEngineFailed }
	g.settleAll(g.queue, refuse)
	g.settleAll(g.lobby, refuse)
	g.dispatch()
}

// Drain refuses newcomers from now on. Requests that already wait for a slot
// are still served; those held for an engine that is not ready are refused.
// The channel is closed once nothing runs and nothing waits.
func (g *Gate) Drain() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	if g.capacity == 0 {
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
