package admission

import (
	"context"
	"time"
)

// size is what a waiter, or several, hold of the queue.
type size struct {
	bytes  int64   // of bodies
	tokens int64   // of prompts, estimated
	cost   float64 // expected
}

func (s size) plus(o size) size {
	return size{s.bytes + o.bytes, s.tokens + o.tokens, s.cost + o.cost}
}

func (s size) less(o size) size {
	return size{s.bytes - o.bytes, s.tokens - o.tokens, s.cost - o.cost}
}

// waiter is one request that waits. Its fields but done belong to Gate.mu.
type waiter struct {
	flow       *flow // nil for one that waits only for a ready engine
	prev, next *waiter
	size       size
	seq        uint64 // order of arrival
	queued     bool   // neither admitted nor refused
	beside     bool   // wants to be counted beside the slots
	overdue    bool   // Hold has passed while the engine was ready
	err        error  // why it was refused; nil when admitted
	done       chan struct{}
}

// line is a list of waiters in the order of arrival.
type line struct{ first, last *waiter }

func (l *line) push(w *waiter) {
	w.prev = l.last
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
}

func (l *line) remove(w *waiter) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}

// wait queues w. It is entered with g.mu held and returns without. A deadline
// ends the wait, and so does the hold while the engine is not ready.
func (g *Gate) wait(ctx context.Context, w *waiter, deadline time.Time) error {
	if err := g.join(w, deadline); err != nil {
		if w.flow != nil {
			g.lanes[w.flow.key.class].settle(w.flow)
		}
		g.mu.Unlock()
		return err
	}
	g.mu.Unlock()

	next, final := time.Now().Add(g.cfg.Hold), false
	if !deadline.IsZero() && deadline.Before(next) {
		next, final = deadline, true
	}
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	for {
		select {
		case <-w.done:
			return w.err
		case <-timer.C:
			if final {
				g.refuse(w, ErrDeadline)
				continue
			}
			g.overdue(w)
			if final = !deadline.IsZero(); final {
				timer.Reset(time.Until(deadline))
			}
		case <-ctx.Done():
			g.leave(w)
			return ctx.Err()
		}
	}
}

// join takes a place in the queue, or says why there is none. g.mu is held.
func (g *Gate) join(w *waiter, deadline time.Time) error {
	if g.capacity.Slots == 0 && g.cfg.MaxQueue == 0 {
		return ErrHoldTimeout
	}
	if err := g.tooSlow(w, deadline); err != nil {
		return err
	}
	if err := g.over(w.size, 1); err != nil {
		n := g.displaceable(w)
		if n == 0 {
			return err
		}
		for victim := g.victims(w); n > 0; n-- {
			g.settle(victim.last, ErrDisplaced)
		}
	}
	g.seq++
	w.seq, w.queued, w.done = g.seq, true, make(chan struct{})
	if w.flow == nil {
		g.lobby.push(w)
		g.count(w, 1)
		return nil
	}
	w.flow.push(w)
	g.count(w, 1)
	g.dispatch() // the bound of the caller may be another than before
	return nil
}

// count takes w into the numbers of those who wait, or with -1 out of them. g.mu is held.
func (g *Gate) count(w *waiter, by int) {
	add := size.plus
	if by < 0 {
		add = size.less
	}
	g.held = add(g.held, w.size)
	f := w.flow
	if f == nil {
		g.inLobby += by
		if w.beside {
			g.inLobbyBeside += by
		}
		return
	}
	l := g.lanes[f.key.class]
	f.waiting += by
	l.waiting += by
	f.size, l.size = add(f.size, w.size), add(l.size, w.size)
	if f.waiting == 0 {
		f.size = size{} // sums of floats drift
	}
	if l.waiting == 0 {
		l.size = size{}
	}
	f.share = g.share(f, f.waiting, f.size)
	l.settle(f)
}

// settle takes w out of its line and tells it the outcome. g.mu is held.
func (g *Gate) settle(w *waiter, err error) {
	if w.flow == nil {
		g.lobby.remove(w)
	} else {
		w.flow.remove(w)
	}
	g.count(w, -1)
	w.queued, w.err = false, err
	close(w.done)
}

// over says which bound the queue is over with one more, or several, of size s. g.mu is held.
func (g *Gate) over(s size, n int) error {
	switch {
	case g.waiting()+n > g.cfg.MaxQueue:
		return ErrQueueFull
	case g.held.tokens+s.tokens > g.maxTokens && g.held.tokens > 0: // one alone always fits
		return ErrQueueTokens
	case g.held.bytes+s.bytes > g.cfg.MaxQueueBytes:
		return ErrQueueBytes
	}
	return nil
}

// share is the part of the queue that f would have with n requests of size s,
// for its weight. g.mu is held.
func (g *Gate) share(f *flow, n int, s size) float64 {
	return max(float64(n)/float64(max(g.cfg.MaxQueue, 1)), float64(s.tokens)/float64(g.maxTokens),
		float64(s.bytes)/float64(max(g.cfg.MaxQueueBytes, 1))) / f.weight
}

// maxDisplaced bounds how many make room for one.
const maxDisplaced = 16

// victims is the flow whose last ones would make room for w: of batch work if
// w is interactive and any waits, else the largest of its class. g.mu is held.
func (g *Gate) victims(w *waiter) *flow {
	if w.flow == nil {
		return nil
	}
	if f := g.lanes[Batch].largest.top(); f != nil && w.flow.key.class == Interactive {
		return f
	}
	return g.lanes[w.flow.key.class].largest.top()
}

// displaceable is how many of the victims must go so that w has room; 0 when
// it is not to have it. g.mu is held.
func (g *Gate) displaceable(w *waiter) int {
	v := g.victims(w)
	if v == nil || v == w.flow {
		return 0
	}
	left, extra := v.size, w.size // extra is w less what goes
	n := 0
	for last := v.last; g.over(extra, 1-n) != nil; last = last.prev {
		if last == nil || n == maxDisplaced {
			return 0
		}
		left, extra = left.less(last.size), extra.less(last.size)
		n++
	}
	f := w.flow
	if v.key.class == f.key.class && g.share(v, v.waiting-n, left) < g.share(f, f.waiting+1, f.size.plus(w.size)) {
		return 0
	}
	return n
}

// overdue ends the hold of w, or remembers that it has no hold left.
func (g *Gate) overdue(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.overdue = true
	if w.queued && g.capacity.Slots == 0 {
		g.settle(w, ErrHoldTimeout)
		g.dispatch()
	}
}

// refuse ends the wait of w with err unless it is over.
func (g *Gate) refuse(w *waiter, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.queued {
		g.settle(w, err)
		g.dispatch()
	}
}

// leave takes w out because its caller is gone. A slot that was granted at the
// same moment passes on to the next.
func (g *Gate) leave(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case w.queued:
		g.settle(w, context.Canceled)
	case w.err == nil && w.flow != nil:
		g.running--
		g.lanes[w.flow.key.class].discharge(w.flow, -w.size.cost)
	case w.err == nil && w.beside:
		g.beside--
	}
	g.dispatch()
}

// refuseHeld refuses those that a not ready engine can no longer serve:
// everybody in a drain, otherwise those whose hold is over. g.mu is held.
func (g *Gate) refuseHeld() {
	g.refuseAll(func(w *waiter) error {
		switch {
		case g.draining:
			return ErrDraining
		case w.overdue:
			return ErrHoldTimeout
		}
		return nil
	})
}

// refuseAll settles everybody for whom why gives an error. g.mu is held.
func (g *Gate) refuseAll(why func(*waiter) error) {
	refuse := func(l line) {
		for w := l.first; w != nil; {
			next := w.next
			if err := why(w); err != nil {
				g.settle(w, err)
			}
			w = next
		}
	}
	refuse(g.lobby)
	for _, l := range g.lanes {
		for _, f := range l.flows {
			refuse(f.line)
		}
	}
}
