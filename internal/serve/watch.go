package serve

import (
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/engine"
)

// startPhases are those of a start, in its order.
var startPhases = []engine.Phase{engine.Starting, engine.Pulling, engine.Loading, engine.Compiling, engine.Warming}

// starting says that p is a phase of a start.
func starting(p engine.Phase) bool { return slices.Contains(startPhases, p) }

var descActivity = prometheus.NewDesc("infer_engine_activity", "1 for what the engine does: idle, busy, stalled or dead.", []string{"state"}, nil)

// life tells the life of an engine that has no metrics of its own, from the
// changes of its status.
type life struct {
	s        *Server
	exits    *prometheus.CounterVec
	restarts prometheus.Counter
	phases   *prometheus.HistogramVec

	// Only the goroutine that follows the engine uses these.
	last    engine.Status
	failure *engine.Failure // the last that was counted
}

// registerLife registers the metrics of the engine's life: its own where it
// is a collector, which sees more than its status says.
func (s *Server) registerLife(reg prometheus.Registerer) error {
	l := &life{s: s,
		exits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "infer_engine_exits_total", Help: "Ends of the engine that nobody asked for, by cause."}, []string{"cause"}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "infer_engine_restarts_total", Help: "Starts of the engine after the first."}),
		phases: prometheus.NewHistogramVec(histogramOpts("infer_start_phase_seconds", "How long the phases of a start took.", 0.05, 16),
			[]string{"phase"}),
	}
	for _, cause := range engine.Causes() {
		l.exits.WithLabelValues(string(cause))
	}
	for _, p := range startPhases {
		l.phases.WithLabelValues(string(p))
	}
	s.life = l
	own, ok := s.eng.(prometheus.Collector)
	if !ok {
		return reg.Register(l)
	}
	err := reg.Register(own)
	if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) && already.ExistingCollector == own {
		return nil
	}
	return err
}

// Describe implements prometheus.Collector.
func (l *life) Describe(ch chan<- *prometheus.Desc) {
	l.exits.Describe(ch)
	l.restarts.Describe(ch)
	l.phases.Describe(ch)
	ch <- descActivity
}

// Collect implements prometheus.Collector.
func (l *life) Collect(ch chan<- prometheus.Metric) {
	l.exits.Collect(ch)
	l.restarts.Collect(ch)
	l.phases.Collect(ch)
	oneOf(ch, descActivity, engine.Activities(), l.activity())
}

// activity is what the phase and the slots in use say.
func (l *life) activity() engine.Activity {
	switch l.s.eng.Status().Phase {
	case engine.Failed, engine.Stopped:
		return engine.ActivityDead
	case engine.Stalled:
		return engine.ActivityStalled
	}
	if l.s.gate.Stats().Running > 0 {
		return engine.ActivityBusy
	}
	return engine.ActivityIdle
}

// see takes the next status. A phase that is over before anybody looks was
// shorter than anything worth measuring; a failure stays in the status until
// the engine is ready again, so that none is missed.
func (l *life) see(st engine.Status) {
	last := l.last
	l.last = st
	if st.Failure != nil && st.Failure != l.failure {
		l.exits.WithLabelValues(string(st.Failure.Cause)).Inc()
	}
	l.failure = st.Failure
	if last.Phase == st.Phase {
		return
	}
	switch to := slices.Index(startPhases, st.Phase); {
	case starting(last.Phase) && (st.Phase == engine.Ready || to > slices.Index(startPhases, last.Phase)):
		l.phases.WithLabelValues(string(last.Phase)).Observe(max(st.Since.Sub(last.Since), 0).Seconds())
	case to >= 0 && last.Phase != "" && last.Phase != engine.Asleep: // waking is no restart
		l.restarts.Inc()
	}
}

// untilReady is how long the engine's start will take from now on, if that was
// learned from earlier ones.
func untilReady(st engine.Status) (time.Duration, bool) {
	if st.ReadyAt.IsZero() || !starting(st.Phase) {
		return 0, false
	}
	return max(time.Until(st.ReadyAt), 0), true
}
