package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeServer answers completions with texts; its process is this one.
func fakeServer(t *testing.T, answer http.HandlerFunc) *server {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	return &server{cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}, client: srv.Client(), url: srv.URL}
}

// stream answers with n tokens, of which every one in silent has no text.
func stream(n int, silent bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := range n {
			text := "x"
			if silent && i%2 == 0 {
				text = ""
			}
			_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"text\":%q,\"finish_reason\":null}]}\n\n", text)
			_ = http.NewResponseController(w).Flush()
			burn()
		}
		_, _ = fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":{\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", n)
	}
}

// burn uses about two milliseconds of CPU time.
func burn() {
	x := 1.0
	for range 2_000_000 {
		x = x*1.0000001 + 1
	}
	if x < 0 {
		panic("impossible")
	}
}

func TestDecodeMeasuresInsideTheWindow(t *testing.T) {
	s := fakeServer(t, stream(64, false))
	got, err := s.decode(t.Context(), [][]int32{{1}, {2}}, 20)
	if err != nil || got.Tokens != 40 {
		t.Errorf("decode = %+v, %v, want 40 tokens", got, err)
	}
}

func TestDecodeRefusesWhatItCannotTime(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"ended early":    stream(10, false),
		"without text":   stream(200, true),
		"without tokens": stream(0, false),
	} {
		if _, err := fakeServer(t, answer).decode(t.Context(), [][]int32{{1}, {2}}, 20); !errors.Is(err, errUnfit) {
			t.Errorf("%s: decode = %v, want errUnfit", name, err)
		}
	}
}

func TestSilentIsOfAllStreams(t *testing.T) {
	if got, want := silent([]int{50, 48}, []int{50, 50}), 0.02; math.Abs(got-want) > 1e-9 {
		t.Errorf("silent = %v, want %v", got, want)
	}
	if got := silent(nil, nil); got < 1 {
		t.Errorf("silent = %v, want 1: no token came", got)
	}
}

// The rest of the answer is written when the client comes back from the first
// event: a TTFT that counts any of it is longer than that took.
func TestPrefillTakesTheTTFT(t *testing.T) {
	taken := make(chan struct{})
	s := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		burn() // what takes no CPU time is not measured
		_, _ = fmt.Fprint(w, "data: {\"choices\":[{\"text\":\"x\",\"finish_reason\":null}]}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-taken
		stream(40, false)(w, r)
	})
	began := time.Now()
	var first time.Duration
	s.client.Transport = returns{s.client.Transport, func() { first = time.Since(began); close(taken) }}
	if got, err := s.prefill(t.Context(), []int32{1, 2, 3}); err != nil || got.Tokens != 3 || got.Wall <= 0 || got.Wall > first {
		t.Errorf("prefill = %+v, %v, want 3 tokens and the TTFT, which was at most %v", got, err, first)
	}
}

// returns calls taken when the reader of a body comes back after a whole event.
type returns struct {
	http.RoundTripper
	taken func()
}

func (r returns) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = &returning{ReadCloser: resp.Body, taken: sync.OnceFunc(r.taken)}
	}
	return resp, err
}

type returning struct {
	io.ReadCloser
	seen  []byte
	taken func()
}

func (r *returning) Read(p []byte) (int, error) {
	if bytes.Contains(r.seen, []byte("\n\n")) {
		r.taken()
	}
	n, err := r.ReadCloser.Read(p)
	r.seen = append(r.seen, p[:n]...)
	return n, err
}

func TestServerErrorsNameTheAnswer(t *testing.T) {
	s := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "too full", http.StatusTooManyRequests) })
	if _, err := s.prefill(t.Context(), []int32{1}); err == nil || !strings.Contains(err.Error(), "429") || !strings.Contains(err.Error(), "too full") {
		t.Errorf("prefill = %v, want status and body", err)
	}
	if _, err := s.tokenize(t.Context(), "x", 1); err == nil {
		t.Error("tokenize took a 429 for an answer")
	}
}

func TestTokenizeCuts(t *testing.T) {
	s := fakeServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"tokens":[5,6,7]}`) })
	if got, err := s.tokenize(t.Context(), "x", 2); err != nil || fmt.Sprint(got) != "[5 6]" {
		t.Errorf("tokenize = %v, %v, want [5 6]", got, err)
	}
	if got, err := s.tokenize(t.Context(), "x", 4); err == nil {
		t.Errorf("tokenize = %v, want an error: there are only three", got)
	}
}

func TestFollowLog(t *testing.T) {
	const log = `{"level":"INFO","msg":"listening","addr":"127.0.0.1:4711"}
{"level":"INFO","msg":"model ready"}
{"level":"WARN","msg":"short of memory"}
panic: no JSON
`
	addr, rest := make(chan string, 1), &strings.Builder{}
	followLog(strings.NewReader(log), rest, addr)
	if got := <-addr; got != "127.0.0.1:4711" {
		t.Errorf("address %q", got)
	}
	want := "infer: {\"level\":\"WARN\",\"msg\":\"short of memory\"}\ninfer: panic: no JSON\n"
	if rest.String() != want {
		t.Errorf("passed on %q, want %q", rest, want)
	}
}

func TestStartServerSaysWhyItDidNotStart(t *testing.T) {
	if _, err := startServer(t.Context(), serverConfig{program: "/nonexistent/infer"}, t.Output()); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("startServer = %v, want the remedy", err)
	}
	if _, err := startServer(t.Context(), serverConfig{program: "false"}, t.Output()); err == nil || !strings.Contains(err.Error(), "before it listened") {
		t.Errorf("startServer = %v, want that it ended", err)
	}
}
