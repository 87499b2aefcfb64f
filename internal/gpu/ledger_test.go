package gpu

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

func (l *Ledger) total() cost {
	var sum cost
	for _, c := range l.totals {
		sum = sum.plus(c)
	}
	return sum
}

func TestLedgerSharesByTokens(t *testing.T) {
	l := newLedger()
	l.settle(1, 100) // before anybody asked
	a, b := l.Begin("alice", "m"), l.Begin("bob", "m")
	l.settle(2, 200) // both read their prompts
	a.Tokens(30)
	b.Tokens(10)
	b.End()
	if seconds, _ := b.Cost(); !near(seconds, 0.5) {
		t.Errorf("bob was told %v GPU-seconds, want the 0.5 of before: nothing tells the price of a token yet", seconds)
	}
	l.settle(6, 600)
	a.Tokens(1)
	if seconds, joules := a.Cost(); !near(seconds, 3.5+0.1) || !near(joules, 350+10) {
		t.Errorf("alice was told %v GPU-seconds and %v J; want 3.6 and 360, the last token at the price of the others", seconds, joules)
	}
	a.End()
	a.End()
	l.settle(7, 700)
	l.settle(8, 800) // nobody is there
	for p, want := range map[payer]cost{{}: {2, 200}, {"alice", "m"}: {4.5, 450}, {"bob", "m"}: {1.5, 150}} {
		if got := l.totals[p]; !near(got.seconds, want.seconds) || !near(got.joules, want.joules) {
			t.Errorf("%v has %v, want %v", p, got, want)
		}
	}
}

// Whoever comes and goes, all that the GPUs used is somebody's, or nobody's.
func TestLedgerLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger()
		var open []*Bill
		var used cost
		for range rapid.IntRange(1, 80).Draw(t, "events") {
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0:
				open = append(open, l.Begin(rapid.SampledFrom([]string{"a", "b", "anonymous"}).Draw(t, "key"), "m"))
			case 1:
				if len(open) > 0 {
					open[0].End()
					open = open[1:]
				}
			case 2:
				for _, b := range open {
					b.Tokens(rapid.IntRange(0, 50).Draw(t, "tokens"))
				}
			case 3:
				used = used.plus(cost{rapid.Float64Range(0, 2).Draw(t, "seconds"), rapid.Float64Range(0, 900).Draw(t, "joules")})
				l.settle(used.seconds, used.joules)
			}
		}
		got := l.total()
		if math.Abs(got.seconds-used.seconds) > 0.02*used.seconds || math.Abs(got.joules-used.joules) > 0.02*used.joules {
			t.Fatalf("shared %v of %v", got, used)
		}
		if n := len(l.over); n > 3 {
			t.Fatalf("%d entries of ended requests are kept", n)
		}
	})
}

// A scrape that nobody reads on keeps no request waiting.
func TestSlowScrapeHoldsUpNoBill(t *testing.T) {
	l := newLedger()
	l.Begin("a", "m")
	l.settle(1, 2)
	ch, left := make(chan prometheus.Metric), make(chan struct{})
	go func() { defer close(left); l.collect(ch) }()
	<-ch // it is in the middle, and the next is not taken
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := l.Begin("b", "m")
		b.Tokens(1)
		b.Cost()
		b.End()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Error("the bill waits for the scrape")
	}
	go func() { <-left; close(ch) }()
	for range ch {
	}
	<-done
}
