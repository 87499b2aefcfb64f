package jobs

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Outcomes of an attempt to deliver a webhook.
const (
	attemptDelivered = "delivered"
	attemptRetried   = "retried"  // it failed, and another follows
	attemptGivenUp   = "given_up" // it failed, and was the last
)

// Why a response was not kept.
const (
	unkeptFull   = "full"   // the store had no room
	unkeptFailed = "failed" // it did not answer, or not well
)

// metrics are the numbers that durable work moves.
type metrics struct {
	webhooks *prometheus.CounterVec
	unkept   *prometheus.CounterVec
}

func newMetrics() metrics {
	m := metrics{
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "infer_webhook_attempts_total",
			Help: "Attempts to tell the end of a job, by outcome; retried ones are followed by another."}, []string{"outcome"}),
		unkept: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "infer_responses_not_kept_total",
			Help: "Responses that were answered and that the store did not take, by reason."}, []string{"reason"}),
	}
	m.unkept.WithLabelValues(unkeptFull)
	m.unkept.WithLabelValues(unkeptFailed)
	for _, outcome := range []string{attemptDelivered, attemptRetried, attemptGivenUp} {
		m.webhooks.WithLabelValues(outcome)
	}
	return m
}

// Describe implements prometheus.Collector.
func (s *Service) Describe(ch chan<- *prometheus.Desc) {
	s.metrics.webhooks.Describe(ch)
	s.metrics.unkept.Describe(ch)
}

// Collect implements prometheus.Collector.
func (s *Service) Collect(ch chan<- prometheus.Metric) {
	s.metrics.webhooks.Collect(ch)
	s.metrics.unkept.Collect(ch)
}

// seldomEvery is the pause between warnings that a busy server would repeat with
// every request.
const seldomEvery = time.Minute

// seldom says which warnings are due. Any goroutine may use it.
type seldom struct {
	mu   sync.Mutex
	last time.Time
	held int
}

// turn says whether a warning is due, and how many were held back before.
func (s *seldom) turn(now time.Time) (held int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && now.Sub(s.last) < seldomEvery {
		s.held++
		return 0, false
	}
	held, s.held, s.last = s.held, 0, now
	return held, true
}
