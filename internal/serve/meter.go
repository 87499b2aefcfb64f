package serve

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// meter is the engine.Meter of one request. The engine's scheduler calls it
// while the request's own goroutine reads it.
type meter struct {
	m     *metrics
	model string
	start time.Time
	bill  Bill

	tokens     prometheus.Counter // completion tokens of this model
	prompt     atomic.Int64
	cached     atomic.Int64 // of the prompt
	completion atomic.Int64
	first      atomic.Int64 // nanoseconds from start to the first token; 0 while there is none
	last       atomic.Int64
}

func (m *metrics) meter(start time.Time, model string) *meter {
	return &meter{m: m, model: model, start: start, bill: free{}, tokens: m.tokens.WithLabelValues(model, kindCompletion)}
}

// Prompt implements engine.Meter.
func (mt *meter) Prompt(tokens, cached int) {
	mt.bill.Tokens(tokens - cached)
	mt.prompt.Store(int64(tokens))
	mt.cached.Store(int64(cached))
	mt.m.tokens.WithLabelValues(mt.model, kindPrompt).Add(float64(max(tokens, 0)))
	mt.m.tokens.WithLabelValues(mt.model, kindCached).Add(float64(max(cached, 0)))
}

// Tokens implements engine.Meter.
func (mt *meter) Tokens(n int) {
	if n <= 0 {
		return
	}
	now := max(time.Since(mt.start), 1)
	if last := mt.last.Swap(int64(now)); last == 0 {
		mt.first.Store(int64(now))
		mt.m.ttft.Observe(now.Seconds())
	} else {
		mt.m.itl.Observe((now - time.Duration(last)).Seconds())
	}
	mt.bill.Tokens(n)
	mt.completion.Add(int64(n))
	mt.tokens.Add(float64(n))
}

func (mt *meter) ttft() (time.Duration, bool) {
	d := time.Duration(mt.first.Load())
	return d, d > 0
}
