package admission

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// work is what one simulated request asks of a slot.
type work struct {
	Request
	Tokens
	kept time.Duration
}

// perToken is the speed of a simulated slot.
const perToken = 10 * time.Millisecond

// mixed draws a request of which most are short and some long, with a service
// time of mean on average. The estimate knows only the prompt.
func mixed(rng *rand.Rand, mean time.Duration) work {
	kept := mean / 2
	if rng.IntN(10) == 0 {
		kept = mean * 11 / 2
	}
	kept = time.Duration(float64(kept) * (0.5 + rng.Float64()))
	n := int(kept / perToken)
	return work{Request{Prompt: 20, Answers: 1}, Tokens{Prompt: 20, Completion: n}, kept}
}

// do lets w through the gate and returns how long it waited.
func (w work) do(ctx context.Context, g *Gate) (time.Duration, error) {
	release, queued, err := g.Acquire(ctx, w.Request)
	if err == nil {
		<-time.After(w.kept)
		release(w.Tokens)
	}
	return queued, err
}

// median of durations.
func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// neighbours lets quiet work one request after the other, each after a think
// time, beside a caller that always has a hundred in the gate, and returns the
// median wait of the first and its mean service time.
func neighbours(t *testing.T, quiet, loud string, loudMean time.Duration) (wait, service time.Duration) {
	const mean, slots = time.Second, 4
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 200, MaxQueueBytes: 1 << 20, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: slots})
		ctx, stop := context.WithCancel(t.Context())
		var crowd sync.WaitGroup
		if loud != "" {
			for i := range 100 {
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				crowd.Go(func() {
					for ctx.Err() == nil {
						w := mixed(rng, loudMean)
						w.Caller = loud
						_, _ = w.do(ctx, g)
					}
				})
			}
		}
		rng := rand.New(rand.NewPCG(2, 2))
		var waits []time.Duration
		for range 200 {
			synctest.Sleep(time.Duration(rng.ExpFloat64() * float64(mean)))
			w := mixed(rng, mean)
			w.Caller = quiet
			queued, err := w.do(ctx, g)
			if err != nil {
				t.Fatal(err)
			}
			waits = append(waits, queued)
		}
		stop()
		crowd.Wait()
		wait, service = median(waits), max(mean, loudMean)
	})
	return wait, service
}

// One caller with a hundred times the load of another cannot raise the other's
// median wait by more than one service time. In the order of arrival, which is
// what one name for both means, it does.
func TestNoisyNeighbour(t *testing.T) {
	for name, loudMean := range map[string]time.Duration{"as long": time.Second, "ten times as long": 10 * time.Second, "shorter": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			alone, _ := neighbours(t, "quiet", "", loudMean)
			beside, service := neighbours(t, "quiet", "loud", loudMean)
			if raised := beside - alone; raised > service {
				t.Errorf("the median wait rose from %v to %v, by more than a service time of %v", alone, beside, service)
			}
			fifo, _ := neighbours(t, "one", "one", loudMean)
			if raised := fifo - alone; raised <= service {
				t.Errorf("in the order of arrival it rose from %v to %v only: this test shows nothing", alone, fifo)
			}
			t.Logf("median wait alone %v, beside the neighbour %v, in the order of arrival %v", alone, beside, fifo)
		})
	}
}

// shares lets callers with twenty requests each in the gate work for a while
// and returns what each was served for a cost of one of the first.
func shares(t *testing.T, callers ...work) []float64 {
	served := make([]float64, len(callers))
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 200, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: 4})
		var all sync.WaitGroup
		end := time.Now().Add(20 * time.Minute)
		var mu sync.Mutex
		for i, w := range callers {
			w.Caller = string(rune('a' + i))
			for range 20 {
				all.Go(func() {
					for {
						if _, err := w.do(t.Context(), g); err != nil {
							t.Error(err)
							return
						}
						if time.Now().After(end) {
							return
						}
						mu.Lock()
						served[i] += w.cost() / w.weight()
						mu.Unlock()
					}
				})
			}
		}
		all.Wait()
	})
	first := served[0]
	for i := range served {
		served[i] /= first
	}
	return served
}

// Callers share by tokens and weight, however their requests look and whatever
// was estimated of them.
func TestShares(t *testing.T) {
	short := work{Request{Prompt: 100, Answers: 1}, Tokens{Prompt: 100, Completion: 50}, time.Second}
	long := work{Request{Prompt: 1000, Answers: 1}, Tokens{Prompt: 1000, Completion: 900}, 15 * time.Second}
	cached := work{Request{Prompt: 5000, Answers: 1}, Tokens{Prompt: 5000, Cached: 4900, Completion: 50}, time.Second}
	liar := short
	liar.Request = Request{Prompt: 1, Answers: 1, MaxTokens: 1}
	triple := short
	triple.Weight = 3
	for i, got := range shares(t, short, long, cached, liar, triple) {
		if got < 0.9 || got > 1.1 {
			t.Errorf("caller %d was served %.2f of what the first was", i, got)
		}
	}
}

// A caller that was away has no credit, and one that took much in a quiet hour
// has no debt; but who comes back at once after a large request has.
func TestNoCreditForIdling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 99, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: 1})
		big := Tokens{Prompt: 10000}
		for range 10 { // a works alone
			ask(t.Context(), g, from("a")).end(big)
		}
		now := ask(t.Context(), g, from("x"))
		var order []string
		wait := func(name string) *caller {
			c := ask(t.Context(), g, from(name))
			c.wantWaiting(t)
			return c
		}
		waiting := map[string][]*caller{"a": {wait("a"), wait("a"), wait("a")}, "b": {wait("b"), wait("b"), wait("b")}}
		for range 6 {
			now.end(Tokens{Prompt: 100})
			for _, name := range []string{"a", "b"} {
				if w := waiting[name]; len(w) > 0 && w[0].done() {
					order, now, waiting[name] = append(order, name), w[0], w[1:]
					break
				}
			}
		}
		// a is one large request ahead of b, which is the debt of its last.
		if got, want := len(order), 6; got != want {
			t.Fatalf("%v were served", order)
		}
		if !slices.Equal(order, []string{"b", "b", "b", "a", "a", "a"}) {
			t.Errorf("order %v", order)
		}
		now.end(Tokens{})
		if n := len(g.lanes[Interactive].flows); n > 2 {
			t.Errorf("%d callers are remembered", n)
		}
	})
}

// What is remembered of callers that are gone is bounded.
func TestDebtsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 9, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: 1})
		for i := range 3 * maxDebts {
			release, _, err := g.Acquire(t.Context(), from(strconv.Itoa(i)))
			if err != nil {
				t.Fatal(err)
			}
			release(Tokens{Prompt: 1000 - i%1000})
		}
		if n := len(g.lanes[Interactive].flows); n > maxDebts+1 {
			t.Errorf("%d callers are remembered, want at most %d", n, maxDebts)
		}
	})
}

// However wrong the estimates of a crowd were, a caller that has nothing yet
// gets the next slot that comes free.
func TestNewcomerIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, served := range map[string]int{"less than estimated": 10, "as estimated": 1000, "more": 100000} {
			g := New(Config{MaxQueue: 99, Hold: time.Minute})
			g.SetCapacity(Capacity{Slots: 8})
			var crowd []*caller
			for range 40 {
				crowd = append(crowd, ask(t.Context(), g, Request{Caller: "crowd", Prompt: 1000}))
			}
			for i := range 20 {
				crowd[i].end(Tokens{Prompt: served})
			}
			c := ask(t.Context(), g, from("new"))
			c.wantWaiting(t)
			if crowd[20].end(Tokens{Prompt: served}); !c.done() {
				t.Errorf("%s: the crowd went on", name)
			}
		}
	})
}

// A slot that was granted at the moment in which its caller left costs nothing.
func TestLeavingIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 99, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: 1})
		for range 100 {
			first := ask(t.Context(), g, from("other"))
			ctx, cancel := context.WithCancel(t.Context())
			c := ask(ctx, g, Request{Caller: "leaver", Prompt: 1000})
			cancel() // it notices only after it got the slot
			first.release(Tokens{})
			synctest.Wait()
			c.wantErr(t, context.Canceled)
		}
		wantStats(t, g, Stats{Capacity: 1})
		if l := g.lanes[Interactive]; l.now > 500 {
			t.Errorf("the counter stands at %v", l.now)
		}
	})
}

// Corrections that came while nobody could be let in do not put a newcomer
// behind those whom they favoured.
func TestNewcomerAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 99, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: 8})
		var crowd []*caller
		for range 40 {
			crowd = append(crowd, ask(t.Context(), g, Request{Caller: "crowd", Prompt: 1000}))
		}
		g.SetCapacity(Capacity{})
		for i := range 7 {
			crowd[i].end(Tokens{Prompt: 10})
		}
		c := ask(t.Context(), g, from("new"))
		c.wantWaiting(t)
		g.SetCapacity(Capacity{Slots: 2}) // the crowd still has one
		synctest.Wait()
		c.wantRunning(t, 0)
	})
}

// The answers that are expected are those of late.
func TestAnswersAreLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 1})
		g.SetCapacity(Capacity{Slots: 1})
		for _, n := range []int{10, 300, 20} {
			for range 2000 {
				release, _, err := g.Acquire(t.Context(), Request{Answers: 2})
				if err != nil {
					t.Fatal(err)
				}
				release(Tokens{Completion: 2 * n})
			}
			ask(t.Context(), g, Request{}).end(Tokens{}) // no answer is no short one
			if got := g.pace.answer(); got < float64(n)*0.99 || got > float64(n)*1.01 {
				t.Errorf("after answers of %d tokens, %v are expected", n, got)
			}
		}
	})
}
