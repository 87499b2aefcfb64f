package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// fakeMix answers a request of limit tokens with as many, and hangs up on those
// whose prompt begins with -1.
func fakeMix(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Prompt []int32 `json:"prompt"`
		Limit  int     `json:"max_tokens"`
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || ask.Prompt[0] < 0 {
		http.Error(w, "no luck", http.StatusTooManyRequests)
		return
	}
	for range ask.Limit {
		if r.Context().Err() != nil {
			return
		}
		_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"text\":\"x\"}]}\n\n")
		_ = http.NewResponseController(w).Flush()
		burn()
	}
	_, _ = fmt.Fprintf(w, "data: [DONE]\n\n")
}

func TestServerMix(t *testing.T) {
	s := fakeServer(t, fakeMix)
	m := mix{Streams: [][]int32{{1}, {2}}, Long: []int32{3}, Shorts: [][]int32{{4}, {5}, {6}}, Answer: 4, Every: 10 * time.Millisecond}
	got, all, err := s.mix(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.TTFT) != 3 || len(got.ITL) == 0 || got.Long <= 0 || all.CPU <= 0 || all.Wall < 3*m.Every {
		t.Errorf("times %v of %+v: want three TTFT, gaps, a long TTFT and at least %v", got, all, 3*m.Every)
	}
}

func TestServerMixPassesFaultsOn(t *testing.T) {
	m := mix{Streams: [][]int32{{1}}, Long: []int32{3}, Shorts: [][]int32{{4}}, Answer: 1, Every: time.Millisecond}
	for name, spoil := range map[string]func(*mix){
		"stream": func(m *mix) { m.Streams = [][]int32{{-1}} },
		"long":   func(m *mix) { m.Long = []int32{-1} },
		"short":  func(m *mix) { m.Shorts = [][]int32{{-1}} },
	} {
		broken := m
		spoil(&broken)
		if _, _, err := fakeServer(t, fakeMix).mix(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "429") {
			t.Errorf("%s: mix = %v, want the server's answer", name, err)
		}
	}
}

// TestServerMixWantsLongStreams has streams that end before the others: the
// rest of the scenario would be measured with fewer.
func TestServerMixWantsLongStreams(t *testing.T) {
	s := fakeServer(t, stream(3, false))
	m := mix{Streams: [][]int32{{1}}, Long: []int32{3}, Shorts: [][]int32{{4}}, Answer: 1, Every: time.Minute}
	if _, _, err := s.mix(t.Context(), m); !errors.Is(err, errUnfit) {
		t.Errorf("mix = %v, want errUnfit", err)
	}
}

func TestWatchCountsGapsOnceAllDecode(t *testing.T) {
	w := &watch{streams: 2, ready: make(chan struct{})}
	first := w.token(time.Time{})
	first = w.token(first)
	if n := len(w.times().ITL); n != 0 {
		t.Errorf("%d gaps while a stream waits, want none", n)
	}
	w.token(time.Time{})
	w.token(first)
	if n := len(w.times().ITL); n != 1 {
		t.Errorf("%d gaps, want 1", n)
	}
}

func TestPipedMix(t *testing.T) {
	p := startFake(t)
	if _, err := p.order(order{Op: "decode"}); err != nil { // some CPU time, else there is nothing to measure
		t.Fatal(err)
	}
	r, err := p.order(order{Op: "mix", Mix: &mix{}})
	if err != nil || r.Mix == nil || len(r.Mix.ITL) != 1 {
		t.Errorf("mix = %+v, %v, want the child's times", r, err)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}
