package admission

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// storm is a thousand clients that ask at once of a gate that is full.
type storm struct {
	slots, queue int
	mean         time.Duration
	over         time.Duration // in which they come
	seconds      bool          // clients read whole seconds, rounded up, and not milliseconds
}

const clients = 1000

// play lets every client come back after what retry says until it is served.
// It returns how often those who were refused came back, in the mean, and how
// long all took.
func (s storm) play(t *testing.T, retry func(g *Gate) time.Duration) (returns float64, took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: s.queue, MaxQueueBytes: 1 << 20, Hold: time.Minute})
		g.SetCapacity(Capacity{Slots: s.slots})
		busy := s.warm(t, g)
		var mu sync.Mutex
		var all sync.WaitGroup
		refused, again := 0, 0
		began := time.Now()
		for i := range clients {
			rng := rand.New(rand.NewPCG(3, uint64(i)))
			w := mixed(rng, s.mean)
			all.Go(func() {
				<-time.After(time.Duration(rng.Float64() * float64(max(s.over, time.Second))))
				tries := 0
				for {
					_, err := w.do(t.Context(), g)
					if err == nil {
						break
					}
					if !errors.Is(err, ErrQueueFull) {
						t.Error(err)
						return
					}
					tries++
					wait := retry(g)
					if s.seconds {
						wait = time.Duration(math.Ceil(wait.Seconds())) * time.Second
					}
					<-time.After(wait)
				}
				mu.Lock()
				defer mu.Unlock()
				again += tries
				refused += min(tries, 1)
			})
		}
		all.Wait()
		took = time.Since(began)
		busy.Wait()
		if s.queue < clients && refused < clients/4 {
			t.Errorf("%d of %d were refused: this is no storm", refused, clients)
		}
		returns = float64(again) / float64(max(refused, 1))
	})
	return returns, took
}

// warm keeps every slot busy for a while, so that the gate has measured when
// the storm comes.
func (s storm) warm(t *testing.T, g *Gate) *sync.WaitGroup {
	var all sync.WaitGroup
	end := time.Now().Add(30 * s.mean)
	for i := range s.slots {
		rng := rand.New(rand.NewPCG(4, uint64(i)))
		all.Go(func() {
			for time.Now().Before(end) {
				if _, err := mixed(rng, s.mean).do(t.Context(), g); err != nil {
					t.Error(err)
				}
			}
		})
	}
	synctest.Sleep(time.Until(end))
	return &all
}

// A thousand refused clients that obey Retry-After come back fewer than 1.5
// times each, and the engine does not idle for it. With the mean wait of the
// moment for everybody, or with a constant, they come back far more often.
func TestRetryAfterSpreads(t *testing.T) {
	booked := func(g *Gate) time.Duration { return g.RetryAfter(0) }
	constant := func(*Gate) time.Duration { return 5 * time.Second }
	for name, s := range map[string]storm{
		"small":              {slots: 8, queue: 32, mean: 500 * time.Millisecond},
		"whole seconds":      {slots: 8, queue: 32, mean: 500 * time.Millisecond, seconds: true},
		"large":              {slots: 64, queue: 256, mean: 5 * time.Second},
		"without a queue":    {slots: 32, queue: 0, mean: 2 * time.Second},
		"over half the time": {slots: 8, queue: 32, mean: 500 * time.Millisecond, over: 31 * time.Second},
		"a short queue":      {slots: 4, queue: 8, mean: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			returns, took := s.play(t, booked)
			all := s
			all.queue = clients
			_, ideal := all.play(t, booked)
			longer := took.Seconds() / ideal.Seconds()
			if returns >= 1.5 {
				t.Errorf("refused clients came back %.2f times each", returns)
			}
			if longer > 1.35 {
				t.Errorf("all took %.2f times as long as with a queue for all", longer)
			}
			worse, _ := s.play(t, constant)
			if worse < 1.5 {
				t.Errorf("with a constant they came back %.2f times each: this test shows nothing", worse)
			}
			t.Logf("came back %.2f times each, took %.2f of the time with a queue for all; with a constant %.2f times", returns, longer, worse)
		})
	}
}

// Every refusal books the next time at which a place comes free.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{MaxQueue: 16, Hold: time.Hour})
		want := func(from time.Duration, want ...time.Duration) {
			t.Helper()
			for _, want := range want {
				if got := g.RetryAfter(from); got.Round(time.Millisecond) != want {
					t.Errorf("RetryAfter(%v) = %v, want %v", from, got, want)
				}
			}
		}
		const ms = time.Millisecond
		want(0, 1000*ms, 2050*ms) // nothing is measured, so that each takes 1 s
		synctest.Sleep(time.Minute)
		g.SetCapacity(Capacity{ReadyAt: time.Now().Add(40 * time.Second)})
		want(0, 40000*ms)
		want(50*time.Second, 50000*ms)
		g.SetCapacity(Capacity{Slots: 2})
		a, b := call(t.Context(), g), call(t.Context(), g)
		synctest.Sleep(8 * time.Second)
		want(0, 12000*ms) // those who run take 8 s at least
		a.release(Tokens{})
		b.release(Tokens{}) // without work nothing is booked
		call(t.Context(), g)
		want(0, 1000*ms) // a slot is free
		call(t.Context(), g)
		want(0, 12000*ms, 16200*ms) // with none free 8 s ÷ 2 slots for 2 of 16 places and one more; then 5 % slower
		synctest.Sleep(10 * time.Second)
		want(0, 12000*ms) // the next is booked for 10.4 s
		want(60*time.Second, 60000*ms)
		for range 30 {
			g.RetryAfter(0)
		}
		var last time.Duration
		for range 100 {
			got := g.RetryAfter(0)
			if got < 90*time.Second || got > 120*time.Second || got == last {
				t.Fatalf("RetryAfter() = %v after %v, want other times up to two minutes", got, last)
			}
			last = got
		}
	})
}

// A second is the least, however fast the engine is.
func TestRetryAfterFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1000)
		for range 100 {
			c := call(t.Context(), g)
			synctest.Sleep(time.Millisecond)
			c.release(Tokens{})
		}
		call(t.Context(), g)
		for range 100 {
			if got := g.RetryAfter(0); got < time.Second || got > time.Second+time.Millisecond {
				t.Fatalf("RetryAfter() = %v", got)
			}
		}
	})
}
