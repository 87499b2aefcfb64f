package serve

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"infer/internal/engine"
	"infer/internal/openai"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener on a network of pipes, which works on the fake clock.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// live is a fixture whose Run runs.
type live struct {
	*fixture
	pipes  *pipes
	client *http.Client
	signal context.CancelFunc // as SIGTERM does
	ended  chan error
}

// inBubble runs test over a running server on the fake clock.
func inBubble(t *testing.T, cfg Config, st engine.Status, serve http.HandlerFunc, test func(*testing.T, *live)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &live{fixture: newFixture(t, cfg, st, serve), pipes: newPipes(), ended: make(chan error, 1)}
		tr := &http.Transport{DialContext: l.pipes.dial}
		l.client = &http.Client{Transport: tr}
		var ctx context.Context
		ctx, l.signal = context.WithCancel(t.Context())
		go func() { l.ended <- l.Run(ctx, l.pipes); close(l.ended) }()
		test(t, l)
		tr.CloseIdleConnections()
		l.signal()
		if err := <-l.ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
}

// reply is an answer that arrives by and by.
type reply struct {
	mu     sync.Mutex
	status int
	header http.Header
	body   bytes.Buffer
	err    error
	ended  chan struct{}
	after  time.Duration
	cancel context.CancelFunc
}

// post sends body and collects the answer; extra are pairs of headers.
func (l *live) post(t *testing.T, path, body string, extra ...string) *reply {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &reply{ended: make(chan struct{}), cancel: cancel}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://infer"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(extra); i += 2 {
		req.Header.Set(extra[i], extra[i+1])
	}
	go r.collect(l.client, req)
	synctest.Wait()
	return r
}

func (r *reply) collect(c *http.Client, req *http.Request) {
	began := time.Now()
	defer close(r.ended)
	defer r.cancel()
	resp, err := c.Do(req)
	if err == nil {
		r.mu.Lock()
		r.status, r.header = resp.StatusCode, resp.Header
		r.mu.Unlock()
		_, err = io.Copy(r, resp.Body)
		_ = resp.Body.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.after = err, time.Since(began)
}

// Write collects the body.
func (r *reply) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.Write(p)
}

func (r *reply) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.String()
}

func (r *reply) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// want waits for the end and compares.
func (r *reply) want(t *testing.T, status int, body string, after time.Duration) {
	t.Helper()
	<-r.ended
	if r.err != nil || r.status != status || r.after != after {
		t.Errorf("answered %d after %v (%v), want %d after %v", r.status, r.after, r.err, status, after)
	}
	if got := r.body.String(); got != body {
		t.Errorf("body\n got %s\nwant %s", got, body)
	}
}

func (r *reply) wantHeader(t *testing.T, name, want string) {
	t.Helper()
	if got := r.header.Get(name); got != want {
		t.Errorf("%s = %q, want %q", name, got, want)
	}
}

const (
	chat    = `{"model":"small","stream":true}`
	oneShot = `{"model":"small"}`
	done    = "data: [DONE]\n\n"
)

// tick is an engine that streams a token every second, n of them.
func tick(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, m := openai.NewStream(w), engine.MeterFrom(r.Context())
		m.Prompt(7, 2)
		for i := range n {
			m.Tokens(1)
			if err := s.Send(i); err != nil {
				return
			}
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return // without a word: the server ends the stream
			}
		}
		_ = s.Done()
	}
}

// deaf streams like tick and never looks at its context.
func deaf(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tick(n)(w, r.WithContext(context.Background()))
	}
}

// silent answers nothing until its context ends.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// say answers at once.
func say(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":1}`) }
