package admission

import "container/heap"

// flowKey names a flow.
type flowKey struct {
	caller string
	class  Class
}

// flow is the work of one caller in one class. Its fields belong to Gate.mu.
type flow struct {
	key     flowKey
	weight  float64
	limit   int // slots at once; 0 when unbounded
	running int
	served  float64 // cost of what it was served ÷ weight

	line
	waiting int
	size    size    // of all who wait
	share   float64 // of the queue, the largest of its bounds, ÷ weight

	turn, large, debt int // places in the heaps of its lane; -1 when not there
}

// open says that the flow may have one more slot.
func (f *flow) open() bool { return f.limit <= 0 || f.running < f.limit }

// ranking is a heap of flows that tells each where it stands.
type ranking struct {
	flows []*flow
	less  func(a, b *flow) bool
	at    func(*flow) *int
}

func (r *ranking) Len() int           { return len(r.flows) }
func (r *ranking) Less(i, j int) bool { return r.less(r.flows[i], r.flows[j]) }
func (r *ranking) Swap(i, j int) {
	r.flows[i], r.flows[j] = r.flows[j], r.flows[i]
	*r.at(r.flows[i]), *r.at(r.flows[j]) = i, j
}

func (r *ranking) Push(x any) {
	f := x.(*flow)
	*r.at(f) = len(r.flows)
	r.flows = append(r.flows, f)
}

func (r *ranking) Pop() any {
	last := len(r.flows) - 1
	f := r.flows[last]
	r.flows[last] = nil
	r.flows = r.flows[:last]
	*r.at(f) = -1
	return f
}

// top is the first flow, nil when there is none.
func (r *ranking) top() *flow {
	if len(r.flows) == 0 {
		return nil
	}
	return r.flows[0]
}

// keep puts f where it belongs now, in or out.
func (r *ranking) keep(f *flow, in bool) {
	switch i := *r.at(f); {
	case in && i >= 0:
		heap.Fix(r, i)
	case in:
		heap.Push(r, f)
	case i >= 0:
		heap.Remove(r, i)
	}
}

// lane is one class.
type lane struct {
	flows   map[string]*flow // by caller
	now     float64          // counter of the flow that was served last, before it was charged
	running int
	waiting int
	size    size    // of all who wait
	turns   ranking // flows that would take a slot, the lowest counter first
	largest ranking // flows in which somebody waits, the largest share first
	debts   ranking // flows without requests whose counter is ahead of now, the lowest first
}

func newLane() *lane {
	return &lane{
		flows: make(map[string]*flow),
		turns: ranking{at: func(f *flow) *int { return &f.turn }, less: func(a, b *flow) bool {
			switch {
			case a.served != b.served:
				return a.served < b.served
			case a.running != b.running:
				return a.running < b.running
			}
			return a.first.seq < b.first.seq
		}},
		largest: ranking{at: func(f *flow) *int { return &f.large }, less: func(a, b *flow) bool { return a.share > b.share }},
		debts:   ranking{at: func(f *flow) *int { return &f.debt }, less: func(a, b *flow) bool { return a.served < b.served }},
	}
}

// maxDebts bounds the callers that are remembered only for what they were served.
const maxDebts = 1024

// enter returns the flow of r, as r has it now. A flow in which nobody waits
// is lifted to the present: idling saves no credit.
func (l *lane) enter(r Request) *flow {
	f := l.flows[r.Caller]
	if f == nil {
		f = &flow{key: flowKey{r.Caller, r.Class}, turn: -1, large: -1, debt: -1}
		l.flows[r.Caller] = f
	}
	f.weight, f.limit = r.weight(), r.MaxConcurrent
	if f.waiting == 0 {
		f.served = max(f.served, l.present())
	}
	l.debts.keep(f, false)
	return f
}

// present is the counter that a caller without credit and without debt has.
// Corrections may have taken those who wait back behind now.
func (l *lane) present() float64 {
	if next := l.turns.top(); next != nil {
		return min(l.now, next.served)
	}
	return l.now
}

// settle puts f into the heaps where it belongs now and forgets it once it has
// no requests and no debt.
func (l *lane) settle(f *flow) {
	l.turns.keep(f, f.waiting > 0 && f.open())
	l.largest.keep(f, f.waiting > 0)
	l.debts.keep(f, f.waiting == 0 && f.running == 0)
	for d := l.debts.top(); d != nil && (d.served <= l.present() || l.debts.Len() > maxDebts); d = l.debts.top() {
		l.debts.keep(d, false)
		delete(l.flows, d.key.caller)
	}
}

// charge gives f a slot.
func (l *lane) charge(f *flow, cost float64) {
	l.now = max(l.now, f.served)
	f.served += cost / f.weight
	f.running++
	l.running++
}

// discharge takes the slot back; by is what the charge was too low.
func (l *lane) discharge(f *flow, by float64) {
	f.served += by / f.weight
	f.running--
	l.running--
	l.settle(f)
}

// ahead is the cost of what will be served before one more request of f is.
func (l *lane) ahead(f *flow) float64 {
	own := f.size.cost
	start := f.served + own/f.weight // counter at which its turn comes
	sum := own
	for _, other := range l.largest.flows {
		if other != f {
			sum += min(other.size.cost, max(0, start-other.served)*other.weight)
		}
	}
	return sum
}
