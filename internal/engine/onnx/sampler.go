package onnx

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// sampling is how one sequence chooses its next token.
type sampling struct {
	temperature float64 // 0 is greedy
	topP        float64 // 0 < topP ≤ 1
	topK        int     // 0 means all
	seed        uint64
}

// sampler draws tokens from logits. It is owned by one sequence and used by
// one goroutine.
type sampler struct {
	sampling
	rnd  *rand.Rand
	cand []candidate // scratch, kept between tokens
}

type candidate struct {
	id int32
	p  float64 // first the logit, then the unnormalised probability
}

// newSampler returns a sampler whose draws depend on the seed and on stream
// alone, so that the choices of one request differ from each other.
func newSampler(s sampling, stream uint64) *sampler {
	return &sampler{sampling: s, rnd: rand.New(rand.NewPCG(s.seed, stream))}
}

// pick returns the next token. NaN logits are never picked; when no logit is a
// number it returns false.
func (s *sampler) pick(logits []float32) (int32, bool) {
	best := argmax(logits)
	if best < 0 {
		return 0, false
	}
	if s.temperature == 0 || s.topK == 1 || math.IsInf(float64(logits[best]), 1) {
		return best, true
	}
	cand, total := s.candidates(logits, float64(logits[best]))
	if s.topK > 0 && s.topK < len(cand) {
		cand, total = keepTopK(cand, s.topK)
	}
	if s.topP < 1 {
		cand, total = keepTopP(cand, s.topP*total)
	}
	return draw(cand, s.rnd.Float64()*total), true
}

// argmax returns the index of the largest number, the first among equals, or
// -1 when there is none.
func argmax(logits []float32) int32 {
	best, at := float32(math.Inf(-1)), int32(-1)
	for i, v := range logits {
		if v > best || at < 0 && v == best {
			best, at = v, int32(i)
		}
	}
	return at
}

// negligible is the log-probability ratio to the best token below which a
// token is left out: all 2²⁰ of them together would weigh less than 10⁻¹¹.
const negligible = -40

// candidates turns logits into unnormalised probabilities, best = 1.
func (s *sampler) candidates(logits []float32, best float64) ([]candidate, float64) {
	s.cand = s.cand[:0]
	inv, total := 1/s.temperature, 0.0
	floor := float32(best + negligible*s.temperature)
	for i, v := range logits {
		if v >= floor { // false for NaN
			p := math.Exp((float64(v) - best) * inv)
			s.cand = append(s.cand, candidate{int32(i), p})
			total += p
		}
	}
	return s.cand, total
}

func byProbability(a, b candidate) int {
	return cmp.Or(cmp.Compare(b.p, a.p), cmp.Compare(a.id, b.id))
}

func keepTopK(cand []candidate, k int) ([]candidate, float64) {
	cand = largest(cand, k)
	total := 0.0
	for _, c := range cand {
		total += c.p
	}
	return cand, total
}

// insertBelow is the k up to which keeping a short sorted list beats sorting.
const insertBelow = 256

// largest sorts the k largest candidates to the front and returns them. The
// rest stays behind them in no order.
func largest(cand []candidate, k int) []candidate {
	if k > insertBelow {
		slices.SortFunc(cand, byProbability)
		return cand[:k]
	}
	h := cand[:k]
	slices.SortFunc(h, byProbability)
	// Most of the rest is below the last of h and costs one compare.
	for i, c := range cand[k:] {
		last := h[k-1]
		if byProbability(c, last) < 0 {
			at, _ := slices.BinarySearchFunc(h, c, byProbability)
			copy(h[at+1:], h[at:k-1])
			h[at], cand[k+i] = c, last
		}
	}
	return h
}

// keepTopP returns the smallest set of most probable candidates that weighs at
// least mass. It looks at a short prefix first, since the set is nearly always
// much smaller than the vocabulary.
func keepTopP(cand []candidate, mass float64) ([]candidate, float64) {
	for _, k := range []int{min(64, len(cand)), len(cand)} {
		sum := 0.0
		for i, c := range largest(cand, k) {
			if sum += c.p; sum >= mass {
				return cand[:i+1], sum
			}
		}
		if k == len(cand) {
			return cand, sum
		}
	}
	return cand, mass
}

// draw returns the candidate at weight u of the cumulative distribution.
func draw(cand []candidate, u float64) int32 {
	for _, c := range cand {
		if u -= c.p; u < 0 {
			return c.id
		}
	}
	return cand[len(cand)-1].id
}
