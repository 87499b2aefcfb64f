package onnx

import (
	"cmp"
	"context"
	"errors"
)

// Batch work is what nobody waits for. It takes slots that are free, and steps
// that nobody else needs: while a prompt that somebody waits for is prefilled,
// it stands still; a run of batch rows alone is broken off when somebody comes;
// and a slot is taken from it when there is no other. What it had computed is
// computed again when a slot is free, or copied if it is still held.

// errYield ends a run of batch rows that is done again later.
var errYield = errors.New("the run gave way")

// before orders the queue.
func before(a, b *sequence) int {
	switch {
	case a.batch == b.batch:
		return cmp.Compare(a.number, b.number)
	case b.batch:
		return -1
	}
	return 1
}

// hurry notes that q has come, and breaks off what gives way to it. s.mu is
// held.
func (s *scheduler) hurry(q *sequence) {
	if q.batch {
		return
	}
	s.urgent = true
	if s.interrupt != nil {
		s.interrupt(errYield)
		s.interrupt = nil
		s.yields++
	}
}

// maxYields is how many runs of batch rows in a row are broken off. The next is
// a small one, see shorter, and comes to its end.
const maxYields = 4

// interruptible returns the context of one run and its end, which is told how
// the run ended. Of a run of batch rows alone the context ends with errYield
// when somebody comes, or came since the last admit.
func (s *scheduler) interruptible(parent context.Context, batch bool) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	if !batch {
		return ctx, cancel
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.urgent:
		cancel(errYield)
	case s.yields < maxYields:
		s.interrupt = cancel
	}
	return ctx, func(err error) {
		cancel(err)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.interrupt = nil; err == nil {
			s.yields = 0
		}
	}
}

// shorter is the chunk of batch work in place of n: half as long for each run
// that was broken off before it, so that one fits into a short pause.
func (s *scheduler) shorter(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(n>>s.yields, min(n, chunkShared))
}

// waited says whether a prompt that somebody waits for is not yet prefilled.
func (s *scheduler) waited() bool {
	for _, c := range s.slots {
		if q := c.seq; q != nil && !q.batch && !q.decoding {
			return true
		}
	}
	return false
}

// park takes the slot of the batch work that has least to compute again, queues
// that anew and returns the slot, or -1. Work that would never get on stays. s.mu
// is held.
func (s *scheduler) park() int {
	least := -1
	for i, c := range s.slots {
		if c.seq == nil || !c.seq.batch || c.seq.stays() {
			continue
		}
		if least < 0 || c.seq.cached < s.slots[least].seq.cached {
			least = i
		}
	}
	if least >= 0 {
		q := s.slots[least].seq
		q.park(s.slots[least].held)
		s.release(least)
		s.queue = append(s.queue, q)
	}
	return least
}
