package jobs

import (
	"context"
	"errors"
	"time"

	"infer/internal/store"
)

// What is kept of the outcomes that the store did not take, so that an outage
// under load costs no memory: beyond it a key waits for the end of its lease.
const (
	maxOutcomes     = 64
	maxOutcomeBytes = 1 << 20 // of one answer
)

// outcome is how a request with an idempotency key ended: with an answer that is
// kept, or without one, and then the key is freed. A key that nobody works on
// would keep the same request waiting, and an answer that is not kept is
// computed once more.
type outcome struct {
	*onceRun
	header   map[string]string
	body     []byte  // until it is put
	kept     content // the body, once it is put
	answered bool
	unsure   bool      // the store failed the claim, and may have it all the same
	absent   int       // how often the claim was not there
	end      time.Time // of the lease, about
}

// answer notes what was answered. It is called while the handler runs: a header
// is not to be read later.
func (u *outcome) answer(t *tap) {
	u.answered, u.body, u.header = true, t.body.Bytes(), map[string]string{}
	for _, name := range keptHeaders() {
		if v := t.Header().Get(name); v != "" {
			u.header[name] = v
		}
	}
}

// settle writes the outcome, later if the store does not take it now.
func (u *outcome) settle(ctx context.Context) {
	err := u.write(ctx)
	if err == nil {
		return
	}
	if len(u.body) > maxOutcomeBytes {
		u.answered, u.body = false, nil
	}
	u.later(err)
}

// later has Run write the outcome once the store is back.
func (u *outcome) later(err error) {
	u.end = time.Now().Add(leaseFor)
	select {
	case u.s.outcomes <- u:
		u.s.log.Warn("an idempotency key's outcome cannot be written, trying again", "err", err)
	default:
		u.s.log.Warn("an idempotency key's outcome was not written; its lease will end", "err", err)
	}
}

// write returns the store's error when it is worth trying again.
func (u *outcome) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaseFor)
	defer cancel()
	if u.answered {
		err := u.keep(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errLost), errors.Is(err, store.ErrNotFound): // another's, or gone
			u.s.drop(ctx, u.kept)
			return nil
		case !errors.Is(err, store.ErrTooLarge) && !errors.Is(err, store.ErrFull):
			return err
		}
		u.s.log.Warn("answer of an idempotency key cannot be kept", "err", err)
		u.s.drop(ctx, u.kept)
		u.answered, u.body, u.kept = false, nil, content{}
	}
	err := u.giveUp(ctx)
	if errors.Is(err, store.ErrNotFound) {
		// A store that did not answer may do what it was asked later than it next
		// answers, so that a claim is looked for twice.
		if u.absent++; !u.unsure || u.absent > 1 {
			return nil
		}
	}
	return err
}

func (u *outcome) keep(ctx context.Context) error {
	if u.body != nil {
		c, err := u.s.put(ctx, u.body, u.s.cfg.ResultTTL+contentSpare)
		if err != nil {
			return err
		}
		u.kept, u.body = c, nil
	}
	return u.change(ctx, func(c *once) { c.Done, c.Answer, c.Header = true, u.kept, u.header })
}

// writeOutcomes writes what the store did not take at first, until ctx ends, and
// then tries once more.
func (s *Service) writeOutcomes(ctx context.Context) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	var late []*outcome
	for {
		more := s.outcomes
		if len(late) == maxOutcomes {
			more = nil
		}
		select {
		case u := <-more:
			late = append(late, u)
		case <-tick.C:
			late = s.writeLate(ctx, late)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			for range len(s.outcomes) { // nobody else takes them
				late = append(late, <-s.outcomes)
			}
			s.writeLate(ctx, late)
			return
		}
	}
}

// writeLate writes one outcome after the other until one fails, which is the
// last of those that it returns. Those whose lease is over are given up.
func (s *Service) writeLate(ctx context.Context, late []*outcome) []*outcome {
	for len(late) > 0 {
		u, rest := late[0], late[1:]
		err := u.write(ctx)
		switch {
		case err == nil:
		case time.Now().After(u.end):
			s.log.Warn("an idempotency key's outcome was not written; its lease is over", "err", err)
		default:
			return append(rest, u)
		}
		late = rest
	}
	return nil
}
