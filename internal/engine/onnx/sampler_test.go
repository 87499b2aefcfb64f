package onnx

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPickGreedyTakesTheFirstOfEquals(t *testing.T) {
	nan := float32(math.NaN())
	for _, tc := range []struct {
		logits []float32
		want   int32
		ok     bool
	}{
		{[]float32{1, 3, 3, 2}, 1, true},
		{[]float32{nan, -5, nan, -4}, 3, true},
		{[]float32{nan, nan}, 0, false},
		{[]float32{float32(math.Inf(-1)), float32(math.Inf(-1))}, 0, true},
		{[]float32{0, float32(math.Inf(1))}, 1, true},
	} {
		for _, temperature := range []float64{0, 1} {
			s := newSampler(sampling{temperature: temperature, topP: 1}, 0)
			if tc.logits[0] == float32(math.Inf(-1)) && temperature > 0 || temperature > 0 && tc.want == 1 && tc.logits[1] == 3 || temperature > 0 && tc.ok && tc.want == 3 {
				continue // several tokens are likely: the distribution test covers it
			}
			if got, ok := s.pick(tc.logits); got != tc.want || ok != tc.ok {
				t.Errorf("pick(%v) at %v = %d, %v, want %d, %v", tc.logits, temperature, got, ok, tc.want, tc.ok)
			}
		}
	}
}

// TestPickFollowsTheDistribution draws many tokens and compares frequencies to
// the softmax of what top-k and top-p leave, by a chi-squared bound.
func TestPickFollowsTheDistribution(t *testing.T) {
	logits := []float32{2, 1, 0, -1, 3, 2.5, -30, 0.5}
	for name, tc := range map[string]struct {
		sampling
		allowed []int32
	}{
		"plain":  {sampling{temperature: 1, topP: 1}, []int32{0, 1, 2, 3, 4, 5, 7}},
		"cold":   {sampling{temperature: 0.5, topP: 1}, []int32{0, 1, 2, 3, 4, 5, 7}},
		"top-k":  {sampling{temperature: 1, topP: 1, topK: 3}, []int32{4, 5, 0}},
		"top-p":  {sampling{temperature: 1, topP: 0.8}, []int32{4, 5, 0}},
		"both":   {sampling{temperature: 1.5, topP: 0.5, topK: 4}, []int32{4, 5}},
		"nearly": {sampling{temperature: 1, topP: 1e-9}, []int32{4}},
	} {
		t.Run(name, func(t *testing.T) {
			want := softmax(logits, tc.allowed, tc.temperature)
			tc.seed = 7
			s := newSampler(tc.sampling, 0)
			const n = 40000
			seen := make([]float64, len(logits))
			for range n {
				id, _ := s.pick(logits)
				seen[id]++
			}
			chi := 0.0
			for i := range logits {
				if want[i] == 0 && seen[i] > 0 {
					t.Fatalf("token %d was drawn %v times, must be never", i, seen[i])
				}
				if e := want[i] * n; e > 0 {
					chi += (seen[i] - e) * (seen[i] - e) / e
				}
			}
			if chi > 30 { // 6 degrees of freedom: p < 1e-4
				t.Errorf("chi-squared %.1f, seen %v, want %v", chi, seen, want)
			}
		})
	}
}

func softmax(logits []float32, allowed []int32, temperature float64) []float64 {
	p, total := make([]float64, len(logits)), 0.0
	for _, id := range allowed {
		p[id] = math.Exp(float64(logits[id]) / temperature)
		total += p[id]
	}
	for i := range p {
		p[i] /= total
	}
	return p
}

func TestPickIsReproducibleBySeedAndStream(t *testing.T) {
	logits := make([]float32, 1000)
	draw := func(seed, stream uint64) []int32 {
		s := newSampler(sampling{temperature: 1, topP: 1, seed: seed}, stream)
		var ids []int32
		for range 20 {
			id, _ := s.pick(logits)
			ids = append(ids, id)
		}
		return ids
	}
	if !slices.Equal(draw(1, 0), draw(1, 0)) {
		t.Error("same seed and stream gave different tokens")
	}
	if slices.Equal(draw(1, 0), draw(1, 1)) || slices.Equal(draw(1, 0), draw(2, 0)) {
		t.Error("another seed or stream gave the same tokens")
	}
}

// TestLargestKeepsAllCandidates holds the invariant that keepTopP depends on:
// selection permutes, and the front is what a full sort would give.
func TestLargestKeepsAllCandidates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.SliceOfN(rapid.Float64Range(0, 4), 1, 600).Draw(t, "p")
		k := rapid.IntRange(1, len(ps)).Draw(t, "k")
		cand := make([]candidate, len(ps))
		for i, p := range ps {
			cand[i] = candidate{int32(i), math.Floor(p)}
		}
		want := slices.Clone(cand)
		slices.SortFunc(want, byProbability)
		got := slices.Clone(largest(cand, k))
		if !slices.Equal(got, want[:k]) {
			t.Fatalf("largest %d = %v, want %v", k, got, want[:k])
		}
		slices.SortFunc(cand, byProbability)
		if !slices.Equal(cand, want) {
			t.Fatal("largest lost or doubled a candidate")
		}
	})
}

func BenchmarkPick(b *testing.B) {
	logits := make([]float32, 150_000)
	r := newSampler(sampling{seed: 3}, 0).rnd
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * 4)
	}
	for name, s := range map[string]sampling{"greedy": {topP: 1}, "plain": {temperature: 1, topP: 1},
		"top-p": {temperature: 0.7, topP: 0.9}, "top-k": {temperature: 0.7, topP: 1, topK: 40}} {
		b.Run(name, func(b *testing.B) {
			p := newSampler(s, 0)
			for b.Loop() {
				p.pick(logits)
			}
		})
	}
}
