package serve

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/admission"
	"infer/internal/engine"
)

// Kinds of infer_tokens_total. Cached tokens are a part of the prompt's.
const (
	kindPrompt     = "prompt"
	kindCached     = "cached"
	kindCompletion = "completion"
)

// metrics are the numbers that events move. What has a state is read on
// scrape, by gauges.
type metrics struct {
	requests *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	cut      *prometheus.CounterVec
	rejected *prometheus.CounterVec
	seconds  prometheus.Histogram
	queue    []prometheus.Observer // by class
	ttft     prometheus.Histogram
	itl      prometheus.Histogram
	callers  callers
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("infer_requests_total", "Answered requests; code 499 is a client that left.", "route", "model", "code"),
		tokens:   counter("infer_tokens_total", "Tokens by kind; cached ones are also counted as prompt.", "model", "kind"),
		cut:      counter("infer_streams_cut_total", "Streams that ended early, by who ended them.", "by"),
		rejected: counter("infer_rejected_total", "Requests that were refused before they reached the engine.", "reason"),
		seconds:  histogram("infer_request_seconds", "Arrival to the end of the answer, of requests to the model.", 0.005, 15),
		ttft:     histogram("infer_ttft_seconds", "Arrival to the first token, waits included.", 0.005, 16),
		itl:      histogram("infer_itl_seconds", "Gap between successive tokens.", 0.001, 13),
	}
	queue := prometheus.NewHistogramVec(histogramOpts("infer_queue_seconds", "Wait for a slot or for a starting engine, by class.", 0.001, 18),
		[]string{"class"})
	for _, class := range admission.Classes() {
		m.queue = append(m.queue, queue.WithLabelValues(class.String()))
	}
	for _, by := range []string{byClient, byEngine, byDeadline, byDrain} {
		m.cut.WithLabelValues(by)
	}
	for _, reason := range reasons() {
		m.rejected.WithLabelValues(reason)
	}
	m.callers = newCallers()
	collectors := []prometheus.Collector{m.requests, m.tokens, m.cut, m.rejected, m.seconds, queue, m.ttft, m.itl, gauges{s}}
	if s.cfg.Callers != nil {
		collectors = append(collectors, m.callers.requests, m.callers.tokens)
	}
	var errs []error
	for _, c := range collectors {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// histogram has n classic buckets from the smallest up, each twice the one
// before, and native buckets of 10 %.
func histogram(name, help string, smallest float64, n int) prometheus.Histogram {
	return prometheus.NewHistogram(histogramOpts(name, help, smallest, n))
}

func histogramOpts(name, help string, smallest float64, n int) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(smallest, 2, n),
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}
}

// know makes the series of models present before their first request.
func (m *metrics) know(models []engine.Model) {
	for _, model := range models {
		for _, kind := range []string{kindPrompt, kindCached, kindCompletion} {
			m.tokens.WithLabelValues(model.ID, kind)
		}
	}
}

var (
	descSaturation = prometheus.NewDesc("infer_saturation", "Demand ÷ capacity of this replica (1 = full); demand is running, waiting and held requests.", nil, nil)
	descRunning    = prometheus.NewDesc("infer_requests_running", "Requests in the engine.", nil, nil)
	descWaiting    = prometheus.NewDesc("infer_requests_waiting", "Requests in the queue for a slot.", nil, nil)
	descHeld       = prometheus.NewDesc("infer_requests_held", "Requests held for an engine that is not ready.", nil, nil)
	descCapacity   = prometheus.NewDesc("infer_capacity_slots", "Slots of the engine; 0 while it is not ready.", nil, nil)
	descPhase      = prometheus.NewDesc("infer_engine_phase", "1 for the phase that the engine is in.", []string{"phase"}, nil)
)

// gauges reads the gate and the engine when it is scraped.
type gauges struct{ s *Server }

// Describe implements prometheus.Collector.
func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSaturation, descRunning, descWaiting, descHeld, descCapacity, descPhase} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	st := g.s.gate.Stats()
	gauge(descSaturation, st.Saturation)
	gauge(descRunning, float64(st.Running))
	gauge(descWaiting, float64(st.Waiting))
	gauge(descHeld, float64(st.Held))
	gauge(descCapacity, float64(st.Capacity))
	oneOf(ch, descPhase, engine.Phases(), g.s.eng.Status().Phase)
}

// oneOf is a gauge for each value that a state may have: 1 for the one it has.
func oneOf[T ~string](ch chan<- prometheus.Metric, d *prometheus.Desc, all []T, now T) {
	for _, value := range all {
		v := 0.0
		if value == now {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, string(value))
	}
}
