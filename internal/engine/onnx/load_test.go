package onnx

import (
	"context"
	"testing"

	"infer/internal/engine"
)

// BenchmarkLoad is the time from New to Ready with an imported model.
func BenchmarkLoad(b *testing.B) {
	cfg := realConfig(b)
	for b.Loop() {
		e, err := New(cfg, quiet)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		until(b, e, engine.Ready)
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSampleBatch draws one token for each of 32 sequences from 150,000
// logits, as one decode step of a large model does.
func BenchmarkSampleBatch(b *testing.B) {
	const rows, vocab = 32, 150_000
	s := newScheduler(nil, rows, 1<<20, vocab, quiet)
	slots, logits := make([]int, rows), make([][]float32, rows)
	rnd := newSampler(sampling{seed: 1}, 0, nil).rnd
	for i := range rows {
		slots[i], logits[i] = i, make([]float32, vocab)
		for j := range logits[i] {
			logits[i][j] = float32(rnd.NormFloat64() * 4)
		}
		s.slots[i].seq = &sequence{ctx: b.Context(), maxTokens: 1 << 30, decoder: letters{}, out: newOutbox(),
			sampler: newSampler(sampling{temperature: 0.8, topP: 0.95, logprobs: -1}, uint64(i), nil)}
	}
	for b.Loop() {
		s.sample(slots, logits)
		for i := range rows {
			s.slots[i].seq.out.take(nil)
		}
	}
}
