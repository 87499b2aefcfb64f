package simulate

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/expr-lang/expr/vm"
)

// Totals count what became of the requests. Arrived is always Completed +
// Rejected + Cut + Open.
type Totals struct {
	Arrived, Completed, Rejected, Cut, Open int64

	Late        int64   // got their first token too late, or wait too long at the end
	Started     int64   // got a slot
	WaitSeconds float64 // of the started ones, together
}

// Point is one moment of a run.
type Point struct {
	At     float64 // seconds
	Ready  int     // replicas
	Paid   int     // replicas, with those that load and drain
	Demand int64   // requests that have a slot or want one
}

// Result is one rule's run.
type Result struct {
	Rule Rule
	Totals
	GPUSeconds     float64 // paid for, loading and draining included
	ReplicaSeconds float64 // ready to serve
	MostReplicas   int
	Series         []Point // one a minute
}

// Missed is how many requests missed the objective: late, rejected or cut.
func (r Result) Missed() int64 { return r.Late + r.Rejected + r.Cut }

// Run replays t under one rule. It starts with the least number of replicas,
// ready.
func Run(ctx context.Context, cfg Config, t Trace, rule Rule) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, err
	}
	if err := rule.compile(); err != nil {
		return Result{}, fmt.Errorf("rule %q: %w", rule.Name, err)
	}
	f := &fleet{cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 1))}
	f.resize(cfg.MinReplicas)
	for _, name := range f.starting {
		f.replicas[name].due = 1
	}
	r := &run{cfg: cfg, fleet: f, scaler: scaler{cfg: cfg}, rule: &rule, traffic: t.source(cfg)}
	r.signals.Slots = float64(cfg.Slots)
	res := Result{Rule: rule}
	minute := ticks(60, cfg.Tick)
	for last := ticks(t.Seconds, cfg.Tick); f.now < last; {
		f.step()
		r.traffic.emit(f.now, f.arrive)
		if err := r.control(); err != nil {
			return res, err
		}
		paid := f.size() + len(f.leaving)
		res.MostReplicas = max(res.MostReplicas, paid)
		res.GPUSeconds += float64(paid*cfg.GPUs) * cfg.Tick
		res.ReplicaSeconds += float64(len(f.up)) * cfg.Tick
		if f.now%minute == 1 || minute == 1 {
			res.Series = append(res.Series, Point{float64(f.now) * cfg.Tick, len(f.up), paid, f.open})
			if err := ctx.Err(); err != nil {
				return res, err
			}
		}
	}
	f.settle()
	res.Totals = f.total
	return res, nil
}

// settle counts those who wait at the end for longer than the objective.
func (f *fleet) settle() {
	f.total.Open = f.open
	overdue := func(queue []request) {
		for _, q := range queue {
			if float64(f.now-q.arrived)*f.cfg.Tick+float64(q.prefill) > f.cfg.FirstTokenIn {
				f.total.Late++
			}
		}
	}
	overdue(f.door)
	for i := range f.replicas {
		overdue(f.replicas[i].queue[f.replicas[i].head:])
	}
}

// run is a fleet under a rule.
type run struct {
	cfg     Config
	fleet   *fleet
	scaler  scaler
	rule    *Rule
	traffic *source
	signals Signals
	machine vm.VM
}

// control scrapes, and lets KEDA and the HPA look, each in its own time.
func (r *run) control() error {
	f := r.fleet
	due := func(period float64) bool { return f.now%max(ticks(period, r.cfg.Tick), 1) == 0 }
	if due(r.cfg.Scrape) {
		f.scrape(&r.signals)
	}
	poll, sync := due(r.cfg.Polling), due(r.cfg.Sync)
	if !poll && !sync {
		return nil
	}
	value, err := r.rule.value(&r.machine, &r.signals)
	if err != nil {
		return err
	}
	now, current := float64(f.now)*r.cfg.Tick, f.size()
	if poll {
		// Nobody exports anything at zero: what wakes then is the platform's
		// own count of requests.
		if n, ok := r.scaler.keda(now, value > 0 || len(f.door) > 0, current); ok {
			f.resize(n)
			return nil
		}
	}
	if sync && current > 0 {
		f.resize(r.scaler.hpa(now, value, r.rule, current, len(f.up)))
	}
	return nil
}

// exponential rounds an exponential time to ticks; at least one.
func exponential(rnd *rand.Rand, mean, tick float64) int32 {
	return int32(min(max(math.Round(rnd.ExpFloat64()*mean/tick), 1), math.MaxInt32/4))
}
