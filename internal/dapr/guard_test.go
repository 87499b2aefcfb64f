package dapr

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/metadata"
)

// What a sidecar says of a caller is believed when its token is right, and
// never reaches the engine.
func TestGuard(t *testing.T) {
	f := newFake(t)
	for _, tt := range []struct {
		name, token  string // token of the app
		path         string
		tokens, apps []string
		status       int
		says         string
	}{
		{"right", "secret", "/v1/models", []string{"secret"}, []string{"checkout"}, 200, "app:checkout"},
		{"right, no app", "secret", "/v1/models", []string{"secret"}, nil, 200, "app:"},
		{"right, two apps", "secret", "/v1/models", []string{"secret"}, []string{"forged", "checkout"}, 200, "app:"},
		{"wrong", "secret", "/v1/models", []string{"secre"}, []string{"checkout"}, 401, "APP_API_TOKEN"},
		{"empty", "secret", "/v1/models", []string{""}, []string{"checkout"}, 401, "APP_API_TOKEN"},
		{"twice", "secret", "/v1/models", []string{"secret", "secret"}, nil, 401, "APP_API_TOKEN"},
		{"a client of the port", "secret", "/v1/models", nil, []string{"checkout"}, 200, ""},
		{"no token is set", "", "/v1/models", []string{""}, []string{"checkout"}, 200, ""},
		{"the sidecar's question", "secret", "/dapr/subscribe", []string{"secret"}, nil, 200, "[]"},
		{"the sidecar's question without a token", "secret", "/dapr/config", nil, nil, 401, "APP_API_TOKEN"},
		{"its question where no token is set", "", "/dapr/config", nil, nil, 200, "{}"},
		{"no question of a sidecar", "", "/dapr/else", nil, nil, 404, "route_not_found"},
	} {
		cfg := f.config()
		cfg.AppToken = tt.token
		s, err := New(cfg, program(echo), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.conn.Close() }()
		h := s.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header.Values(tokenHeader))+len(r.Header.Values(callerHeader)) > 0 {
				t.Errorf("%s: the sidecar's headers went on: %v", tt.name, r.Header)
			}
			_, _ = w.Write([]byte(r.Header.Get("Trusted")))
		}))
		r := httptest.NewRequestWithContext(t.Context(), "GET", tt.path, nil)
		r.Header["Dapr-Api-Token"], r.Header[callerHeader] = tt.tokens, tt.apps
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status || (tt.says == "" && w.Body.Len() > 0) || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %q, want %d %q", tt.name, w.Code, w.Body, tt.status, tt.says)
		}
	}
}

// The token is added to what a call carries, and replaces nothing.
func TestOutgoing(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.Token = "secret"
	r := run(t, cfg, program(echo))
	ctx := context.WithValue(metadata.AppendToOutgoingContext(t.Context(), "x-custom", "own"), traceKey{}, trace{parent, "a=b"})
	if err := r.client.SetMetadata(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.headers, func(md metadata.MD) bool { return len(md.Get("x-custom")) > 0 }) // others are of the background
	if i < 0 {
		t.Fatal("the call's own header is lost")
	}
	md := f.headers[i]
	for name, want := range map[string]string{"x-custom": "own", "dapr-api-token": "secret", "traceparent": parent, "tracestate": "a=b"} {
		if got := md.Get(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s = %v, want %s", name, got, want)
		}
	}
}

// Peers learn what is served, again when it changes, and the operator what the
// components lack.
func TestDiscovery(t *testing.T) {
	f := newFake(t)
	f.parts = []*pb.RegisteredComponents{{Name: "events", Type: "pubsub.in-memory"}, {Name: "kept", Type: "state.x", Capabilities: []string{"TRANSACTIONAL"}}}
	cfg := f.config()
	cfg.State, cfg.DirectURL = "kept", "http://infer.internal"
	r := run(t, cfg, program(echo))
	until(t, "told", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.meta["infer.url"] != "" && f.meta["infer.models"] == "m" && f.meta["infer.context_tokens"] == "8" && f.meta["infer.capabilities"] == "chat"
	})
	if !r.Ready() || !strings.HasPrefix(r.Detail(), "the sidecar is ready") {
		t.Errorf("detail %q", r.Detail())
	}
	for _, want := range []string{"keeps messages in the sidecar's memory", "no dead letter topic", "kept has no etags", "kept has no TTL"} {
		if !strings.Contains(r.log.String(), want) || !strings.Contains(r.Detail(), want) {
			t.Errorf("no %q in the log or in %q:\n%s", want, r.Detail(), r.log)
		}
	}
	if found := r.lacks(nil); len(found) != 2 || !strings.Contains(found[0], `no pubsub component is called "events"; the sidecar has none`) {
		t.Errorf("%q", found)
	}
	f.health.Close()
	until(t, "noticed", func() bool { return !r.Ready() && strings.Contains(r.Detail(), "does not answer") })
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		mode string
		env  map[string]string
		want Config
	}{
		{"auto", nil, Config{Mode: "off"}},
		{"on", nil, Config{Mode: "on", GRPC: "127.0.0.1:50001", HTTP: "http://127.0.0.1:3500"}},
		{"auto", map[string]string{"DAPR_GRPC_PORT": "1", "DAPR_HTTP_PORT": "2", "DAPR_API_TOKEN": "t", "APP_API_TOKEN": "a"},
			Config{Mode: "auto", GRPC: "127.0.0.1:1", HTTP: "http://127.0.0.1:2", Token: "t", AppToken: "a"}},
		{"auto", map[string]string{"DAPR_GRPC_ENDPOINT": "https://dapr.example"}, Config{Mode: "auto", GRPC: "dapr.example:443", HTTP: "http://127.0.0.1:3500", TLS: true}},
		{"auto", map[string]string{"DAPR_GRPC_ENDPOINT": "dapr.example:5?tls=true", "DAPR_HTTP_ENDPOINT": "https://x"}, Config{Mode: "auto", GRPC: "dapr.example:5", HTTP: "https://x", TLS: true}},
	} {
		c := Config{Mode: tt.mode}
		if err := c.FromEnvironment(func(k string) string { return tt.env[k] }); err != nil || c.GRPC != tt.want.GRPC || c.HTTP != tt.want.HTTP ||
			c.TLS != tt.want.TLS || c.Mode != tt.want.Mode || c.Token != tt.want.Token || c.AppToken != tt.want.AppToken {
			t.Errorf("%v: %+v, %v; want %+v", tt.env, c, err, tt.want)
		}
	}
	bad := Config{Mode: "maybe", PubSub: "a b", Topic: "", Concurrency: -1, DirectURL: "x"}
	err := bad.Faults()
	for _, want := range []string{"dapr: ", "dapr-pubsub: ", "dapr-topic", "dapr-reply-topics: ", "dapr-concurrency: ", "direct-url: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if err := (Config{Mode: "auto", Topic: "a", ReplyTopics: []string{"b"}}).Faults(); err != nil {
		t.Error(err)
	}
}
