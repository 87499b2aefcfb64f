package vllm

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"infer/internal/engine"
)

// gatherTimeout bounds what a slow vLLM adds to a scrape.
const gatherTimeout = 3 * time.Second

// metrics are the numbers of the engine's life.
type metrics struct {
	exits    *prometheus.CounterVec
	restarts prometheus.Counter
	phases   *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		exits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "infer_engine_exits_total", Help: "Ends of the engine that nobody asked for, by cause."}, []string{"cause"}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "infer_engine_restarts_total", Help: "Starts of the engine after the first."}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "infer_start_phase_seconds", Help: "How long the phases of a start took, of starts that ended ready.",
			Buckets:                     prometheus.ExponentialBuckets(0.25, 2, 14),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"phase"}),
	}
	for _, c := range engine.Causes() {
		m.exits.WithLabelValues(string(c))
	}
	for _, p := range startPhases {
		m.phases.WithLabelValues(string(p))
	}
	return m
}

var descActivity = prometheus.NewDesc("infer_engine_activity", "1 for what the engine does with what it was asked, judged by progress.",
	[]string{"state"}, nil)

// Describe implements prometheus.Collector.
func (e *Engine) Describe(ch chan<- *prometheus.Desc) {
	e.metrics.exits.Describe(ch)
	e.metrics.restarts.Describe(ch)
	e.metrics.phases.Describe(ch)
	ch <- descActivity
}

// Collect implements prometheus.Collector.
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	e.metrics.exits.Collect(ch)
	e.metrics.restarts.Collect(ch)
	e.metrics.phases.Collect(ch)
	now := e.Activity()
	for _, a := range engine.Activities() {
		v := 0.0
		if a == now {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(descActivity, prometheus.GaugeValue, v, string(a))
	}
}

// Gather implements prometheus.Gatherer with vLLM's own metrics under their
// own names, so that one scrape target is enough. It has none while there is
// no vLLM that answers.
func (e *Engine) Gather() ([]*dto.MetricFamily, error) {
	up := e.up.Load()
	if up == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
	defer cancel()
	text, err := up.exposition(ctx)
	if err != nil {
		e.log.Warn("scrape vllm", "err", err)
		return nil, nil // ours are still worth a scrape
	}
	families, err := parseExposition(text)
	if err != nil {
		e.log.Warn("scrape vllm", "err", err)
		return nil, nil
	}
	return families, nil
}

// parseExposition reads Prometheus text and keeps what is vLLM's: its names
// begin with vllm:. The rest describes its Python process under names that are
// also ours. The series *_created hold the time a counter was made.
func parseExposition(text []byte) ([]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(bytes.NewReader(ownLines(text)))
	if err != nil {
		return nil, fmt.Errorf("parse metrics of vllm: %w", err)
	}
	var kept []*dto.MetricFamily
	for name, family := range all {
		if strings.HasPrefix(name, "vllm:") && !strings.HasSuffix(name, "_created") {
			kept = append(kept, family)
		}
	}
	return kept, nil
}

// ownLines leaves out what is not vLLM's before it is parsed, which is most of
// the work.
func ownLines(text []byte) []byte {
	kept := make([]byte, 0, len(text))
	for line := range bytes.Lines(text) {
		name := line
		for _, comment := range []string{"# HELP ", "# TYPE "} {
			name = bytes.TrimPrefix(name, []byte(comment))
		}
		if bytes.HasPrefix(name, []byte("vllm:")) {
			kept = append(kept, line...)
		}
	}
	return kept
}
