package admission

// Stats is one reading of a Gate.
type Stats struct {
	Running  int // in the engine, in slots and beside them
	Waiting  int // in the queue of a ready engine
	Held     int // waiting for an engine that is not ready
	Capacity int // slots of the engine; 0 while it is not ready
	Demand   int // who runs or wants to, but for those who only wait for the engine

	// Saturation is demand ÷ capacity: of the slots, plus of what runs beside
	// them, since both use the same machine. While capacity is 0, the demand is
	// divided by the capacity that is expected: the last one known, else the
	// configured one, at least 1. So it is never NaN, and it can be summed over
	// replicas of which some are still loading.
	Saturation float64
}

// Stats reads all numbers at one moment.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Stats{Running: g.running + g.beside, Capacity: g.capacity.Slots}
	if g.capacity.Slots > 0 {
		s.Waiting = g.waiting()
	} else {
		s.Held = g.waiting()
	}
	slots, beside := g.running+g.waiting()-g.inLobby, g.beside+g.inLobbyBeside
	s.Demand = slots + beside
	s.Saturation = float64(slots)/float64(g.slots()) + float64(beside)/float64(g.besides())
	return s
}

// waiting is how many wait or are held. g.mu is held.
func (g *Gate) waiting() int {
	return g.lanes[Interactive].waiting + g.lanes[Batch].waiting + g.inLobby
}

// slots is the capacity, or what to expect of an engine that is not ready. g.mu is held.
func (g *Gate) slots() int { return g.expected.Slots }

// besides is the capacity for what runs beside the slots. An engine that does
// not tell has as much of it as it has slots. g.mu is held.
func (g *Gate) besides() int {
	if g.expected.Beside > 0 {
		return g.expected.Beside
	}
	return g.expected.Slots
}
