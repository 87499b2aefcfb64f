package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// serving runs h on a socket until the test ends.
func serving(t *testing.T, h http.Handler) string {
	t.Helper()
	address := "unix:" + filepath.Join(t.TempDir(), "s")
	ln, err := listen(address)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve() = %v", err)
		}
	})
	return address
}

// reach asks for one stream through an address.
func reach(t *testing.T, address string, tokens int) (time.Duration, error) {
	t.Helper()
	c, err := connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	return c.stream(paced(tokens, time.Millisecond), tokens)
}

func TestArmsPassEveryToken(t *testing.T) {
	up := serving(t, upstream())
	proxy, err := reverse(up)
	if err != nil {
		t.Fatal(err)
	}
	copied := "unix:" + filepath.Join(t.TempDir(), "copy")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- runCopy(ctx, []string{copied, up}) }()
	if err := until(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"direct": up, "copy": copied, "proxy": serving(t, proxy)} {
		if ttft, err := reach(t, address, 30); err != nil || ttft <= 0 {
			t.Errorf("%s: TTFT %v, %v", name, ttft, err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("runCopy() = %v", err)
	}
}

// A benchmark that does not see lost tokens measures nothing.
func TestLostTokensAreSeen(t *testing.T) {
	events := strings.Repeat(`data: {"choices":[{}]}`+"\n\n", 5)
	for body, want := range map[string]string{
		events + "data: [DONE]\n\n": "",
		events:                      "after 5 of 5 tokens, terminator false",
		events[len(events)/5:] + "data: [DONE]\n\n":                 "after 4 of 5 tokens, terminator true",
		events + events[:len(events)/5] + "data: [DONE]\n\n":        "after 6 of 5 tokens, terminator true",
		events + "data: {\"error\":{}}\n\ndata: {\"error\":{}}\n\n": "terminator false",
	} {
		address := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, body)
		}))
		_, err := reach(t, address, 5)
		if got := ""; err != nil {
			if got = err.Error(); want == "" || !strings.Contains(got, want) {
				t.Errorf("%q: %v, want %q", body, err, want)
			}
		} else if want != "" {
			t.Errorf("%q: not seen", body)
		}
	}
	address := serving(t, http.NotFoundHandler())
	if _, err := reach(t, address, 5); err == nil {
		t.Error("a 404 is taken for a stream")
	}
}

func TestParse(t *testing.T) {
	p, err := parse([]string{"-streams", "1,2", "-open", "", "-arms", "copy"}, io.Discard)
	if err != nil || !slices.Equal(p.streams, []int{1, 2}) || len(p.open) != 0 || !slices.Equal(p.arms, []string{"copy"}) {
		t.Errorf("parse() = %+v, %v", p, err)
	}
	if _, err := parse([]string{"-streams", "x", "-open", "0"}, io.Discard); err == nil || strings.Count(err.Error(), "list of numbers") != 2 {
		t.Errorf("parse() = %v, want both faults", err)
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	b := &bench{plan: &plan{arms: []string{"copy", "infer", "infer-tcp"}, out: &out}, numbers: map[string]map[string][]float64{}}
	for _, v := range []float64{10, 40, 20} {
		b.note("copy", "CPU", v)
		b.note("infer", "CPU", v*1.5)
	}
	b.note("infer-tcp", "CPU", 7)
	b.report()
	want := "\nCPU\n  copy           20.00   1.00 × the copy   of 10.00 40.00 20.00\n  infer          30.00   1.50 × the copy   of 15.00 60.00 30.00\n  infer-tcp       7.00   of 7.00\n"
	if out.String() != want {
		t.Errorf("report\n got %q\nwant %q", out.String(), want)
	}
}

func TestProcess(t *testing.T) {
	p, err := start(t.TempDir(), "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	deadline := time.Now().Add(20 * time.Second)
	for {
		cpu, err := p.cpu()
		if err != nil {
			t.Fatal(err)
		}
		if cpu > 10*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("cpu() = %v of a process that works", cpu)
		}
		<-time.After(10 * time.Millisecond)
	}
	if n, err := p.anonymous(); err != nil || n < 4<<10 {
		t.Errorf("anonymous() = %d, %v", n, err)
	}
}
