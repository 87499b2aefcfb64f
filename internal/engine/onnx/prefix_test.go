package onnx

import (
	"strings"
	"testing"
	"time"
)

// turn submits a prompt of a caller and returns its text and how many tokens
// came from the cache.
func turn(t *testing.T, s *scheduler, caller string, prompt []int32, limit int) (text string, reused int) {
	t.Helper()
	q := &sequence{ctx: t.Context(), caller: caller, prompt: prompt, maxTokens: limit, ends: []int32{eosToken},
		sampler: newSampler(sampling{topP: 1, logprobs: -1}, 0, nil), decoder: letters{}, out: newOutbox()}
	s.submit(q)
	for range q.out.ready {
		for _, p := range q.out.take(nil) {
			text, reused = text+p.text, reused+p.reused
			if p.err != nil {
				t.Fatal(p.err)
			}
			if p.finish != "" {
				return text, reused
			}
		}
	}
	return text, reused
}

func tokens(from, n int32) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = (from + int32(i)) % 20
	}
	return list
}

func TestAGrowingConversationIsNotComputedAgain(t *testing.T) {
	schedule(t, 2, func(t *testing.T, s *scheduler, m *fakeModel) {
		first := tokens(0, 100)
		text, reused := turn(t, s, "", first, 3)
		if reused != 0 || text != "uvw" { // the prompt ends with token 19
			t.Fatalf("first turn: %q, %d reused", text, reused)
		}
		began := time.Now()
		grown := append(append([]int32{}, first...), 20, 21, 5, 6, 7)
		if text, reused = turn(t, s, "", grown, 2); text != "ij" || reused != 102 {
			t.Errorf("second turn: %q, %d reused, want ij and 102", text, reused)
		}
		if d := time.Since(began); d > 20*time.Millisecond {
			t.Errorf("second turn took %v", d)
		}
		// The same prompt again: all but its last token.
		if _, reused = turn(t, s, "", grown, 1); reused != len(grown)-1 {
			t.Errorf("repeated prompt: %d reused, want %d", reused, len(grown)-1)
		}
	})
}

func TestNothingIsSharedBetweenCallers(t *testing.T) {
	schedule(t, 2, func(t *testing.T, s *scheduler, _ *fakeModel) {
		prompt := tokens(0, 100)
		turn(t, s, "ann", prompt, 1)
		if _, reused := turn(t, s, "bob", prompt, 1); reused != 0 {
			t.Errorf("bob reused %d of ann's tokens", reused)
		}
		if _, reused := turn(t, s, "ann", prompt, 1); reused != 99 {
			t.Errorf("ann reused %d of her own tokens, want 99", reused)
		}
	})
}

// TestABeginningIsCopiedFromABusySlot: two requests share a long system prompt
// while the first still runs, and each conversation keeps its own slot.
func TestABeginningIsCopiedFromABusySlot(t *testing.T) {
	schedule(t, 3, func(t *testing.T, s *scheduler, m *fakeModel) {
		busy := ask(t.Context(), s, 60, 3, 50)
		pass(150 * time.Millisecond)
		prompt := append(make([]int32, 59), 7, 8)
		if text, reused := turn(t, s, "", prompt, 2); text != "jk" || reused != 59 {
			t.Errorf("%q, %d reused, want jk and 59", text, reused)
		}
		if text, _, err := read(busy); len(text) != 21 || err != nil { // up to the EOS token
			t.Errorf("the busy sequence gave %q, %v", text, err)
		}
		if got := strings.Join(m.steps, " "); !strings.Contains(got, "c0>1:59") {
			t.Errorf("steps %s, want a copy", got)
		}
	})
}

// TestACacheThatCannotMove is the case of a device: a slot is continued, never
// copied, and idle rows between busy ones do no harm.
func TestACacheThatCannotMove(t *testing.T) {
	schedule(t, 3, func(t *testing.T, s *scheduler, m *fakeModel) {
		m.fixed = true
		a, b, c := ask(t.Context(), s, 40, 1, 3), ask(t.Context(), s, 40, 2, 4), ask(t.Context(), s, 40, 3, 20)
		for _, q := range []*sequence{a, b} {
			if _, _, err := read(q); err != nil {
				t.Error(err)
			}
		}
		pass(30 * time.Millisecond)
		again := append(append(make([]int32, 39), 1, 2, 3), 9)
		if text, reused := turn(t, s, "", again, 1); text != "k" || reused != 42 {
			t.Errorf("%q, %d reused, want k and 42", text, reused)
		}
		if text, _, err := read(c); text != "efghijklmnopqrstuvwx" || err != nil {
			t.Errorf("the sequence above idle rows gave %q, %v", text, err)
		}
	})
}
