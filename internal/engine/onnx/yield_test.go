package onnx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// of submits a prompt of one class whose tokens no other prompt may reuse.
func of(batch bool, s *scheduler, n int, last int32, limit int) *sequence {
	q := newSequence(context.Background(), n, last, limit)
	q.batch, q.caller = batch, fmt.Sprintf("%p", q)
	s.submit(q)
	return q
}

// alphabet is what follows a token.
func alphabet(after, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteByte(byte('a' + (after+1+i)%26))
	}
	return b.String()
}

// wants reads q, which must have generated n tokens after the last one.
func wants(t *testing.T, q *sequence, last, n int) {
	t.Helper()
	text, finish, err := read(q)
	if want := alphabet(last, n); text != want || finish != finishLength || err != nil {
		t.Errorf("read = %q %q %v, want %q", text, finish, err, want)
	}
}

// A prompt that somebody waits for is prefilled at once and alone, whatever
// batch work is in the middle of: a decode step, a long prompt, or every slot.
func TestBatchWorkGivesWay(t *testing.T) {
	for name, lines := range map[string]struct {
		prompt, limit int
		probs         bool
	}{"decoding": {5, 18, false}, "prefilling": {3000, 3, false}, "told in part": {90, 3, true}} {
		t.Run(name, func(t *testing.T) {
			schedule(t, 3, func(t *testing.T, s *scheduler, _ *fakeModel) {
				var batch []*sequence
				for i := range int32(4) {
					q := newSequence(t.Context(), lines.prompt, i, lines.limit)
					q.batch, q.caller, q.promptProbs = true, fmt.Sprint(i), lines.probs
					batch = append(batch, q)
					s.submit(q)
				}
				pass(73 * time.Millisecond)
				for i := range int32(4) {
					began := time.Now()
					q := of(false, s, 20, i, 2)
					<-q.out.ready // its prefill begins
					<-q.out.ready
					if d := time.Since(began); d != 20*time.Millisecond {
						t.Errorf("the first token came after %v, want 20 ms", d)
					}
					wants(t, q, int(i), 2)
					pass(13 * time.Millisecond)
				}
				for i, q := range batch {
					wants(t, q, i, lines.limit)
				}
			})
		})
	}
}

// Work that somebody waits for never waits for the slot of batch work, and
// comes first in the queue; what was parked goes on where it stood, and is
// counted once.
func TestBatchWorkIsParked(t *testing.T) {
	schedule(t, 2, func(t *testing.T, s *scheduler, _ *fakeModel) {
		a, b := of(true, s, 5, 0, 20), of(true, s, 9, 3, 20)
		c := of(true, s, 5, 5, 6)
		pass(80 * time.Millisecond)
		var waited []*sequence
		for i := range int32(3) {
			waited = append(waited, of(false, s, 4, 6+i, 10))
		}
		began := time.Now()
		for i, q := range waited {
			wants(t, q, 6+i, 10)
		}
		if d := time.Since(began); d > 250*time.Millisecond {
			t.Errorf("three requests over two slots took %v", d)
		}
		for _, tc := range []struct {
			q       *sequence
			last, n int
		}{{a, 0, 20}, {b, 3, 20}, {c, 5, 6}} {
			text, admitted := "", 0
			for finish := ""; finish == ""; {
				<-tc.q.out.ready
				for _, p := range tc.q.out.take(nil) {
					text, finish = text+p.text, p.finish
					if p.admitted {
						admitted++
					}
				}
			}
			if want := alphabet(tc.last, tc.n); text != want || admitted != 1 {
				t.Errorf("read = %q, admitted %d times, want %q once", text, admitted, want)
			}
		}
	})
}

// The probabilities of a prompt are told once, though its work was parked in the
// middle, and what was told is computed again in chunks.
func TestPromptIsToldOnce(t *testing.T) {
	schedule(t, 1, func(t *testing.T, s *scheduler, _ *fakeModel) {
		q := newSequence(t.Context(), 900, 0, 1)
		q.batch, q.promptProbs = true, true
		s.submit(q)
		pass(700 * time.Millisecond)
		wants(t, of(false, s, 5, 0, 1), 0, 1)
		list, _, err := told(q)
		if n := len(list) - 1; err != nil || n != 899 {
			t.Errorf("%d tokens of the prompt were told, %v, want 899", n, err)
			return
		}
		for i, p := range list[:899] {
			if !p.prompt || p.prob.id != q.prompt[i+1] {
				t.Errorf("piece %d is %+v, want the prompt's next token", i, p)
			}
		}
	})
}

// Work that is parked ends with the engine, and with its own context.
func TestParkedWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(newFakeModel(t, 1), 1, 10_000, 26, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.loop(ctx) }()
		own, leave := context.WithCancel(t.Context())
		left := newSequence(own, 5, 0, 20)
		left.batch = true
		s.submit(left)
		pass(40 * time.Millisecond)
		wants(t, of(false, s, 5, 0, 3), 0, 3)
		stays := of(false, s, 5, 0, 20)
		parked := of(true, s, 5, 0, 20)
		pass(40 * time.Millisecond)
		leave()
		left.out.take(nil)
		wants(t, stays, 0, 20)
		pass(40 * time.Millisecond)
		stays = of(false, s, 5, 0, 20)
		pass(40 * time.Millisecond)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("loop() = %v", err)
		}
		for _, q := range []*sequence{stays, parked} {
			if _, _, err := read(q); !errors.Is(err, errStopped) {
				t.Errorf("read = %v, want errStopped", err)
			}
		}
		if n := len(left.out.take(nil)); n > 0 {
			t.Errorf("%d pieces came for one that had left", n)
		}
	})
}

// Everything that runs comes to its end with the right text, however the two
// classes meet.
func TestClassesMeet(t *testing.T) {
	for seed := range 20 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			schedule(t, 3, func(t *testing.T, s *scheduler, _ *fakeModel) {
				x := uint32(seed*7919 + 1)
				next := func(n uint32) int { x = x*1664525 + 1013904223; return int((x >> 8) % n) }
				var all []*sequence
				var want []string
				for range 60 {
					n, last, limit := 1+next(200), int32(next(24)), 1
					limit += next(uint32(24 - last))
					q := newSequence(t.Context(), n, last, limit) // half of them begin alike
					q.batch, q.caller = next(2) == 0, fmt.Sprint(next(2)*len(all))
					all = append(all, q)
					s.submit(q)
					want = append(want, alphabet(int(last), limit))
					pass(time.Duration(next(150)) * time.Millisecond)
				}
				for i, q := range all {
					if text, _, err := read(q); text != want[i] || err != nil {
						t.Errorf("sequence %d = %q, %v, want %q", i, text, err, want[i])
					}
				}
			})
		})
	}
}

// Batch work gets on in the time that nobody else needs, however often it is
// broken off or parked meanwhile.
func TestBatchWorkGetsOn(t *testing.T) {
	for name, tc := range map[string]struct {
		slots          int
		prompt, limit  int
		every, patient time.Duration
	}{
		"between runs, in prefill": {2, 2000, 2, 60 * time.Millisecond, 20 * time.Second},
		"between runs, in decode":  {2, 5, 20, 9 * time.Millisecond, 3 * time.Second},
		"in the only slot":         {1, 2000, 20, 1500 * time.Millisecond, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			schedule(t, tc.slots, func(t *testing.T, s *scheduler, _ *fakeModel) {
				line := of(true, s, tc.prompt, 0, tc.limit)
				ended := make(chan struct{})
				go func() { defer close(ended); wants(t, line, 0, tc.limit) }()
				began := time.Now()
				for {
					select {
					case <-ended:
						return
					case <-time.After(tc.every):
					}
					if time.Since(began) > tc.patient {
						t.Errorf("batch work has not ended after %v", tc.patient)
						return
					}
					wants(t, of(false, s, 2, 0, 1), 0, 1)
				}
			})
		})
	}
}
