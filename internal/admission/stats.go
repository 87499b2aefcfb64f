package admission

import "time"

// Stats is one reading of a Gate.
type Stats struct {
	Running  int // slots taken
	Waiting  int // in the queue of a ready engine
	Held     int // waiting for an engine that is not ready
	Capacity int // slots of the engine; 0 while it is not ready
	Demand   int // who has a slot or wants one

	// Saturation is demand ÷ capacity. While capacity is 0, the demand is divided by the capacity
	// that is expected: the last one known, else the configured one, at least
	// 1. So it is never NaN, and it can be summed over replicas of which some
	// are still loading.
	Saturation float64
}

// Stats reads all numbers at one moment.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Stats{Running: g.running, Capacity: g.capacity}
	if g.capacity > 0 {
		s.Waiting = g.queue.Len()
	} else {
		s.Held = g.queue.Len() + g.lobby.Len()
	}
	s.Demand = g.running + g.queue.Len()
	s.Saturation = float64(s.Demand) / float64(g.slots())
	return s
}

// slots is the capacity, or what to expect of an engine that is not ready. g.mu is held.
func (g *Gate) slots() int {
	if g.capacity > 0 {
		return g.capacity
	}
	return g.expected
}

// Bounds of RetryAfter. Clients ignore a wait above two minutes.
const (
	minRetry        = time.Second
	maxRetry        = 120 * time.Second
	minRetryHeld    = 5 * time.Second // an engine that is not ready seldom becomes so sooner
	defaultService  = time.Second     // until a request was measured
	serviceWeighing = 8               // the newest request counts for 1/8
)

// measure takes one service time into the moving average. g.mu is held.
func (g *Gate) measure(kept time.Duration) {
	if g.service == 0 {
		g.service = kept
		return
	}
	g.service += (kept - g.service) / serviceWeighing
}

// RetryAfter estimates when a request that is refused now would find a slot:
// the mean service time for each round of the queue before it.
func (g *Gate) RetryAfter() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	mean := g.service
	if mean == 0 {
		mean = defaultService
	}
	wait := time.Duration(float64(mean) * float64(g.queue.Len()+1) / float64(g.slots()))
	if g.capacity == 0 {
		wait = max(wait, minRetryHeld)
	}
	return min(max(wait, minRetry), maxRetry)
}
