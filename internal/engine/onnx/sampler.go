package onnx

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// sampling is how one sequence chooses its next token. The order is vLLM's:
// bias and penalties change the logits, then temperature, min-p, top-k and
// top-p decide among them.
type sampling struct {
	temperature float64 // below greedyBelow the best token is taken
	topP        float64 // 0 < topP ≤ 1
	topK        int     // 0 means all
	minP        float64 // share of the best token's probability below which none is drawn
	seed        uint64

	presence   float64           // taken from the logit of every token that was produced
	frequency  float64           // the same, times how often
	repetition float64           // divides positive logits of tokens seen, in the prompt too; 0 and 1 mean none
	bias       map[int32]float32 // added to logits

	minTokens int     // ends are not drawn before
	ends      []int32 // tokens that end the sequence

	logprobs int // alternatives to report beside the drawn token; -1 reports nothing
}

// penalises says whether earlier tokens matter.
func (s sampling) penalises() bool {
	return s.presence != 0 || s.frequency != 0 || s.repetition != 0 && s.repetition != 1
}

// drawn is one chosen token.
type drawn struct {
	id   int32
	prob *tokenProb // nil unless logprobs were asked for
	last bool       // a grammar is complete: nothing may follow
}

// tokenProb is a token with its log-probability under the model's own logits,
// before bias, penalties and temperature, and the most likely alternatives.
type tokenProb struct {
	id      int32
	logprob float64
	top     []tokenProb // best first
}

// sampler draws tokens from logits. It is owned by one sequence and used by
// one goroutine at a time.
type sampler struct {
	sampling
	rnd      *rand.Rand
	produced int
	counts   map[int32]int32 // how often each token was produced
	prompt   map[int32]bool  // tokens of the prompt; filled when repetition needs it
	scratch  *scratch
	guide    *guide // nil: any text is allowed
}

// scratch is memory for one row of logits. Samplers that are not used at the
// same time may share it.
type scratch struct {
	probs []float32 // unnormalised, best = 1
	cand  []candidate
	raw   []float32 // logits before bias and penalties, when both are needed
}

type candidate struct {
	id int32
	p  float32
}

// newSampler returns a sampler whose draws depend on the seed and on stream
// alone, so that the choices of one request differ from each other.
func newSampler(s sampling, stream uint64, prompt []int32) *sampler {
	p := &sampler{sampling: s, rnd: rand.New(rand.NewPCG(s.seed, stream))}
	if s.penalises() {
		p.counts, p.prompt = map[int32]int32{}, map[int32]bool{}
		if s.repetition != 0 && s.repetition != 1 {
			for _, id := range prompt {
				p.prompt[id] = true
			}
		}
	}
	return p
}

// pick draws the next token and changes logits in place. NaN logits are never
// drawn; when no logit is a number, or the grammar allows no token, it returns
// false.
func (s *sampler) pick(logits []float32, sc *scratch) (drawn, bool) {
	s.scratch = sc
	raw := logits
	if s.logprobs >= 0 && s.changes() {
		sc.raw = append(sc.raw[:0], logits...)
		raw = sc.raw
	}
	s.change(logits)
	if s.guide != nil && !s.guide.mask(logits) {
		return drawn{}, false
	}
	id, ok := s.draw(logits)
	if !ok || s.guide != nil && !s.guide.take(id) {
		return drawn{}, false
	}
	s.produced++
	if s.counts != nil {
		s.counts[id]++
	}
	d := drawn{id: id, last: s.guide != nil && s.guide.finished()}
	if s.logprobs >= 0 {
		d.prob = probability(raw, id, s.logprobs)
	}
	return d, true
}

func (s *sampler) changes() bool {
	return s.counts != nil || len(s.bias) > 0 || s.produced < s.minTokens || s.guide != nil
}

// change applies bias, penalties and the minimum length.
func (s *sampler) change(logits []float32) {
	at := func(id int32) *float32 {
		if id < 0 || int(id) >= len(logits) {
			return new(float32) // a token the output layer does not have
		}
		return &logits[id]
	}
	for id, b := range s.bias {
		*at(id) += b
	}
	for id := range s.prompt {
		if s.counts[id] == 0 {
			repeat(at(id), s.repetition)
		}
	}
	for id, n := range s.counts {
		p := at(id)
		repeat(p, s.repetition)
		*p -= float32(s.frequency*float64(n) + s.presence)
	}
	if s.produced < s.minTokens {
		for _, id := range s.ends {
			*at(id) = float32(math.Inf(-1))
		}
	}
}

// repeat applies a repetition penalty as its paper does: towards the unlikely
// on both sides of zero (https://arxiv.org/abs/1909.05858).
func repeat(logit *float32, penalty float64) {
	switch {
	case penalty == 0:
	case *logit > 0:
		*logit /= float32(penalty)
	default:
		*logit *= float32(penalty)
	}
}

// greedyBelow is the temperature below which draws are greedy: a token behind
// the best by more than 0.00025 is negligible there, and far below, at 3e-39,
// the reciprocal is no longer a float32.
const greedyBelow = 1e-5

// draw chooses by temperature, min-p, top-k and top-p.
func (s *sampler) draw(logits []float32) (int32, bool) {
	best := argmax(logits)
	if best < 0 {
		return 0, false
	}
	if s.temperature < greedyBelow || s.topK == 1 || math.IsInf(float64(logits[best]), 0) {
		return best, true
	}
	total := s.scratch.exponentials(logits, logits[best], s.temperature)
	if s.topK == 0 && s.topP >= 1 && s.minP == 0 {
		return walk(s.scratch.probs, s.rnd.Float64()*total, best), true
	}
	return s.narrow(total, best), true
}

// narrow draws from the candidates that min-p, top-k and top-p leave, which are
// at least the best token.
func (s *sampler) narrow(total float64, best int32) int32 {
	probs := s.scratch.probs
	// Tokens below floor weigh less than 1 - topP all together, so none of them
	// is in the nucleus. The best token has probability 1 here.
	floor := s.minP
	if s.topP < 1 && s.topK == 0 {
		floor = max(floor, (1-s.topP)*total/float64(len(probs)))
	}
	cand := s.scratch.cand[:0]
	for i, p := range probs {
		if p > 0 && float64(p) >= floor {
			cand = append(cand, candidate{int32(i), p})
		}
	}
	s.scratch.cand = cand
	if s.topK > 0 && s.topK < len(cand) {
		cand = largest(cand, s.topK)
	}
	if s.topK > 0 || s.minP > 0 {
		total = weight(cand) // top-p counts among what is left
	}
	mass := total
	if s.topP < 1 {
		cand, mass = keepTopP(cand, s.topP*total)
	}
	return walkCandidates(cand, s.rnd.Float64()*mass, best)
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

// negligible is the exponent below which a token counts as impossible: 150,000
// of them together weigh less than 3 in a million of the best token. In a real
// model's logits that is nearly all of them, which saves their exponentials.
const negligible = -25

// exponentials fills probs with exp((logit-best)/temperature) and returns
// their sum. NaN becomes 0.
func (sc *scratch) exponentials(logits []float32, best float32, temperature float64) float64 {
	if cap(sc.probs) < len(logits) {
		sc.probs = make([]float32, len(logits))
	}
	sc.probs = sc.probs[:len(logits)]
	inv, total := float32(1/temperature), 0.0
	for from := 0; from < len(logits); from += 1024 {
		part := logits[from:min(from+1024, len(logits))]
		out := sc.probs[from : from+len(part)]
		sum := float32(0) // short sums of positive numbers keep fp32's precision
		for i, v := range part {
			x, p := (v-best)*inv, float32(0)
			if x > negligible { // false for NaN
				p = exp32(x)
				sum += p
			}
			out[i] = p
		}
		total += float64(sum)
	}
	return total
}

// exp32 is e to the x for -87 ≤ x ≤ 0, within 3 units of the last place. Degree
// and coefficients are those of Cephes' expf.
func exp32(x float32) float32 {
	n := float32(int32(x*1.44269504088896341 - 0.5))
	r := x - n*0.693359375
	r += n * 2.12194440e-4
	p := float32(1.9875691500e-4)
	p = p*r + 1.3981999507e-3
	p = p*r + 8.3334519073e-3
	p = p*r + 4.1665795894e-2
	p = p*r + 1.6666665459e-1
	p = p*r + 5.0000001201e-1
	p = p*r*r + r + 1
	return p * math.Float32frombits(uint32(int32(n)+127)<<23)
}

// walk returns the index at weight u of the cumulative distribution, or best
// when nothing weighs anything.
func walk(probs []float32, u float64, best int32) int32 {
	last := best
	for i, p := range probs {
		if p > 0 {
			last = int32(i)
			if u -= float64(p); u < 0 {
				return last
			}
		}
	}
	return last
}

// walkCandidates is walk over what narrow left.
func walkCandidates(cand []candidate, u float64, best int32) int32 {
	last := best
	for _, c := range cand {
		last = c.id
		if u -= float64(c.p); u < 0 {
			break
		}
	}
	return last
}

func byProbability(a, b candidate) int {
	return cmp.Or(cmp.Compare(b.p, a.p), cmp.Compare(a.id, b.id))
}

func weight(cand []candidate) float64 {
	total := 0.0
	for _, c := range cand {
		total += float64(c.p)
	}
	return total
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
// least mass, and its weight. Only what may belong to the set is sorted: weights
// are first summed by their binary exponent.
func keepTopP(cand []candidate, mass float64) ([]candidate, float64) {
	exponent := func(c candidate) uint32 { return math.Float32bits(c.p) >> 23 }
	var weights [256]float64
	for _, c := range cand {
		weights[exponent(c)] += float64(c.p)
	}
	least, sum := uint32(len(weights)), 0.0
	for least > 0 && (sum == 0 || sum < mass) {
		least--
		sum += weights[least]
	}
	n := 0
	for i, c := range cand {
		if exponent(c) >= least {
			cand[i], cand[n] = cand[n], c
			n++
		}
	}
	slices.SortFunc(cand[:n], byProbability)
	sum = 0
	for i, c := range cand[:n] {
		if sum += float64(c.p); sum >= mass {
			return cand[:i+1], sum
		}
	}
	return cand[:n], sum
}

// probability is the log-softmax of raw at id, with the n most likely tokens.
func probability(raw []float32, id int32, n int) *tokenProb {
	best := raw[max(argmax(raw), 0)]
	sum := 0.0
	for _, v := range raw {
		if !math.IsNaN(float64(v)) {
			sum += math.Exp(float64(v) - float64(best))
		}
	}
	norm := float64(best) + math.Log(sum)
	p := &tokenProb{id: id, logprob: float64(raw[id]) - norm}
	if n = min(n, len(raw)); n > 0 {
		cand := make([]candidate, 0, n+1)
		for i, v := range raw {
			if math.IsNaN(float64(v)) || len(cand) == n && v <= cand[n-1].p {
				continue
			}
			c := candidate{int32(i), v}
			at, _ := slices.BinarySearchFunc(cand, c, byProbability)
			cand = slices.Insert(cand, at, c)[:min(len(cand)+1, n)]
		}
		for _, c := range cand {
			p.top = append(p.top, tokenProb{id: c.id, logprob: float64(c.p) - norm})
		}
	}
	return p
}
