package onnx

import (
	"context"
	"errors"
	"math"
	"testing"
)

// disturbed is a real model on which somebody comes in every sixth decode step
// of batch rows alone.
type disturbed struct {
	*model
	s      *scheduler
	others []*sequence // who come
	steps  int         // of batch rows alone
	broken int         // runs that were broken off
	begun  int         // prompts that were computed from their first token on
}

func (d *disturbed) prefill(ctx context.Context, slot int, tokens []int32, pos int) ([]float32, error) {
	if pos == 0 {
		d.begun++
	}
	logits, err := d.model.prefill(ctx, slot, tokens, pos)
	d.see(err)
	return logits, err
}

func (d *disturbed) decode(ctx context.Context, tokens []int32, lengths []int) ([][]float32, error) {
	come := make(chan struct{})
	go func() {
		defer close(come)
		d.s.mu.Lock()
		alone := d.s.interrupt != nil
		d.s.mu.Unlock()
		if !alone {
			return
		}
		if d.steps++; d.steps%6 == 0 && d.steps/6 <= len(d.others) {
			d.s.submit(d.others[d.steps/6-1])
		}
	}()
	logits, err := d.model.decode(ctx, tokens, lengths)
	<-come
	d.see(err)
	return logits, err
}

func (d *disturbed) see(err error) {
	if errors.Is(err, errYield) {
		d.broken++
	}
}

// TestGivingWayChangesNoText lets a greedy answer of batch work be broken off
// and, in one slot, parked again and again. It must be what it is alone. What
// is computed again differs by rounding, so this runs at fp32 compute, and the
// second best token must always be further away than that.
func TestGivingWayChangesNoText(t *testing.T) {
	const limit, others, tolerance = 30, 4, 1e-3
	m, tok := realModel(t, 0, 2)
	sequenceOf := func(text string, batch bool, limit int) *sequence {
		return &sequence{ctx: t.Context(), prompt: tok.Encode(text), batch: batch, maxTokens: limit, decoder: tok.NewDecoder(true),
			sampler: newSampler(sampling{topP: 1, logprobs: 2}, 0, nil), out: newOutbox()}
	}
	answer := func(slots, n int) ([]piece, *disturbed) {
		d := &disturbed{model: m}
		for i := range n {
			d.others = append(d.others, sequenceOf(prompts[1+i%3], false, 2))
		}
		d.s = newScheduler(d, slots, m.context, tok.VocabSize(), quiet)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.s.loop(ctx) }()
		q := sequenceOf(prompts[0], true, limit)
		d.s.submit(q)
		list, _, err := told(q)
		for _, other := range d.others {
			if err == nil {
				_, _, err = told(other)
			}
		}
		cancel()
		if err = errors.Join(err, <-ended); err != nil {
			t.Fatal(err)
		}
		return list, d
	}
	alone, _ := answer(1, 0)
	for _, p := range alone {
		if gap := p.prob.top[0].logprob - p.prob.top[1].logprob; gap < 2*tolerance {
			t.Fatalf("two tokens are only %g apart: choose another prompt", gap)
		}
	}
	for slots := 1; slots <= 2; slots++ {
		list, d := answer(slots, others)
		text, want, worst := "", "", 0.0
		for i, p := range list {
			text, want = text+p.text, want+alone[i].text
			worst = max(worst, math.Abs(p.prob.logprob-alone[i].prob.logprob))
		}
		if len(list) != limit || text != want || worst > tolerance {
			t.Errorf("%d slots: %d tokens, %q, want %q; log-probabilities differ by %g", slots, len(list), text, want, worst)
		}
		if slots == 1 && d.begun < 1+2*others {
			t.Errorf("%d prompts were begun: batch work was not parked each time", d.begun)
		}
		t.Logf("%d slots: %d runs were broken off, %d prompts begun, log-probabilities differ by %g", slots, d.broken, d.begun, worst)
	}
}
