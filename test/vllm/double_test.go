package vllm

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// double is a vLLM that answers with recorded bytes, in pieces of any size. It
// is a server of bytes, not of HTTP: what vLLM writes is passed on as it was
// written, framing included. With a real vLLM behind it, it records.
type double struct {
	t    *testing.T
	ln   net.Listener
	real string // socket of a real vLLM to record from; empty when there is none
	wg   sync.WaitGroup

	mu     sync.Mutex
	answer []byte // to the next request of a client; nil to record it
	random *rand.Rand
}

// probes are what infer asks by itself, and how vLLM answers.
var probes = map[string]string{
	"GET /health":      "",
	"GET /version":     `{"version":"0.32.0"}`,
	"GET /is_sleeping": `{"is_sleeping":false}`,
	"GET /metrics":     "vllm:cache_config_info{engine=\"0\",kv_cache_size_tokens=\"23296\"} 1.0\n",
	"GET /v1/models":   `{"object":"list","data":[{"id":"smollm2","object":"model","created":1795628000,"owned_by":"vllm","max_model_len":1024}]}`,
}

func newDouble(t *testing.T, real string) *double {
	t.Helper()
	dir, err := os.MkdirTemp("", "v") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &double{t: t, real: real}
	if d.ln, err = new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "s")); err != nil {
		t.Fatal(err)
	}
	d.wg.Go(func() {
		for {
			conn, err := d.ln.Accept()
			if err != nil {
				return
			}
			d.wg.Go(func() { d.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = d.ln.Close(); d.wg.Wait() })
	return d
}

func (d *double) url() string { return "unix://" + d.ln.Addr().String() }

// next sets what the next request of a client is answered, cut by seed.
func (d *double) next(answer []byte, seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer, d.random = answer, rand.New(rand.NewPCG(seed, 0))
}

func (d *double) recorded() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answer
}

// serve answers one request of a connection.
func (d *double) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return // closed without a request
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Error(err)
		return
	}
	probe, isProbe := probes[r.Method+" "+r.URL.Path]
	switch {
	case isProbe:
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(probe), probe) // it may have left
	case bytes.Contains(body, []byte(`"prompt":"Hello"`)): // the first inference
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
	case d.recorded() == nil:
		d.record(conn, r, body)
	default:
		d.replay(conn)
	}
}

// replay writes the answer in pieces.
func (d *double) replay(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for rest := d.answer; len(rest) > 0; {
		n := min(1+d.random.IntN(1+d.random.IntN(300)), len(rest))
		if _, err := conn.Write(rest[:n]); err != nil {
			return // infer has what it wanted
		}
		rest = rest[n:]
	}
}

// record asks the real vLLM and keeps its bytes.
func (d *double) record(conn net.Conn, r *http.Request, body []byte) {
	up, err := new(net.Dialer).DialContext(context.Background(), "unix", d.real)
	if err != nil {
		d.t.Error(err)
		return
	}
	defer func() { _ = up.Close() }()
	r.Header.Set("Connection", "close")
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if err := r.Write(up); err != nil {
		d.t.Error(err)
		return
	}
	answer, err := io.ReadAll(up)
	if err != nil {
		d.t.Error(err)
		return
	}
	d.next([]byte(strings.ReplaceAll(string(answer), filepath.Dir(os.Getenv("INFER_TEST_VLLM_MODEL")), "models")), 1)
	_, _ = conn.Write(answer) // it may have left
}
