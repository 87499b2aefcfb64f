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
	}
}

// interruptible returns the context of one run and its end. Of a run of batch
// rows alone it ends with errYield when somebody comes, or came since the last
// admit.
func (s *scheduler) interruptible(parent context.Context, batch bool) (context.Context, context.CancelCauseFunc) {
	if !batch {
		return context.WithCancelCause(parent)
	}
	ctx, cancel := context.WithCancelCause(parent)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupt = cancel; s.urgent {
		cancel(errYield)
	}
	return ctx, func(err error) {
		cancel(err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.interrupt = nil
	}
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
// that anew and returns the slot, or -1. Prompts whose probabilities are told
// keep theirs: they were told in part. s.mu is held.
func (s *scheduler) park() int {
	least := -1
	for i, c := range s.slots {
		if c.seq == nil || !c.seq.batch || c.seq.promptProbs {
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
