package jobs

import "github.com/prometheus/client_golang/prometheus"

// Outcomes of an attempt to deliver a webhook.
const (
	attemptDelivered = "delivered"
	attemptRetried   = "retried"  // it failed, and another follows
	attemptGivenUp   = "given_up" // it failed, and was the last
)

// metrics are the numbers that durable work moves.
type metrics struct {
	webhooks *prometheus.CounterVec
}

func newMetrics() metrics {
	m := metrics{
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "infer_webhook_attempts_total",
			Help: "Attempts to tell the end of a job, by outcome; retried ones are followed by another."}, []string{"outcome"}),
	}
	for _, outcome := range []string{attemptDelivered, attemptRetried, attemptGivenUp} {
		m.webhooks.WithLabelValues(outcome)
	}
	return m
}

// Describe implements prometheus.Collector.
func (s *Service) Describe(ch chan<- *prometheus.Desc) { s.metrics.webhooks.Describe(ch) }

// Collect implements prometheus.Collector.
func (s *Service) Collect(ch chan<- prometheus.Metric) { s.metrics.webhooks.Collect(ch) }
