package dapr

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	events     *prometheus.CounterVec
	running    prometheus.Gauge
	subscribed prometheus.Gauge
	reconnects prometheus.Counter
	crowds     prometheus.Counter
	warned     atomic.Int64 // when the last warning of a crowd was logged, in Unix seconds
}

func newMetrics(reg prometheus.Registerer, s *Sidecar) (*metrics, error) {
	m := &metrics{
		events:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "infer_dapr_events_total", Help: "Events of the topic of requests by what became of them; left ones come again, duplicates came while the first was worked on."}, []string{"outcome"}),
		running:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "infer_dapr_events_running", Help: "Events of the topic that are worked on."}),
		subscribed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "infer_dapr_subscribed", Help: "1 while there is a subscription to the topic of requests."}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{Name: "infer_dapr_subscription_ends_total", Help: "Subscriptions that ended before this program did."}),
		crowds:     prometheus.NewCounter(prometheus.CounterOpts{Name: "infer_dapr_events_delayed_total", Help: "Events that waited because as many as allowed were worked on."}),
	}
	for _, outcome := range []string{"done", "failed", "refused", "left", "duplicate"} {
		m.events.WithLabelValues(outcome)
	}
	up := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "infer_dapr_sidecar_ready", Help: "1 while the sidecar answers and has loaded its components."},
		func() float64 {
			if s.Ready() {
				return 1
			}
			return 0
		})
	collectors := []prometheus.Collector{up}
	if s.cfg.PubSub != "" {
		collectors = append(collectors, m.events, m.running, m.subscribed, m.reconnects, m.crowds)
	}
	var errs []error
	for _, c := range collectors {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// crowd counts an event that had to wait, and says whether to warn: at most
// once in ten minutes.
func (m *metrics) crowd() bool {
	m.crowds.Inc()
	now, last := time.Now().Unix(), m.warned.Load()
	return now-last >= 600 && m.warned.CompareAndSwap(last, now)
}
