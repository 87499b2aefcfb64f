package onnx

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/engine/onnx/grammar"
)

// strictModel is a runner on the fake clock whose logits depend on every cell
// of the cache that a row is said to hold. A cell depends on those before it. A
// run that is broken off leaves garbage in all cells that it was to write, and
// moving cells leaves garbage behind those that were named.
type strictModel struct {
	cells [][]uint64
	fixed bool
	rng   *rand.Rand
}

func newStrictModel(slots, context int, fixed bool) *strictModel {
	m := &strictModel{cells: make([][]uint64, slots), fixed: fixed, rng: rand.New(rand.NewPCG(1, 2))}
	for i := range m.cells {
		m.cells[i] = make([]uint64, context)
		m.spoil(i, 0, context)
	}
	return m
}

func (m *strictModel) spoil(slot, from, to int) {
	for i := from; i < to; i++ {
		m.cells[slot][i] = m.rng.Uint64()
	}
}

func (m *strictModel) write(slot, pos int, token int32) {
	h := fnv.New64a()
	before := uint64(0)
	if pos > 0 {
		before = m.cells[slot][pos-1]
	}
	_, _ = fmt.Fprint(h, before, token, pos)
	m.cells[slot][pos] = h.Sum64()
}

func (m *strictModel) logits(slot, pos int) []float32 {
	rng := rand.New(rand.NewPCG(m.cells[slot][pos], 0))
	out := make([]float32, 28)
	for i := range out {
		out[i] = 4 * rng.Float32()
	}
	return out
}

// works waits for d, or returns ctx's cause when that ends first.
func works(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func (m *strictModel) prefill(ctx context.Context, slot int, tokens []int32, pos int) ([]float32, error) {
	if err := works(ctx, time.Duration(len(tokens))*time.Millisecond); err != nil {
		m.spoil(slot, pos, pos+len(tokens))
		return nil, fmt.Errorf("run: %w", err)
	}
	for i, token := range tokens {
		m.write(slot, pos+i, token)
	}
	return m.logits(slot, pos+len(tokens)-1), nil
}

func (m *strictModel) decode(ctx context.Context, tokens []int32, lengths []int) ([][]float32, error) {
	if err := works(ctx, 10*time.Millisecond); err != nil {
		for i, n := range lengths {
			m.spoil(i, n, n+1)
		}
		return nil, fmt.Errorf("run: %w", err)
	}
	rows := make([][]float32, len(tokens))
	for i, token := range tokens {
		m.write(i, lengths[i], token)
		rows[i] = m.logits(i, lengths[i])
	}
	return rows, nil
}

func (m *strictModel) copy(from, to, length int) bool {
	if !m.fixed {
		copy(m.cells[to], m.cells[from][:length])
		m.spoil(to, length, len(m.cells[to]))
	}
	return !m.fixed
}

func (m *strictModel) swap(a, b, length int) bool {
	if !m.fixed {
		m.cells[a], m.cells[b] = m.cells[b], m.cells[a]
		m.spoil(a, length, len(m.cells[a]))
		m.spoil(b, length, len(m.cells[b]))
	}
	return !m.fixed
}

// strict runs a scheduler over a strict model while f runs.
func strict(t *testing.T, slots, limit int, fixed bool, f func(s *scheduler)) {
	s := newScheduler(newStrictModel(slots, limit, fixed), slots, limit, 26, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.loop(ctx) }()
	f(s)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("loop() = %v", err)
	}
}

// order is what a random request asks for; make builds its sequence, each time
// the same.
type order struct {
	prompt      []int32
	caller      string
	batch       bool
	limit       int
	sampling    sampling
	stops       []string
	promptProbs bool
	rules       *grammar.Grammar
}

func (o *order) make(ctx context.Context, words *grammar.Vocabulary) *sequence {
	q := &sequence{ctx: ctx, caller: o.caller, batch: o.batch, prompt: o.prompt, maxTokens: o.limit, ends: o.sampling.ends,
		sampler: newSampler(o.sampling, 3, o.prompt), decoder: letters{}, stop: stopText{stops: o.stops},
		promptProbs: o.promptProbs, out: newOutbox()}
	if o.rules != nil {
		q.sampler.guide = newGuide(o.rules, words, -1)
	}
	return q
}

// anyOrder draws one whose prompt often begins as another's does.
func anyOrder(rng *rand.Rand, limit int, rules *grammar.Grammar) *order {
	o := &order{caller: []string{"a", "b"}[rng.IntN(2)], batch: rng.IntN(3) > 0, promptProbs: rng.IntN(5) == 0}
	n := 1 + rng.IntN(30)
	if rng.IntN(3) == 0 {
		n = 1 + rng.IntN(limit-1)
	}
	alike := rng.IntN(n + 1)
	for i := range n {
		token := int32(i % 5)
		if i >= alike {
			token = rng.Int32N(25)
		}
		o.prompt = append(o.prompt, token)
	}
	o.limit = min(rng.IntN(60), limit-n)
	o.sampling = sampling{topP: 1, logprobs: rng.IntN(4) - 1, seed: rng.Uint64(), ends: []int32{eosToken}}
	if rng.IntN(2) == 0 {
		o.sampling.temperature, o.sampling.topP = 1, 0.9
	}
	if rng.IntN(3) == 0 {
		o.sampling.presence, o.sampling.frequency, o.sampling.repetition = 0.5, 0.5, 1.3
	}
	if rng.IntN(3) == 0 {
		o.sampling.minTokens = min(rng.IntN(30), o.limit)
		o.stops = []string{"ab", "c"}
	}
	if rng.IntN(4) == 0 {
		o.rules, o.sampling.minTokens = rules, 0
	}
	return o
}

// told reads everything about q, and how often its prompt was counted.
func told(q *sequence) (list []piece, admitted int, err error) {
	for range q.out.ready {
		for _, p := range q.out.take(nil) {
			if p.admitted {
				admitted++
				continue
			}
			list = append(list, p)
			if p.finish != "" || p.err != nil {
				return list, admitted, p.err
			}
		}
	}
	return list, admitted, nil
}

// However the two classes meet, every sequence is told exactly what it is told
// when it runs alone: text, probabilities and end, once each.
func TestNothingShowsThatWorkGaveWay(t *testing.T) {
	rules, err := grammar.Regex(t.Context(), "([a-m][n-y]){3,40}")
	if err != nil {
		t.Fatal(err)
	}
	var alphabet [][]byte
	for i := range 26 {
		alphabet = append(alphabet, []byte{byte('a' + i)})
	}
	alphabet[eosToken] = nil
	words := grammar.NewVocabulary(alphabet, []int32{eosToken})
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 7))
				limit := 40 + rng.IntN(400)
				var orders []*order
				var alone [][]piece
				for range 40 {
					o := anyOrder(rng, limit, rules)
					orders = append(orders, o)
					strict(t, 1, limit, true, func(s *scheduler) {
						q := o.make(t.Context(), words)
						s.submit(q)
						list, _, err := told(q)
						if err != nil {
							t.Fatalf("%+v alone: %v", o, err)
						}
						alone = append(alone, list)
					})
				}
				strict(t, 1+rng.IntN(4), limit, rng.IntN(2) == 0, func(s *scheduler) {
					var all []*sequence
					for i, o := range orders {
						ctx := t.Context()
						if i%10 == 9 { // one that leaves
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Millisecond)
							defer cancel()
						}
						q := o.make(ctx, words)
						all = append(all, q)
						s.submit(q)
						pass(time.Duration(rng.IntN(200)) * time.Millisecond)
					}
					for i, q := range all {
						if i%10 == 9 {
							continue
						}
						list, admitted, err := told(q)
						if err != nil || admitted != 1 || !reflect.DeepEqual(list, alone[i]) {
							t.Errorf("%+v: counted %d times, %v, told\n%+v, alone\n%+v", orders[i], admitted, err, list, alone[i])
						}
					}
				})
			})
		})
	}
}
