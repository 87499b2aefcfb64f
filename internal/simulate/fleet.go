package simulate

import (
	"math/rand/v2"
	"slices"
)

// request is one request that has arrived. Times are ticks.
type request struct {
	arrived int32
	prefill float32 // to its first token, once it runs
	service int32   // to its end, once it runs; at least 1
}

// state of a replica.
type state uint8

const (
	loading state = iota
	ready
	draining
	gone
)

// replica serves up to Config.Slots requests at once.
type replica struct {
	state   state
	due     int32     // tick when it is ready, or when its drain ends
	running int32     // requests that have a slot
	late    int32     // those of them that missed the objective
	queue   []request // in order of arrival, from head on
	head    int
}

func (r *replica) waiting() int { return len(r.queue) - r.head }

// end is a request that ends in some tick.
type end struct {
	replica int32
	tick    int32
	late    bool
}

// wheelTicks bounds how far ahead the wheel sees; what ends later goes round.
const wheelTicks = 1 << 13

// fleet is the replicas and the requests on them.
type fleet struct {
	cfg      Config
	rnd      *rand.Rand
	now      int32
	replicas []replica // all that ever were; the index is their name
	up       []int32   // the ready ones
	starting []int32   // the loading ones, the first to be ready first
	leaving  []int32   // the draining ones, the first to end first
	door     []request // while nobody is ready
	wheel    [wheelTicks][]end
	total    Totals
	open     int64 // requests that have arrived and not ended
}

// size is how many replicas the platform believes to have.
func (f *fleet) size() int { return len(f.up) + len(f.starting) }

// resize starts or drains replicas. Those that still load leave first.
func (f *fleet) resize(n int) {
	for f.size() < n {
		f.replicas = append(f.replicas, replica{state: loading, due: f.now + ticks(f.cfg.ColdStart, f.cfg.Tick)})
		f.starting = append(f.starting, int32(len(f.replicas)-1))
	}
	for f.size() > n {
		if last := len(f.starting) - 1; last >= 0 {
			f.replicas[f.starting[last]].state = gone
			f.starting = f.starting[:last]
			continue
		}
		i := f.rnd.IntN(len(f.up))
		name := f.up[i]
		f.up[i] = f.up[len(f.up)-1]
		f.up = f.up[:len(f.up)-1]
		r := &f.replicas[name]
		r.state, r.due = draining, f.now+ticks(f.cfg.Grace, f.cfg.Tick)
		f.leaving = append(f.leaving, name)
	}
}

func ticks(seconds, tick float64) int32 { return int32(seconds/tick + 0.5) }

// step moves the replicas on by one tick, before anything arrives in it.
func (f *fleet) step() {
	f.now++
	f.finish()
	for len(f.starting) > 0 && f.replicas[f.starting[0]].due <= f.now {
		name := f.starting[0]
		f.starting = f.starting[1:]
		f.replicas[name].state = ready
		f.up = append(f.up, name)
	}
	if len(f.up) > 0 && len(f.door) > 0 {
		for _, q := range f.door {
			f.route(q)
		}
		f.door = f.door[:0]
	}
	f.leaving = slices.DeleteFunc(f.leaving, func(name int32) bool {
		r := &f.replicas[name]
		if r.due > f.now && r.running+int32(r.waiting()) > 0 {
			return false
		}
		cut := int64(r.running) + int64(r.waiting())
		f.total.Cut += cut
		f.total.Late -= int64(r.late) // counted once, as cut
		f.open -= cut
		*r = replica{state: gone}
		return true
	})
}

// finish ends the requests that are due, and starts those that waited for
// their slots.
func (f *fleet) finish() {
	slot := &f.wheel[f.now%wheelTicks]
	later := (*slot)[:0]
	for _, e := range *slot {
		r := &f.replicas[e.replica]
		switch {
		case r.state == gone:
			continue
		case e.tick > f.now:
			later = append(later, e)
			continue
		}
		f.total.Completed++
		f.open--
		r.running--
		if e.late {
			r.late--
		}
		if r.head < len(r.queue) {
			q := r.queue[r.head]
			r.head++
			if r.head == len(r.queue) {
				r.queue, r.head = r.queue[:0], 0
			}
			f.run(e.replica, q)
		}
	}
	*slot = later
}

// arrive takes a request.
func (f *fleet) arrive(q request) {
	f.total.Arrived++
	f.open++
	if len(f.up) == 0 {
		f.door = append(f.door, q)
		return
	}
	f.route(q)
}

// route gives q to the less loaded of two replicas.
func (f *fleet) route(q request) {
	chance, n := f.rnd.Uint64(), uint64(len(f.up)) // two numbers of 32 bits are much for 1,000 replicas
	name := f.up[chance>>32*n>>32]
	if other := f.up[chance&(1<<32-1)*n>>32]; f.load(other) < f.load(name) {
		name = other
	}
	r := &f.replicas[name]
	switch {
	case int(r.running) < f.cfg.Slots:
		f.run(name, q)
	case r.waiting() < f.cfg.MaxQueue:
		if r.head > 1024 && r.head > len(r.queue)/2 {
			r.queue, r.head = r.queue[:copy(r.queue, r.queue[r.head:])], 0
		}
		r.queue = append(r.queue, q)
	default:
		f.total.Rejected++
		f.open--
	}
}

func (f *fleet) load(name int32) int {
	return int(f.replicas[name].running) + f.replicas[name].waiting()
}

// run gives q a slot.
func (f *fleet) run(name int32, q request) {
	r := &f.replicas[name]
	wait := float64(f.now-q.arrived) * f.cfg.Tick
	late := wait+float64(q.prefill) > f.cfg.FirstTokenIn
	if late {
		r.late++
		f.total.Late++
	}
	r.running++
	f.total.Started++
	f.total.WaitSeconds += wait
	tick := f.now + q.service
	slot := &f.wheel[tick%wheelTicks]
	*slot = append(*slot, end{name, tick, late})
}

// scrape reads the signals of every replica that is there, into s.
func (f *fleet) scrape(s *Signals) {
	s.Saturation, s.Running, s.Waiting, s.Utilization = s.Saturation[:0], s.Running[:0], s.Waiting[:0], s.Utilization[:0]
	held := float64(len(f.door)) // the first that loads holds them
	for _, names := range [][]int32{f.starting, f.up, f.leaving} {
		for _, name := range names {
			r := &f.replicas[name]
			waiting := float64(r.waiting()) + held
			held = 0
			utilization := 0.0
			if r.running > 0 {
				utilization = 100
			}
			s.Saturation = append(s.Saturation, (float64(r.running)+waiting)/s.Slots)
			s.Running = append(s.Running, float64(r.running))
			s.Waiting = append(s.Waiting, waiting)
			s.Utilization = append(s.Utilization, utilization)
		}
	}
}
