package gguf

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"infer/internal/engine/onnx/gguf/gguftest"
)

// The bounds of the importer's promise, in nats per position: with fp32
// compute only rounding may remain, with int8 compute the error of 8-bit
// activations.
const (
	exactKL = 1e-4
	int8KL  = 0.01
)

// controlled is how many positions are enough to see that a check can fail.
const controlled = 48

// TestRealModelIsLossless compares SmolLM2 with a numpy forward pass over 256
// positions of prose and code.
func TestRealModelIsLossless(t *testing.T) {
	src := fromMake(t, "INFER_TEST_MODEL_GGUF")
	tokens := prose(t)
	exact := imported(t, src, Options{AllLogits: true})
	fast := imported(t, src, Options{AccuracyLevel: 4})
	broken := withoutOffsets(t, src, Options{AccuracyLevel: 4, AllLogits: true})
	got := compare(t, []comparison{
		{src, exact, tokens, len(tokens), 1},
		{src, fast, tokens, 1, 1}, // one token at a time, through the cache
		{src, broken, tokens[:controlled], controlled, 1},
	})
	t.Logf("level 0 %+v, level 4 %+v, without offsets %+v", got[0], got[1], got[2])
	for i, limit := range []float64{exactKL, int8KL} {
		if got[i].Positions != len(tokens) || !(got[i].MeanKL <= limit) {
			t.Errorf("got %+v, want a mean KL of at most %g over %d positions", got[i], limit, len(tokens))
		}
	}
	if got[0].Top1 < 0.99 || got[1].Top1 < 0.9 {
		t.Errorf("the first choice is the same at %.3f and %.3f of the positions", got[0].Top1, got[1].Top1)
	}
	if got[2].MeanKL <= 10*int8KL {
		t.Errorf("without Q4_1's offsets the mean KL is %g: this check cannot fail", got[2].MeanKL)
	}
}

// prose is the text as SmolLM2's own tokens.
func prose(t *testing.T) []int {
	t.Helper()
	raw, err := os.ReadFile("testdata/prose_smollm2.json")
	if err != nil {
		t.Fatal(err)
	}
	var tokens []int
	if err := json.Unmarshal(raw, &tokens); err != nil || len(tokens) < 256 {
		t.Fatalf("prose: %d tokens, %v", len(tokens), err)
	}
	return tokens[:256]
}

// only gives a type to the tensors whose name contains a part.
func only(part string, typ gguftest.Type) func(string) (gguftest.Type, bool) {
	return func(name string) (gguftest.Type, bool) { return typ, strings.Contains(name, part) }
}

// tinySpecs has a model for every path through the graph builder.
var tinySpecs = map[string]gguftest.Spec{
	"q4_0":              {Type: gguftest.Q4_0},
	"q4_1":              {Type: gguftest.Q4_1},
	"q8_0":              {Type: gguftest.Q8_0},
	"f16":               {Type: gguftest.F16},
	"bf16":              {Type: gguftest.BF16},
	"f32":               {Type: gguftest.F32},
	"q4_1 under q8_0":   {Type: gguftest.Q4_1, TypeOf: only("token_embd", gguftest.Q8_0)},
	"mixed qkv":         {Type: gguftest.Q4_1, TypeOf: only("attn_v", gguftest.Q8_0)},
	"f16 in q4_0":       {Type: gguftest.Q4_0, TypeOf: only("attn_k", gguftest.F16)},
	"untied q4_1":       {Type: gguftest.Q4_1, Untied: true},
	"untied f16":        {Type: gguftest.F16, Untied: true},
	"biases q4_1":       {Type: gguftest.Q4_1, Bias: true},
	"biases f32, mixed": {Type: gguftest.F32, TypeOf: only("attn_q", gguftest.Q8_0), Bias: true},
	"rope factors":      {Type: gguftest.Q8_0, RopeFactors: true},
	"one layer, no gqa": {Type: gguftest.Q4_0, Layers: 1, Heads: 3, KVHeads: 3, HeadDim: 32},
	"heads of 48":       {Type: gguftest.Q4_1, HeadDim: 48},
}

// TestEveryTypeIsLossless runs one sequence in parts, then three at once of
// which the last is compared: a mistake in how their rows become one matrix and
// sequences again would show.
func TestEveryTypeIsLossless(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tokens := make([]int, 48)
	for i := range tokens {
		tokens[i] = rng.IntN(len(gguftest.Vocabulary()))
	}
	var names []string
	var jobs []comparison
	for _, name := range sortedKeys(tinySpecs) {
		src := tiny(t, tinySpecs[name])
		all, last := imported(t, src, Options{AllLogits: true}), imported(t, src, Options{})
		names = append(names, name+", all logits", name+", every third", name+", a prompt of three", name+", three streams")
		jobs = append(jobs, comparison{src, all, tokens, 20, 1}, comparison{src, last, tokens, 3, 1},
			comparison{src, all, tokens, 48, 3}, comparison{src, last, tokens, 1, 3})
	}
	linear := gguftest.Model(gguftest.Spec{Type: gguftest.Q8_0})
	linear.Set("llama.rope.scaling.type", "linear")
	linear.Set("llama.rope.scaling.factor", float32(4))
	src := t.TempDir() + "/linear.gguf"
	if err := linear.Write(src); err != nil {
		t.Fatal(err)
	}
	names, jobs = append(names, "linear rope"), append(jobs, comparison{src, imported(t, src, Options{AllLogits: true}), tokens, 48, 1})
	for i, got := range compare(t, jobs) {
		want := len(tokens)
		if strings.HasSuffix(names[i], "every third") {
			want /= 3
		}
		if got.Positions != want || !(got.MeanKL <= exactKL) {
			t.Errorf("%s: got %+v, want a mean KL of at most %g over %d positions", names[i], got, exactKL, want)
		}
	}
}

// TestFaultsAreSeen shows that the check above would notice the mistakes that
// an importer is most likely to make.
func TestFaultsAreSeen(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	tokens := make([]int, 48)
	for i := range tokens {
		tokens[i] = rng.IntN(len(gguftest.Vocabulary()))
	}
	o := Options{AllLogits: true}
	q41 := tiny(t, gguftest.Spec{Type: gguftest.Q4_1})
	factors := tiny(t, gguftest.Spec{RopeFactors: true, Type: gguftest.F16})
	faults := []string{"rows of Q and K left in pairs", "offsets dropped", "rope factors dropped", "another epsilon"}
	got := compare(t, []comparison{
		{q41, spoilt(t, q41, o, func(m *llama) { m.paired = 0 }), tokens, 48, 1},
		{q41, withoutOffsets(t, q41, o), tokens, 48, 1},
		{factors, spoilt(t, factors, o, func(m *llama) { m.ropeFactors = nil }), tokens, 48, 1},
		{q41, spoilt(t, q41, o, func(m *llama) { m.eps = 1 }), tokens, 48, 1},
	})
	for i, g := range got {
		if g.MeanKL <= 10*exactKL {
			t.Errorf("%s: mean KL %g, want more than %g", faults[i], g.MeanKL, 10*exactKL)
		}
	}
}
