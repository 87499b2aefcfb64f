package onnx

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// pickOne draws one token, from a copy of logits.
func pickOne(s *sampler, logits []float32) (drawn, bool) {
	return s.pick(slices.Clone(logits), &scratch{})
}

func TestPickGreedyTakesTheFirstOfEquals(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, tc := range []struct {
		logits []float32
		want   int32
		ok     bool
	}{
		{[]float32{1, 3, 3, 2}, 1, true},
		{[]float32{nan, -5, nan, -4}, 3, true},
		{[]float32{nan, nan}, 0, false},
		{[]float32{-inf, -inf}, 0, true},
		{[]float32{0, inf}, 1, true},
	} {
		s := newSampler(sampling{topP: 1, logprobs: -1}, 0, nil)
		if got, ok := pickOne(s, tc.logits); got.id != tc.want || ok != tc.ok {
			t.Errorf("pick(%v) = %d, %v, want %d, %v", tc.logits, got.id, ok, tc.want, tc.ok)
		}
	}
	hot := newSampler(sampling{temperature: 1, topP: 1, logprobs: -1}, 0, nil)
	if got, ok := pickOne(hot, []float32{nan, inf, 3}); got.id != 1 || !ok {
		t.Errorf("an infinite logit was not drawn: %v %v", got, ok)
	}
	if _, ok := pickOne(hot, []float32{nan}); ok {
		t.Error("a token was drawn from no numbers")
	}
}

// Near 0 a temperature is 0: the best token, the first among equals, whatever
// the seed and whatever narrows the choice.
func TestPickIsGreedyNearTemperatureZero(t *testing.T) {
	for _, temperature := range []float64{0, 5e-324, 1e-46, 1e-39, 2.9e-39, 1e-20, 9.9e-6, math.NaN()} {
		for name, s := range map[string]sampling{"plain": {topP: 1}, "top-p": {topP: 0.9}, "top-k": {topP: 1, topK: 3},
			"min-p": {topP: 1, minP: 0.1}, "all": {topP: 0.5, topK: 3, minP: 0.5}} {
			s.temperature, s.logprobs = temperature, -1
			for seed := range uint64(8) {
				s.seed = seed
				if got, ok := pickOne(newSampler(s, 0, nil), []float32{1, 3, 3, 2.9}); got.id != 1 || !ok {
					t.Errorf("%s at %v with seed %d = %d, %v, want 1", name, temperature, seed, got.id, ok)
				}
			}
		}
	}
}

// FuzzPick holds that whatever a model computes and a request asks, a token is
// drawn exactly when there is one, and it is one.
func FuzzPick(f *testing.F) {
	nan, inf, raw := math.NaN(), math.Inf(1), func(list ...float64) (b []byte) {
		for _, v := range list {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)))
		}
		return b
	}
	for _, logits := range [][]byte{nil, raw(1, 3, 3, 2), raw(nan, nan), raw(nan, -5, inf, -inf), raw(-inf, -inf),
		raw(3e38, -3e38, 0, 1e-45), raw(nan, 3, 3, nan, 2), raw(0, 0, 0)} {
		for _, temperature := range []float64{0, 5e-324, 1e-39, 1e-5, 0.7, 2, 1e39, 1e308, inf, nan} {
			for _, topP := range []float64{0, 1e-300, 0.9, 1, nan} {
				f.Add(logits, temperature, topP, 0.0, 0, 0.0, 0.0, 1.0, uint64(1))
				f.Add(logits, temperature, topP, 0.1, 2, 2.0, -2.0, 1e-46, uint64(2))
				f.Add(logits, temperature, topP, 1.0, 1<<30, -2.0, 2.0, 2.0, uint64(3))
				f.Add(logits, temperature, topP, nan, -1, inf, -inf, nan, uint64(4))
			}
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, temperature, topP, minP float64, topK int, presence, frequency, repetition float64, seed uint64) {
		var logits []float32
		for ; len(raw) >= 4 && len(logits) < 3000; raw = raw[4:] {
			logits = append(logits, math.Float32frombits(binary.LittleEndian.Uint32(raw)))
		}
		s := newSampler(sampling{temperature: temperature, topP: topP, minP: minP, topK: topK, seed: seed,
			presence: presence, frequency: frequency, repetition: repetition, logprobs: 2}, 0, []int32{0, 1})
		sc := &scratch{}
		for range 3 {
			changed := slices.Clone(logits)
			s.change(changed)
			best := argmax(changed)
			d, ok := s.pick(slices.Clone(logits), sc)
			if ok != (best >= 0) {
				t.Fatalf("drew %d, %v from %v", d.id, ok, changed)
			}
			if ok && (d.id < 0 || int(d.id) >= len(logits) || !(changed[d.id] <= changed[best]) || changed[d.id] < changed[best] && math.IsInf(float64(changed[d.id]), -1)) {
				t.Fatalf("drew %d, which is impossible, from %v", d.id, changed)
			}
		}
	})
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
		"min-p":  {sampling{temperature: 1, topP: 1, minP: 0.2}, []int32{4, 5, 0}},
		"all":    {sampling{temperature: 1, topP: 0.7, topK: 5, minP: 0.1}, []int32{4, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			want := softmax(logits, tc.allowed, tc.temperature)
			tc.seed = 7
			tc.logprobs = -1
			s := newSampler(tc.sampling, 0, nil)
			const n = 40000
			sc := &scratch{}
			seen := make([]float64, len(logits))
			for range n {
				d, _ := s.pick(slices.Clone(logits), sc)
				seen[d.id]++
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
		s := newSampler(sampling{temperature: 1, topP: 1, seed: seed, logprobs: -1}, stream, nil)
		var ids []int32
		for range 20 {
			d, _ := pickOne(s, logits)
			ids = append(ids, d.id)
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
			cand[i] = candidate{int32(i), float32(math.Floor(p))}
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

// TestKeepTopPEqualsASort compares the set with the front of a full sort.
func TestKeepTopPEqualsASort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.SliceOfN(rapid.Float32Range(1e-6, 1), 1, 300).Draw(t, "p")
		cand, total := make([]candidate, len(ps)), 0.0
		for i, p := range ps {
			cand[i] = candidate{int32(i), p}
			total += float64(p)
		}
		mass := total * rapid.Float64Range(0, 1).Draw(t, "share")
		want, sum := slices.Clone(cand), 0.0
		slices.SortFunc(want, byProbability)
		for i, c := range want {
			if sum += float64(c.p); sum >= mass {
				want = want[:i+1]
				break
			}
		}
		got, weight := keepTopP(cand, mass)
		if !slices.Equal(got, want) || math.Abs(weight-sum) > 1e-9 {
			t.Fatalf("keepTopP(%v) = %v (%v), want %v (%v)", mass, got, weight, want, sum)
		}
	})
}

// TestChangesFollowTheirFormulas compares the changed logits with the formulas
// of OpenAI's reference and of the repetition penalty's paper.
func TestChangesFollowTheirFormulas(t *testing.T) {
	s := newSampler(sampling{topP: 1, presence: 0.5, frequency: 0.25, repetition: 2, bias: map[int32]float32{3: 7, 99: 1},
		minTokens: 3, ends: []int32{4}, logprobs: -1}, 0, []int32{1, 5})
	s.counts[2], s.produced = 3, 2
	got := []float32{1, 1, 4, 1, 9, -1}
	s.change(got)
	want := []float32{1, 0.5, 4.0/2 - 3*0.25 - 0.5, 8, float32(math.Inf(-1)), -2}
	if !slices.Equal(got, want) {
		t.Errorf("logits %v, want %v", got, want)
	}
	s.produced = 3
	if got = []float32{0, 0, 0, 0, 9, 0}; true {
		s.change(got)
	}
	if got[4] != 9 {
		t.Error("an end was forbidden after the minimum")
	}
}

func TestPenaltiesCountWhatWasProduced(t *testing.T) {
	s := newSampler(sampling{topP: 1, frequency: 1, logprobs: -1}, 0, nil)
	var ids []int32
	for range 5 {
		d, _ := pickOne(s, []float32{3, 2.5, 0})
		ids = append(ids, d.id)
	}
	if want := []int32{0, 1, 0, 1, 0}; !slices.Equal(ids, want) {
		t.Errorf("drew %v, want %v", ids, want)
	}
}

// TestLogprobsAreOfTheModel compares with a log-softmax in float64, and holds
// that bias and penalties do not show in them.
func TestLogprobsAreOfTheModel(t *testing.T) {
	r := newSampler(sampling{seed: 5}, 0, nil).rnd
	logits := make([]float32, 5000)
	sum := 0.0
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * 5)
		sum += math.Exp(float64(logits[i]))
	}
	s := newSampler(sampling{temperature: 1.3, topP: 1, bias: map[int32]float32{17: 100}, presence: 2, logprobs: 4}, 0, nil)
	d, _ := pickOne(s, logits)
	if d.id != 17 {
		t.Fatalf("bias 100 drew %d", d.id)
	}
	near := func(got float64, id int32) bool {
		return math.Abs(got-(float64(logits[id])-math.Log(sum))) < 1e-6
	}
	order := make([]candidate, len(logits))
	for i, v := range logits {
		order[i] = candidate{int32(i), v}
	}
	slices.SortFunc(order, byProbability)
	if !near(d.prob.logprob, 17) || len(d.prob.top) != 4 {
		t.Errorf("drawn: %+v", d.prob)
	}
	for i, p := range d.prob.top {
		if p.id != order[i].id || !near(p.logprob, p.id) {
			t.Errorf("alternative %d: %+v, want token %d", i, p, order[i].id)
		}
	}
}

func TestExp32(t *testing.T) {
	for x := float32(0); x > -86; x -= 0.00123 {
		if got, want := float64(exp32(x)), math.Exp(float64(x)); math.Abs(got/want-1) > 3e-7 {
			t.Fatalf("exp32(%v) = %v, want %v", x, got, want)
		}
	}
	sc := &scratch{}
	total := sc.exponentials([]float32{0, float32(math.NaN()), float32(math.Inf(-1)), -1000, -1}, 0, 1)
	if want := 1 + math.Exp(-1); math.Abs(total-want) > 1e-6 || slices.Max(sc.probs[1:4]) != 0 {
		t.Errorf("exponentials %v sum to %v, want %v", sc.probs, total, want)
	}
}

// BenchmarkPick draws from 150,000 logits.
func BenchmarkPick(b *testing.B) {
	logits := make([]float32, 150_000)
	r := newSampler(sampling{seed: 3}, 0, nil).rnd
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * 4)
	}
	for name, s := range map[string]sampling{"greedy": {topP: 1}, "plain": {temperature: 1, topP: 1},
		"top-p": {temperature: 0.7, topP: 0.9}, "top-k": {temperature: 0.7, topP: 1, topK: 40},
		"logprobs": {topP: 1, logprobs: 20}, "penalties": {temperature: 1, topP: 1, frequency: 0.5}} {
		b.Run(name, func(b *testing.B) {
			if name != "logprobs" {
				s.logprobs = -1
			}
			p, sc := newSampler(s, 0, nil), &scratch{}
			for b.Loop() {
				p.pick(logits, sc)
			}
		})
	}
}
