package serve

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"infer/internal/engine"
)

// A crash and the start after it, as they are told by the engine's status.
func TestEngineLife(t *testing.T) {
	crash := &engine.Failure{Cause: engine.CauseHostOutOfMemory, Message: "killed", Retryable: true}
	inBubble(t, config(), engine.Status{Phase: engine.Starting}, say, func(t *testing.T, l *live) {
		set := func(st engine.Status, lasts time.Duration) {
			l.fake.Set(st)
			synctest.Sleep(lasts)
		}
		synctest.Sleep(time.Second)
		set(engine.Status{Phase: engine.Loading}, 20*time.Second)
		set(engine.Status{Phase: engine.Loading, Progress: 0.5}, 20*time.Second)
		set(engine.Status{Phase: engine.Warming}, 2*time.Second)
		l.wantMetrics(t, "infer_engine_restarts_total 0", `infer_start_phase_seconds_sum{phase="warming"} 0`)
		set(ready(1), time.Minute)
		l.wantMetrics(t, `infer_start_phase_seconds_sum{phase="starting"} 1`, `infer_start_phase_seconds_sum{phase="loading"} 40`,
			`infer_start_phase_seconds_sum{phase="warming"} 2`, `infer_start_phase_seconds_count{phase="pulling"} 0`,
			`infer_engine_exits_total{cause="host_out_of_memory"} 0`, "infer_engine_restarts_total 0")
		set(engine.Status{Phase: engine.Failed, Failure: crash}, time.Second)
		l.wantMetrics(t, `infer_engine_activity{state="dead"} 1`)
		set(engine.Status{Phase: engine.Starting, Failure: crash}, time.Second)
		set(engine.Status{Phase: engine.Loading, Failure: crash}, 30*time.Second)
		l.wantMetrics(t, `infer_engine_exits_total{cause="host_out_of_memory"} 1`, "infer_engine_restarts_total 1")
		again := *crash
		set(engine.Status{Phase: engine.Starting, Failure: &again}, time.Second) // it crashed while it started
		l.wantMetrics(t, `infer_engine_exits_total{cause="host_out_of_memory"} 2`, "infer_engine_restarts_total 2",
			`infer_start_phase_seconds_sum{phase="loading"} 40`) // that of a start that failed says nothing
		set(ready(1), time.Second)
		set(engine.Status{Phase: engine.Asleep, Slots: 1}, time.Hour)
		set(engine.Status{Phase: engine.Loading, Slots: 1}, time.Second)
		l.wantMetrics(t, "infer_engine_restarts_total 2", `infer_engine_exits_total{cause="killed"} 0`)
	})
}

func TestActivity(t *testing.T) {
	inBubble(t, config(), ready(1), tick(2), func(t *testing.T, l *live) {
		l.wantMetrics(t, `infer_engine_activity{state="idle"} 1`, `infer_engine_activity{state="busy"} 0`, `infer_engine_activity{state="stalled"} 0`, `infer_engine_activity{state="dead"} 0`)
		r := l.post(t, "/v1/completions", chat)
		l.wantMetrics(t, `infer_engine_activity{state="busy"} 1`, `infer_engine_activity{state="idle"} 0`)
		l.fake.Set(engine.Status{Phase: engine.Stalled})
		l.wantMetrics(t, `infer_engine_activity{state="stalled"} 1`, `infer_engine_activity{state="busy"} 0`)
		<-r.ended
	})
}

// Who waits for a start is told how long it will take, if that is known. What
// is longer than two minutes is told as different times shortly before them.
func TestLearnedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.MaxQueue = 0
		for _, tt := range []struct {
			left time.Duration
			want string
		}{{90 * time.Second, "90"}, {10 * time.Minute, "102"}, {-time.Minute, "1"}} {
			f := newFixture(t, cfg, engine.Status{Phase: engine.Loading, Progress: -1, ReadyAt: time.Now().Add(tt.left)}, say)
			if got := f.do("POST", "/v1/completions", oneShot).Header().Get("Retry-After"); got != tt.want {
				t.Errorf("%v: Retry-After = %q, want %q", tt.left, got, tt.want)
			}
			left := map[bool]string{true: "0"}[tt.left < 0]
			if left == "" {
				left = map[string]string{"90": "90", "102": "600"}[tt.want]
			}
			if body := f.do("GET", "/readyz", "").Body.String(); !strings.Contains(body, `"remaining_seconds":`+left+`}`) {
				t.Errorf("%v: %s", tt.left, body)
			}
		}
	})
}

// proud is an engine with metrics of its own.
type proud struct {
	fake
	own prometheus.Counter
}

func (p *proud) Describe(ch chan<- *prometheus.Desc) { p.own.Describe(ch) }
func (p *proud) Collect(ch chan<- prometheus.Metric) { p.own.Collect(ch) }
func (p *proud) Gather() ([]*dto.MetricFamily, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "its_own"}))
	return reg.Gather()
}

// An engine that is a collector tells its life itself, whoever registers it,
// and one that gathers is merged into the same scrape.
func TestEngineWithMetrics(t *testing.T) {
	for name, before := range map[string]bool{"registered by us": false, "registered before": true} {
		p := &proud{own: prometheus.NewCounter(prometheus.CounterOpts{Name: "infer_engine_restarts_total"})}
		p.serve = say
		reg := prometheus.NewRegistry()
		if before {
			reg.MustRegister(p)
		}
		s, err := New(config(), p, reg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("%s: New() = %v", name, err)
		}
		f := &fixture{Server: s, fake: &p.fake, reg: reg}
		f.wantMetrics(t, "infer_engine_restarts_total 0", "its_own 0")
		if body := f.do("GET", "/metrics", "").Body.String(); strings.Contains(body, "infer_engine_exits_total") {
			t.Errorf("%s: the server tells what the engine does not", name)
		}
	}
}
