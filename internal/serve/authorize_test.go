package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/go-chi/chi/v5"

	"infer/internal/admission"
	"infer/internal/caller"
	"infer/internal/engine"
)

const (
	annKey  = "ann-0123456789abcdef"
	benKey  = "ben-0123456789abcdef"
	promKey = "prom-0123456789abcdef"
)

// keyed is a server that knows some keys, and what its engine was asked.
func withKeys(t *testing.T, keys string) (*fixture, *atomic.Int32) {
	t.Helper()
	d, err := caller.Open(caller.Config{Keys: keys}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Callers = &Callers{Keys: d}
	var asked atomic.Int32
	f := newFixture(t, cfg, ready(4), func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		m := engine.MeterFrom(r.Context())
		m.Prompt(7, 2)
		m.Tokens(3)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"caller":"` + engine.CallerFrom(r.Context()) + `"}`))
	})
	return f, &asked
}

func keyLines() string {
	sum := sha256.Sum256([]byte(benKey))
	return "ann:" + annKey + "\nben:" + hex.EncodeToString(sum[:]) + ":batch\nprom:" + promKey + ":metrics"
}

// With keys, no route but the probes answers without one, and each follows its
// rule. The routes are the router's own, so that a new one is held too.
func TestEveryRouteWantsAKey(t *testing.T) {
	f, asked := withKeys(t, keyLines())
	routes := 0
	err := chi.Walk(f.router, func(method, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes++
		path := strings.ReplaceAll(pattern, "*", "x")
		status := func(key string) int {
			w := f.do(method, path, `{}`, "Authorization", key)
			if key == "" {
				w = f.do(method, path, `{}`)
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %s: 401 without WWW-Authenticate", method, path)
			}
			return w.Code
		}
		none, wrong, ann, prom := status(""), status("Bearer wrong-0123456789abcdef"), status("Bearer "+annKey), status("Bearer "+promKey)
		denied := func(s int) bool { return s == 401 || s == 403 }
		switch path {
		case "/livez", "/readyz", "/health", "/startupz":
			if none != 200 || wrong != 200 || ann != 200 {
				t.Errorf("%s %s: a probe answers %d, %d, %d", method, path, none, wrong, ann)
			}
		case "/metrics", "/scale":
			if none != 401 || wrong != 401 || ann != 403 || prom != 200 {
				t.Errorf("%s %s: %d, %d, %d, %d; want 401, 401, 403, 200", method, path, none, wrong, ann, prom)
			}
		case "/":
			if none != 401 || wrong != 401 || ann != 200 || prom != 200 {
				t.Errorf("%s %s: %d, %d, %d, %d; want 401, 401, 200, 200", method, path, none, wrong, ann, prom)
			}
		default:
			if none != 401 || wrong != 401 || denied(ann) || prom != 403 {
				t.Errorf("%s %s: %d, %d, %d, %d; want 401, 401, let in, 403", method, path, none, wrong, ann, prom)
			}
		}
		return nil
	})
	if err != nil || routes < 20 {
		t.Fatalf("%d routes, %v", routes, err)
	}
	before := asked.Load()
	for _, path := range []string{"/v1/chat/completions", "/nowhere", "/v1/models/x"} {
		if w := f.do("POST", path, chat); w.Code != 401 {
			t.Errorf("%s: %d, want 401", path, w.Code)
		}
	}
	if asked.Load() != before {
		t.Errorf("a stranger reached the engine")
	}
}

// Every way to send a key, and every way to send it wrongly.
func TestCredentials(t *testing.T) {
	f, asked := withKeys(t, keyLines())
	long := "Bearer " + strings.Repeat("x", 40<<10)
	for _, tt := range []struct {
		name    string
		headers []string
		status  int
		says    string
	}{
		{"bearer", []string{"Authorization", "Bearer " + annKey}, 200, `"caller":"ann"`},
		{"in lower case", []string{"Authorization", "bearer  " + annKey + " "}, 200, `"caller":"ann"`},
		{"by its digest", []string{"Authorization", "Bearer " + benKey}, 200, `"caller":"ben"`},
		{"Anthropic's", []string{"X-Api-Key", annKey}, 200, `"caller":"ann"`},
		{"Azure's", []string{"Api-Key", annKey}, 200, `"caller":"ann"`},
		{"the same twice", []string{"Api-Key", annKey, "Authorization", "Bearer " + annKey}, 200, `"caller":"ann"`},
		{"two", []string{"Api-Key", benKey, "Authorization", "Bearer " + annKey}, 401, "several different keys"},
		{"none", nil, 401, "wants an API key"},
		{"empty", []string{"Authorization", "Bearer "}, 401, "wants an API key"},
		{"basic", []string{"Authorization", "Basic YTpi"}, 401, "must be a bearer"},
		{"unknown", []string{"Authorization", "Bearer sk-0123456789abcdef"}, 401, "not one of this server's"},
		{"the digest itself", []string{"Authorization", "Bearer " + strings.Repeat("ab", 32)}, 401, "not one of this server's"},
		{"endless", []string{"Authorization", long}, 401, "no key is that long"},
		{"of class metrics", []string{"Authorization", "Bearer " + promKey}, 403, "permission_denied"},
	} {
		before := asked.Load()
		w := f.do("POST", "/v1/chat/completions", chat, tt.headers...)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %s, want %d with %q", tt.name, w.Code, w.Body, tt.status, tt.says)
		}
		if reached := asked.Load() - before; (reached > 0) != (tt.status == 200) {
			t.Errorf("%s: the engine was asked %d times", tt.name, reached)
		}
		if strings.Contains(w.Body.String()+f.logs.String(), "0123456789abcdef") {
			t.Fatalf("%s: a key is in the answer or the log", tt.name)
		}
	}
	if !strings.Contains(f.logs.String(), `"key":"ann"`) {
		t.Errorf("no name of a key in the log: %s", f.logs)
	}
	f.wantMetrics(t, `infer_caller_requests_total{code="200",key="ann"} 5`, `infer_caller_tokens_total{key="ann",kind="prompt"} 35`,
		`infer_caller_tokens_total{key="ann",kind="completion"} 15`, `infer_rejected_total{reason="key"} 7`, `infer_rejected_total{reason="forbidden"} 1`)
	// Anthropic's clients get their own shape.
	if w := f.do("POST", "/v1/messages", hello, "X-Api-Key", "sk-ant-wrong-0000000"); w.Code != 401 || !strings.Contains(w.Body.String(), `"type":"authentication_error"`) || !strings.HasPrefix(w.Body.String(), `{"type":"error"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// The limits of a key: each with its answer, its headers, and an engine that
// saw nothing.
func TestLimitsOfAKey(t *testing.T) {
	f, asked := withKeys(t, "r:"+annKey+":interactive:rpm=2\nt:"+benKey+"::tpm=40\nm:"+promKey+"::models=small|other")
	do := func(key, path, body string) *httptest.ResponseRecorder {
		return f.do("POST", path, body, "Authorization", "Bearer "+key)
	}
	want := func(w *httptest.ResponseRecorder, status int, says ...string) {
		t.Helper()
		text := w.Body.String()
		for k, v := range w.Header() {
			text += "\n" + k + ": " + strings.Join(v, ",")
		}
		for _, s := range says {
			if !strings.Contains(text, s) {
				t.Errorf("no %q in %s", s, text)
			}
		}
		if w.Code != status {
			t.Errorf("%d, want %d: %s", w.Code, status, text)
		}
	}
	want(do(annKey, "/v1/chat/completions", chat), 200, "X-Ratelimit-Limit-Requests: 2", "X-Ratelimit-Remaining-Requests: 1", "X-Ratelimit-Reset-Requests: 30s")
	want(do(annKey, "/v1/chat/completions", chat), 200, "X-Ratelimit-Remaining-Requests: 0")
	before := asked.Load()
	want(do(annKey, "/v1/chat/completions", chat), 429, `"code":"rate_limit_exceeded"`, `"type":"rate_limit_error"`, "2 requests a minute", "Retry-After: 30")
	want(do(annKey, "/v1/messages", hello), 429, `"type":"rate_limit_error"`, "Anthropic-Ratelimit-Requests-Limit: 2", "Anthropic-Ratelimit-Requests-Reset: 20")
	want(do(benKey, "/v1/chat/completions", `{"max_tokens":1000,"messages":[{"role":"user","content":"x"}]}`), 413, `"code":"request_too_large"`, "40 tokens a minute", "X-Should-Retry: false")
	want(do(promKey, "/v1/chat/completions", `{"model":"Qwen/Qwen3-0.6B","messages":[]}`), 403, `"code":"model_not_allowed"`, `"param":"model"`)
	if asked.Load() != before {
		t.Errorf("the engine was asked")
	}
	// The estimate is corrected by what was used: 10 tokens.
	w := do(benKey, "/v1/chat/completions", `{"max_tokens":30,"messages":[{"role":"user","content":"x"}]}`)
	want(w, 200, "X-Ratelimit-Limit-Tokens: 40")
	want(do(benKey, "/v1/chat/completions", `{"max_tokens":1,"messages":[{"role":"user","content":"x"}]}`), 200)
	if w := f.do("GET", "/v1/models", "", "Authorization", "Bearer "+promKey); strings.Contains(w.Body.String(), "Qwen") || !strings.Contains(w.Body.String(), "small") {
		t.Errorf("models of a key: %s", w.Body)
	}
	if w := f.do("GET", "/v1/models/Qwen/Qwen3-0.6B", "", "Authorization", "Bearer "+promKey); w.Code != 404 {
		t.Errorf("a model that the key may not use: %d", w.Code)
	}
	f.wantMetrics(t, `infer_rejected_total{reason="rate_limit"} 3`)
}

// A request cannot give tokens back: numbers whose product overflows are large.
func TestLimitsAreNotRefilled(t *testing.T) {
	f, asked := withKeys(t, "t:"+benKey+"::tpm=1000")
	for _, body := range []string{
		`{"model":"small","prompt":"x","n":2,"max_tokens":4611686018427387904}`,
		`{"model":"small","prompt":"x","best_of":4096,"max_completion_tokens":9007199254740992}`,
	} {
		if w := f.do("POST", "/tokenize", body, "Authorization", "Bearer "+benKey); w.Code != 413 || w.Header().Get("X-Ratelimit-Remaining-Tokens") != "1000" {
			t.Errorf("%s: %d %s %v", body, w.Code, w.Body, w.Header())
		}
	}
	if asked.Load() > 0 {
		t.Error("the engine was asked")
	}
}

// Nothing is fetched for who may not ask.
func TestNothingIsFetchedForNothing(t *testing.T) {
	d, err := caller.Open(caller.Config{Keys: "m:" + promKey + "::models=other\nr:" + annKey + "::rpm=1"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var fetched atomic.Int32
	pictures := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer pictures.Close()
	cfg := config()
	cfg.Callers = &Callers{Keys: d}
	cfg.Policy.MediaHosts, cfg.Policy.MediaNetworks = []string{pictures.URL}, []string{"127.0.0.0/8"}
	f := newFixture(t, cfg, ready(1), say)
	f.fake.media = true
	body := `{"model":"small","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + pictures.URL + `/a.png"}}]}]}`
	for _, tt := range []struct {
		key, body string
		status    int
		fetched   int32
	}{
		{promKey, body, 403, 0},
		{annKey, chat, 200, 0},
		{annKey, body, 429, 0},
	} {
		w := f.do("POST", chatPath, tt.body, "Authorization", "Bearer "+tt.key)
		if w.Code != tt.status || fetched.Load() != tt.fetched {
			t.Errorf("%d, want %d, after %d fetches: %s", w.Code, tt.status, fetched.Load(), w.Body)
		}
	}
}

// While the engine does not know its models yet, a key gets no other model than
// when it does: neither one that it names nor the one that is meant without.
func TestModelsOfAKeyWhileTheEngineStarts(t *testing.T) {
	d, err := caller.Open(caller.Config{Keys: "ann:" + annKey + "::models=other"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Callers = &Callers{Keys: d}
	serve := func(http.ResponseWriter, *http.Request) { t.Error("the engine was asked") }
	inBubble(t, cfg, engine.Status{Phase: engine.Starting}, serve, func(t *testing.T, l *live) {
		refused := func(r *reply) {
			t.Helper()
			if <-r.ended; r.status != 403 || !strings.Contains(r.body.String(), "model_not_allowed") {
				t.Errorf("%d %s", r.status, &r.body)
			}
		}
		refused(l.post(t, "/v1/chat/completions", `{"model":"m","messages":[]}`, "Api-Key", annKey))
		held := l.post(t, "/v1/chat/completions", `{"messages":[]}`, "Api-Key", annKey)
		synctest.Wait()
		if n := l.gate.Stats().Held; n != 1 {
			t.Errorf("%d requests are held, want 1", n)
		}
		l.fake.Set(ready(4))
		refused(held)
	})
}

// Strangers learn from a probe what a platform needs, and no more.
func TestProbesTellStrangersLittle(t *testing.T) {
	f, _ := withKeys(t, keyLines())
	f.fake.Set(engine.Status{Phase: engine.Failed, Detail: "/models/x", Failure: &engine.Failure{Cause: engine.CauseModelNotFound, Message: "/models/x is away", Remedy: "mount /models"}})
	for _, path := range []string{"/livez", "/readyz", "/health", "/startupz"} {
		none, wrong := f.do("GET", path, ""), f.do("GET", path, "", "Api-Key", "wrong-0123456789abcdef")
		known := f.do("GET", path, "", "Api-Key", annKey)
		for _, w := range []*httptest.ResponseRecorder{none, wrong} {
			if w.Code != known.Code || !strings.Contains(w.Body.String(), `"phase":"failed"`) || strings.Contains(w.Body.String(), "/models") {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
		if !strings.Contains(known.Body.String(), "mount /models") {
			t.Errorf("%s with a key: %d %s", path, known.Code, known.Body)
		}
	}
}

func FuzzCredential(f *testing.F) {
	f.Add("Bearer "+annKey, "", "")
	f.Add("", annKey, annKey)
	f.Add("Basic x", "\x00", " "+annKey+"\t")
	f.Fuzz(func(t *testing.T, authorization, xAPIKey, apiKey string) {
		h := http.Header{}
		for name, v := range map[string]string{"Authorization": authorization, "X-Api-Key": xAPIKey, "Api-Key": apiKey} {
			if v != "" {
				h.Set(name, v)
			}
		}
		secret, e := credential(h)
		if (secret == "") != (e != nil) || len(secret) > maxSecret {
			t.Fatalf("%d bytes, %v", len(secret), e)
		}
		if e != nil && (e.Status != 401 || e.Code != "invalid_api_key") {
			t.Errorf("%+v", e)
		}
		for _, v := range []string{authorization, xAPIKey, apiKey} {
			if e != nil && len(v) > 16 && strings.Contains(e.Message, v) && !strings.Contains(unauthorizedWords, v) {
				t.Errorf("%q is in %q", v, e.Message)
			}
			if e == nil && v != "" && !strings.Contains(v, secret) {
				t.Errorf("%q was sent beside %q and is not the same", v, secret)
			}
		}
	})
}

// unauthorizedWords are what credential says of itself.
const unauthorizedWords = "Authorization must be a bearer: send Authorization: Bearer KEY " +
	"this server wants an API key; send Authorization: Bearer KEY the request has several different keys; send one " +
	"no key is that long; send Authorization: Bearer KEY"

// A key's requests at once are bounded, and its class reaches admission.
func TestConcurrencyOfAKey(t *testing.T) {
	d, err := caller.Open(caller.Config{Keys: "ann:" + annKey + ":batch:concurrency=1"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Callers = &Callers{Keys: d}
	started, end := make(chan admission.Class), make(chan struct{})
	f := newFixture(t, cfg, ready(4), func(w http.ResponseWriter, r *http.Request) {
		started <- exchangeOf(r).class
		<-end
		_, _ = w.Write([]byte("{}"))
	})
	first := make(chan int)
	go func() { first <- f.do("POST", "/v1/completions", `{"prompt":"x"}`, "Api-Key", annKey).Code }()
	if class := <-started; class != admission.Batch {
		t.Errorf("class %v, want batch", class)
	}
	if w := f.do("POST", "/v1/completions", `{"prompt":"x"}`, "Api-Key", annKey); w.Code != 429 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "requests at once") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	close(end)
	if code := <-first; code != 200 {
		t.Errorf("the first: %d", code)
	}
	go func() { <-started }()
	if w := f.do("POST", "/v1/completions", `{"prompt":"x"}`, "Api-Key", annKey); w.Code != 200 {
		t.Errorf("after it: %d %s", w.Code, w.Body)
	}
}

// Work of the program's own needs no key and counts as its caller's.
func TestAs(t *testing.T) {
	f, _ := withKeys(t, keyLines())
	a, ok := f.cfg.Callers.Keys.Find(annKey)
	if !ok {
		t.Fatal("no ann")
	}
	r := As(httptest.NewRequestWithContext(context.Background(), "POST", "/v1/chat/completions", strings.NewReader(chat)), a)
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, r)
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"caller":"ann"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Metrics on a port of their own need no key, and are not on the other.
func TestMetricsElsewhere(t *testing.T) {
	cfg := config()
	cfg.MetricsListen = "127.0.0.1:0"
	f := newFixture(t, cfg, ready(1), say)
	for _, path := range []string{"/metrics", "/scale"} {
		if w := f.do("GET", path, ""); w.Code != 404 {
			t.Errorf("%s on the port of the API: %d", path, w.Code)
		}
		w := httptest.NewRecorder()
		f.MetricsHandler(f.reg).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		if w.Code != 200 || !strings.Contains(w.Body.String(), "saturation") {
			t.Errorf("%s on its own: %d", path, w.Code)
		}
	}
}

// A file that changes under load changes who may call, and nobody else notices.
func TestKeysChangeUnderLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	put("ann:" + annKey)
	d, err := caller.Open(caller.Config{File: file}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Callers = &Callers{Keys: d}
	f := newFixture(t, cfg, ready(8), say)
	stop := make(chan struct{})
	codes := make(chan []int)
	for range 4 {
		go func() {
			var seen []int
			for {
				select {
				case <-stop:
					codes <- seen
					return
				default:
				}
				if code := f.do("POST", "/v1/chat/completions", chat, "Api-Key", annKey).Code; !slices.Contains(seen, code) {
					seen = append(seen, code)
				}
			}
		}()
	}
	for i := range 50 {
		if put("ann:" + annKey); i%2 == 0 {
			put("ann:" + annKey + "\nben:" + benKey)
		}
		d.Reload()
		if code := f.do("POST", "/v1/chat/completions", chat, "Api-Key", benKey).Code; (code == 200) != (i%2 == 0) {
			t.Errorf("round %d: ben gets %d", i, code)
		}
	}
	close(stop)
	for range 4 {
		if seen := <-codes; !slices.Equal(seen, []int{200}) {
			t.Errorf("ann got %v", seen)
		}
	}
}
