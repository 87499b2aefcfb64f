package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	got := []fate{{first: time.Second, total: 2 * time.Second}, {first: 2 * time.Second, total: 5 * time.Second}, {refused: true}}
	good, refused, first := tally(got, 4*time.Second)
	if good != 1 || refused != 1 || fmt.Sprint(first) != "[1 2]" {
		t.Errorf("tally = %v good, %v refused, %v", good, refused, first)
	}
}

// Refusals are counted; what is neither an answer nor a refusal is a fault.
func TestFlood(t *testing.T) {
	var n atomic.Int32
	status := http.StatusTooManyRequests
	s := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 {
			w.WriteHeader(status)
			return
		}
		if r.Header.Get("X-Request-Timeout") != "1.500" {
			t.Errorf("X-Request-Timeout %q", r.Header.Get("X-Request-Timeout"))
		}
		fakeMix(w, r)
	})
	prompts := [][]int32{{1}, {2}, {3}, {4}}
	got, err := s.flood(t.Context(), prompts, time.Millisecond, 1500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if _, refused, first := tally(got, time.Minute); refused != 2 || len(first) != 2 || first[0] <= 0 {
		t.Errorf("%v refused, first tokens %v", refused, first)
	}
	status = http.StatusInternalServerError
	if _, err := s.flood(t.Context(), prompts, time.Millisecond, 1500*time.Millisecond); err == nil {
		t.Error("a fault of the server was passed over")
	}
}
