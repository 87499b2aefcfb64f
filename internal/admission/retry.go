package admission

import (
	"fmt"
	"math"
	"time"
)

// TooSlowError is ErrTooSlow with its numbers.
type TooSlowError struct {
	Wait    time.Duration // predicted
	Allowed time.Duration // until the deadline
}

// Error implements error.
func (e *TooSlowError) Error() string {
	return fmt.Sprintf("the wait for a slot, about %v, would outlast the request's deadline in %v", e.Wait.Round(time.Second/10), e.Allowed.Round(time.Second/10))
}

// Is makes it ErrTooSlow.
func (e *TooSlowError) Is(target error) bool { return target == ErrTooSlow }

// Bounds of RetryAfter. Clients ignore a wait above two minutes.
const (
	minRetry       = time.Second
	maxRetry       = 120 * time.Second
	defaultService = time.Second // until a request was measured
	defaultAnswer  = 256         // tokens of an answer, until one was measured
	bookingPace    = 1.05        // bookings are this much slower than places come free, so that early ones find one
	bookingLead    = 8           // the first booking waits until so large a part of the queue has moved
)

// pace is how fast the engine works: sums that forget what is long ago.
type pace struct {
	requests float64 // that were released
	kept     float64 // seconds for which they kept their slots
	cost     float64 // that is expected of such requests
	answers  float64
	tokens   float64   // of the answers
	first    time.Time // a slot was taken; for as long as nothing was measured
	booked   time.Time // the next booking, at the earliest
	late     int       // bookings that did not fit before maxRetry
}

// answer is how many tokens an answer has, in the mean.
func (p *pace) answer() float64 {
	if p.answers == 0 {
		return defaultAnswer
	}
	return p.tokens / p.answers
}

// measure takes one request that kept a slot. What it cost is what would be
// expected of it now, as it is of those who wait: so the ratio of time to cost
// holds also where the expectation is wrong. The memory is longer the more run
// at once: those are not independent.
func (p *pace) measure(kept time.Duration, r Request, t Tokens, slots int) {
	keep := 1 - 1/float64(128+slots)
	if t.Completion > 0 && r.Answers > 0 {
		p.answers = p.answers*keep + float64(r.Answers)
		p.tokens = p.tokens*keep + float64(t.Completion)
	}
	p.requests = p.requests*keep + 1
	p.kept = p.kept*keep + kept.Seconds()
	p.cost = p.cost*keep + r.expected(p.answer())
}

// forget ends all bookings: an engine without work waits for nobody.
func (p *pace) forget() { p.booked = time.Time{} }

// tooSlow refuses a request whose deadline will pass before its turn comes.
// Nothing is refused on a guess: only once requests were measured. g.mu is held.
func (g *Gate) tooSlow(w *waiter, deadline time.Time) error {
	if deadline.IsZero() {
		return nil
	}
	allowed := time.Until(deadline)
	if g.capacity.Slots == 0 {
		if time.Until(g.capacity.ReadyAt) > allowed {
			return ErrHoldTimeout
		}
		return nil
	}
	if wait := g.predict(w.flow, allowed); wait > allowed {
		return &TooSlowError{Wait: wait, Allowed: allowed}
	}
	return nil
}

// predict is how long one more request of f would wait. What is surely within
// enough is computed only roughly. g.mu is held.
func (g *Gate) predict(f *flow, enough time.Duration) time.Duration {
	p := &g.pace
	if f == nil || p.requests == 0 {
		return 0
	}
	l, slots, before := g.lanes[f.key.class], g.capacity.Slots, 0.0
	if f.key.class == Batch {
		slots, before = g.batchSlots(), g.lanes[Interactive].size.cost
	}
	// A slot comes free after a mean service ÷ slots, and then after each one's work ÷ slots.
	wait := func(cost float64) time.Duration {
		return seconds((cost + p.cost/p.requests) * p.kept / p.cost / float64(slots))
	}
	if rough := wait(before + l.size.cost); rough <= enough {
		return rough
	}
	return wait(before + l.ahead(f))
}

// seconds is s as a duration, however long.
func seconds(s float64) time.Duration {
	return time.Duration(min(s*float64(time.Second), math.MaxInt64/2))
}

// RetryAfter says when a request that is refused now should come back, after
// from if that is known and else when the queue has places again, and books that time: whoever is refused next is told a
// later one, by the time in which the engine serves one request. More than two
// minutes ahead nothing is booked.
func (g *Gate) RetryAfter(from time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, now := &g.pace, time.Now()
	mean := defaultService
	switch {
	case p.requests > 0:
		mean = seconds(p.kept / p.requests)
	case !p.first.IsZero():
		mean = max(mean, now.Sub(p.first))
	}
	step := mean / time.Duration(g.slots())
	switch {
	case g.capacity.Slots == 0:
		from = max(from, time.Until(g.capacity.ReadyAt))
	case from == 0 && g.running >= g.capacity.Slots:
		from = max(from, step*time.Duration(1+g.cfg.MaxQueue/bookingLead))
	}
	at := now.Add(max(from, minRetry))
	if p.booked.After(at) {
		at = p.booked
	}
	after := at.Sub(now)
	if after > maxRetry {
		p.late++
		return maxRetry - time.Duration(math.Mod(float64(p.late)*math.Phi, 1)*float64(maxRetry)/4)
	}
	p.booked = at.Add(time.Duration(bookingPace * float64(step)))
	return after
}
