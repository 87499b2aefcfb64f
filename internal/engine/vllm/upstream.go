package vllm

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"infer/internal/engine"
)

const (
	// idleTimeout ends unused connections before uvicorn does, which it does
	// after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): a request on a connection that
	// is being closed would be lost.
	idleTimeout = 4 * time.Second
	dialTimeout = 5 * time.Second
	// probeTimeout bounds the small questions. A loaded server's event loop
	// answers late, so it is long.
	probeTimeout = 10 * time.Second
	maxErrorBody = 1 << 20
	maxMetrics   = 16 << 20
)

// errGone is why requests are cancelled when their vLLM ends.
var errGone = errors.New("the engine has gone")

// upstream is one vLLM server: its address, its connections, and the requests
// in flight, which end with it.
type upstream struct {
	base      string // such as http://127.0.0.1:8000
	key       string // empty when vLLM wants none
	transport *http.Transport
	sick      chan struct{} // holds a mark once an answer said that its engine is dead

	mu      sync.Mutex
	gone    bool
	cancels map[*context.CancelCauseFunc]struct{}
	empty   chan struct{} // closed when no request is left; nil before drain
}

// newUpstream returns the server at address, which is http://HOST:PORT or
// unix:///PATH.
func newUpstream(address, key string) (*upstream, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address; write http://HOST:PORT or unix:///PATH", address)
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	t := &http.Transport{
		DialContext: dialer.DialContext, DisableCompression: true,
		MaxIdleConnsPerHost: 256, IdleConnTimeout: idleTimeout,
		ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
	}
	up := &upstream{key: key, transport: t, sick: make(chan struct{}, 1), cancels: map[*context.CancelCauseFunc]struct{}{}}
	switch {
	case u.Scheme == "http" && u.Host != "" && (u.Path == "" || u.Path == "/"):
		up.base = "http://" + u.Host
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		up.base = "http://vllm"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
	default:
		return nil, fmt.Errorf("%q is not an address; write http://HOST:PORT or unix:///PATH", address)
	}
	return up, nil
}

// join returns a context that ends with ctx or with the upstream.
func (up *upstream) join(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.gone {
		cancel(errGone)
		return ctx, func() {}
	}
	up.cancels[&cancel] = struct{}{}
	return ctx, func() {
		up.mu.Lock()
		delete(up.cancels, &cancel)
		if up.empty != nil && len(up.cancels) == 0 {
			close(up.empty)
			up.empty = nil
		}
		up.mu.Unlock()
		cancel(nil)
	}
}

// drain waits for the requests in flight, at most for d.
func (up *upstream) drain(d time.Duration) {
	up.mu.Lock()
	empty := make(chan struct{})
	if len(up.cancels) == 0 {
		close(empty)
	} else {
		up.empty = empty
	}
	up.mu.Unlock()
	wait(empty, d)
}

// close ends what is in flight and every connection. A vLLM that was told to
// stop waits for its connections for ever.
func (up *upstream) close() {
	up.mu.Lock()
	up.gone = true
	for cancel := range up.cancels {
		(*cancel)(errGone)
	}
	up.mu.Unlock()
	up.transport.CloseIdleConnections()
}

func (up *upstream) markSick() {
	select {
	case up.sick <- struct{}{}:
	default:
	}
}

// request makes a request whose body can be sent again, so that net/http may
// do that on a connection which turned out closed before anything was written.
// After the first byte it never does with a POST.
func (up *upstream) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, up.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("User-Agent", "infer")
	if up.key != "" {
		r.Header.Set("Authorization", "Bearer "+up.key)
	}
	return r, nil
}

// ask sends a small request of our own and returns status and body.
func (up *upstream) ask(ctx context.Context, method, path string, body []byte, limit int64) (int, []byte, error) {
	ctx, leave := up.join(ctx)
	defer leave()
	r, err := up.request(ctx, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := up.transport.RoundTrip(r)
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return resp.StatusCode, text, nil
}

// get asks with a bound of time.
func (up *upstream) get(ctx context.Context, path string, limit int64) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return up.ask(ctx, http.MethodGet, path, nil, limit)
}

// healthy says whether /health answers 200, which vLLM does once its engine is
// loaded, and goes on to do when that engine hangs.
func (up *upstream) healthy(ctx context.Context) bool {
	status, _, err := up.get(ctx, "/health", maxErrorBody)
	return err == nil && status == http.StatusOK
}

// version is empty when the server does not say.
func (up *upstream) version(ctx context.Context) string {
	var v struct {
		Version string `json:"version"`
	}
	status, body, err := up.get(ctx, "/version", maxErrorBody)
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &v) != nil {
		return ""
	}
	return v.Version
}

// errNotVLLM: the answer of /v1/models is not vLLM's.
var errNotVLLM = errors.New("not vLLM's answer")

// models asks what is served: the model under each of its names, then the
// adapters.
func (up *upstream) models(ctx context.Context) ([]engine.Model, error) {
	var list struct {
		Object string `json:"object"`
		Data   []struct {
			ID      string `json:"id"`
			Created int64  `json:"created"`
			Max     int    `json:"max_model_len"`
		} `json:"data"`
	}
	status, body, err := up.get(ctx, "/v1/models", maxErrorBody)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusUnauthorized:
		return nil, fmt.Errorf("%w: HTTP 401", errNotVLLM)
	case status != http.StatusOK || json.Unmarshal(body, &list) != nil || len(list.Data) == 0:
		return nil, fmt.Errorf("%w: HTTP %d", errNotVLLM, status)
	}
	var models []engine.Model
	for _, m := range list.Data {
		model := engine.Model{ID: m.ID, ContextTokens: m.Max}
		if model.ContextTokens == 0 && len(models) > 0 { // an adapter has its model's
			model.ContextTokens = models[0].ContextTokens
		}
		models = append(models, model)
	}
	return models, nil
}

// exposition is vLLM's own /metrics.
func (up *upstream) exposition(ctx context.Context) ([]byte, error) {
	status, text, err := up.get(ctx, "/metrics", maxMetrics)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET /metrics: HTTP %d", status)
	}
	return text, err
}
