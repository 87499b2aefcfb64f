package serve

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/engine"
)

func TestModels(t *testing.T) {
	const (
		qwen  = `{"id":"Qwen/Qwen3-0.6B","object":"model","created":1745000000,"owned_by":"infer","max_model_len":4096}`
		small = `{"id":"small","object":"model","created":0,"owned_by":"infer"}`
	)
	known := engine.Status{Phase: engine.Loading, Models: models}
	f := newFixture(t, config(), known, say)
	for path, want := range map[string]string{
		"/v1/models":                   `{"object":"list","data":[` + qwen + `,` + small + `]}`,
		"/v1/models/small":             small,
		"/v1/models/Qwen/Qwen3-0.6B":   qwen,
		"/v1/models/Qwen%2FQwen3-0.6B": qwen,
		"/v1/models/Qwen%2fQwen3-0.6B": qwen,
	} {
		if w := f.do("GET", path, ""); w.Code != 200 || w.Body.String() != want {
			t.Errorf("GET %s = %d %s\nwant %s", path, w.Code, w.Body, want)
		}
	}
	f.wantMetrics(t, `infer_requests_total{code="200",model="unknown",route="/v1/models/*"} 4`, `infer_tokens_total{kind="cached",model="small"} 0`)
	empty := newFixture(t, config(), loading, say)
	if w := empty.do("GET", "/v1/models", ""); w.Code != 200 || w.Body.String() != `{"object":"list","data":[]}` {
		t.Errorf("without models: %d %s", w.Code, w.Body)
	}
	if w := empty.do("GET", "/v1/models/x", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "does not know its models yet") {
		t.Errorf("without models: %d %s", w.Code, w.Body)
	}
}

func TestProbes(t *testing.T) {
	phase := func(p engine.Phase) engine.Status { return engine.Status{Phase: p, Progress: -1} }
	failed := phase(engine.Failed)
	failed.Failure = &engine.Failure{Cause: engine.CauseDiskFull, Message: "no room", Remedy: "grow the volume", Retryable: true}
	half := engine.Status{Phase: engine.Loading, Progress: 0.5, Detail: "model.onnx"}
	for _, tt := range []struct {
		status               engine.Status
		live, ready, status2 int // startup before the engine was ready once
		body                 string
	}{
		{phase(engine.Starting), 200, 503, 503, `"phase":"starting","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{phase(engine.Pulling), 200, 503, 503, `"phase":"pulling","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{half, 200, 503, 503, `"phase":"loading","progress":0.5,"since":"2000-01-01T00:00:00Z","age_seconds":90,"detail":"model.onnx"}`},
		{phase(engine.Compiling), 200, 503, 503, `"phase":"compiling","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{phase(engine.Warming), 200, 503, 503, `"phase":"warming","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{phase(engine.Ready), 200, 200, 200, `"phase":"ready","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{phase(engine.Asleep), 200, 200, 200, `"phase":"asleep","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{phase(engine.Draining), 200, 503, 503, `"phase":"draining","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{phase(engine.Stopped), 200, 503, 503, `"phase":"stopped","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{phase(engine.Stalled), 503, 503, 503, `"phase":"stalled","since":"2000-01-01T00:00:00Z","age_seconds":90}`},
		{failed, 503, 503, 503, `"phase":"failed","since":"2000-01-01T00:00:00Z","age_seconds":90,"cause":"disk_full","message":"no room","remedy":"grow the volume"}`},
	} {
		t.Run(string(tt.status.Phase), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, config(), tt.status, say)
				synctest.Sleep(90 * time.Second)
				for path, want := range map[string]int{"/livez": tt.live, "/readyz": tt.ready, "/health": tt.ready, "/startupz": tt.status2} {
					w := f.do("GET", path, "")
					body := `{"status":"` + map[int]string{200: "ok", 503: "unavailable"}[want] + `",` + tt.body
					if w.Code != want || w.Body.String() != body {
						t.Errorf("GET %s = %d %s\nwant %d %s", path, w.Code, w.Body, want, body)
					}
					if (w.Header().Get("Retry-After") != "") != (want == 503) {
						t.Errorf("GET %s: Retry-After = %q", path, w.Header().Get("Retry-After"))
					}
					if got := w.Header().Get("X-Should-Retry"); got != "" { // the failure is retryable
						t.Errorf("GET %s: X-Should-Retry = %q", path, got)
					}
				}
				f.wantMetrics(t, `infer_engine_phase{phase="`+string(tt.status.Phase)+`"} 1`)
				f.apply(ready(1)) // it was ready once
				if w := f.do("GET", "/startupz", ""); w.Code != 200 {
					t.Errorf("GET /startupz after having been ready = %d", w.Code)
				}
			})
		})
	}
}

func TestHeadAndIndex(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	srv := httptest.NewServer(f.Handler())
	defer srv.Close()
	for _, path := range []string{"/", "/v1/models", "/readyz", "/metrics"} {
		resp, err := srv.Client().Head(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || len(b) > 0 || err != nil {
			t.Errorf("HEAD %s = %d %q %v", path, resp.StatusCode, b, err)
		}
	}
	if w := f.do("GET", "/", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "POST /v1/chat/completions") {
		t.Errorf("GET / = %d %s", w.Code, w.Body)
	}
}

func TestSlots(t *testing.T) {
	for _, tt := range []struct{ engine, limit, want int }{{0, 0, 1}, {8, 0, 8}, {8, 3, 3}, {2, 3, 2}, {0, 3, 3}} {
		cfg := config()
		cfg.MaxConcurrency = tt.limit
		if got := newFixture(t, cfg, ready(tt.engine), say).gate.Stats().Capacity; got != tt.want {
			t.Errorf("engine's %d, limit %d: %d slots, want %d", tt.engine, tt.limit, got, tt.want)
		}
		guess := ready(tt.engine)
		guess.SlotsGuessed = true
		if got, want := newFixture(t, cfg, guess, say).gate.Stats().Capacity, cmp.Or(tt.limit, tt.want); got != want {
			t.Errorf("engine's guess %d, limit %d: %d slots, want %d", tt.engine, tt.limit, got, want)
		}
	}
}

func TestValidateReportsAll(t *testing.T) {
	err := Config{Hold: -1, MaxQueue: -1, MaxQueueBytes: -1, MaxConcurrency: -1}.Validate()
	for _, flag := range []string{"grace:", "hold:", "commit-after:", "client-stall:", "max-queue:", "max-queue-bytes:", "max-concurrency:", "max-body-bytes:"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("Validate() = %v, want it to name %s", err, flag)
		}
	}
	if err := config().Validate(); err != nil {
		t.Errorf("Validate() = %v", err)
	}
	if _, err := New(Config{}, &fake{}, nil, nil); err == nil {
		t.Error("New takes an invalid config")
	}
}

func TestRegistryTwice(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	if _, err := New(config(), f.fake, f.reg, f.log); err == nil || !strings.HasPrefix(err.Error(), "register metrics: ") {
		t.Errorf("New() = %v on a registry that is taken", err)
	}
}

func TestRunReportsALostListener(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	p := newPipes()
	_ = p.Close()
	if err := f.Run(t.Context(), p); err == nil {
		t.Error("Run() = nil without a listener")
	}
}

// Real sockets: HTTP/1.1 and HTTP/2 without TLS.
func TestProtocols(t *testing.T) {
	for _, major := range []int{1, 2} {
		f := newFixture(t, config(), ready(1), say)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := &live{fixture: f, ended: make(chan error, 1)}
		ctx, signal := context.WithCancel(t.Context())
		go func() { l.ended <- l.Run(ctx, ln) }()
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(major == 1)
		tr.Protocols.SetUnencryptedHTTP2(major == 2)
		resp, err := (&http.Client{Transport: tr}).Post("http://"+ln.Addr().String()+"/v1/completions", "application/json", strings.NewReader(oneShot))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.ProtoMajor != major || string(b) != `{"ok":1}` {
			t.Errorf("HTTP/%d: %s %s %v", major, resp.Proto, b, err)
		}
		tr.CloseIdleConnections()
		signal()
		if err := <-l.ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	}
}
