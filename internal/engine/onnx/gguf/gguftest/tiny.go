package gguftest

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
)

// Spec describes a tiny Llama model. The zero value is a model of two layers
// with Q8_0 weights and tied embeddings; every size has a default.
type Spec struct {
	Layers, Width, FeedForward int // 2, 64, 96
	Heads, KVHeads, HeadDim    int // 4, 2, 16
	Context                    int // 256
	Type                       Type
	TypeOf                     func(tensor string) (t Type, ok bool) // overrides Type for some matrices
	Untied                     bool                                  // an output.weight of its own
	Bias                       bool                                  // biases on Q, K and V
	RopeFactors                bool                                  // a rope_freqs.weight tensor, as Llama 3.1 has
	Pre                        string                                // tokenizer.ggml.pre; "smollm"
	Seed                       uint64
}

func (s Spec) withDefaults() Spec {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&s.Layers, 2}, {&s.Width, 64}, {&s.FeedForward, 96}, {&s.Heads, 4}, {&s.KVHeads, 2}, {&s.HeadDim, 16}, {&s.Context, 256},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if s.Pre == "" {
		s.Pre = "smollm"
	}
	return s
}

// Tiny writes the model as dir/tiny.gguf and returns that path.
func Tiny(dir string, s Spec) (string, error) {
	path := filepath.Join(dir, "tiny.gguf")
	return path, Model(s).Write(path)
}

// Model builds the file in memory, so that a test may damage it. It panics if
// sizes do not fit the type's blocks.
func Model(s Spec) File {
	s = s.withDefaults()
	f := File{Keys: s.metadata(Vocabulary(), specials, chatTemplate)}
	w := weights{rng: rand.New(rand.NewPCG(s.Seed, 2026)), s: s, f: &f}
	vocab := len(Vocabulary())
	w.matrix("token_embd.weight", s.Width, vocab, 1)
	q, kv := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	for l := range s.Layers {
		p := fmt.Sprintf("blk.%d.", l)
		w.vector(p+"attn_norm.weight", s.Width, 1)
		w.vector(p+"ffn_norm.weight", s.Width, 1)
		w.linear(p+"attn_q", s.Width, q, s.Bias)
		w.linear(p+"attn_k", s.Width, kv, s.Bias)
		w.linear(p+"attn_v", s.Width, kv, s.Bias)
		w.linear(p+"attn_output", q, s.Width, false)
		w.linear(p+"ffn_gate", s.Width, s.FeedForward, false)
		w.linear(p+"ffn_up", s.Width, s.FeedForward, false)
		w.linear(p+"ffn_down", s.FeedForward, s.Width, false)
	}
	w.vector("output_norm.weight", s.Width, 1)
	if s.Untied {
		w.matrix("output.weight", s.Width, vocab, 0.3)
	}
	if s.RopeFactors {
		w.vector("rope_freqs.weight", s.HeadDim/2, 3)
	}
	return f
}

// metadata is what llama.cpp's converter writes for such a model.
func (s Spec) metadata(tokens, control []string, template string) []Key {
	types := make([]int32, len(tokens))
	for i, token := range tokens {
		types[i] = 1
		if slices.Contains(control, token) {
			types[i] = 3
		} else if token == userDefined {
			types[i] = 4
		}
	}
	u := func(n int) uint32 { return uint32(n) }
	return []Key{
		{"general.architecture", "llama"},
		{"general.name", "Tiny test model"},
		{"llama.block_count", u(s.Layers)},
		{"llama.context_length", u(s.Context)},
		{"llama.embedding_length", u(s.Width)},
		{"llama.feed_forward_length", u(s.FeedForward)},
		{"llama.attention.head_count", u(s.Heads)},
		{"llama.attention.head_count_kv", u(s.KVHeads)},
		{"llama.attention.key_length", u(s.HeadDim)},
		{"llama.attention.value_length", u(s.HeadDim)},
		{"llama.attention.layer_norm_rms_epsilon", float32(1e-5)},
		{"llama.rope.freq_base", float32(10000)},
		{"llama.rope.dimension_count", u(s.HeadDim)},
		{"tokenizer.ggml.model", "gpt2"},
		{"tokenizer.ggml.pre", s.Pre},
		{"tokenizer.ggml.tokens", tokens},
		{"tokenizer.ggml.token_type", types},
		{"tokenizer.ggml.merges", merges()},
		{"tokenizer.ggml.bos_token_id", uint32(1)},
		{"tokenizer.ggml.eos_token_id", uint32(2)},
		{"tokenizer.ggml.padding_token_id", uint32(0)},
		{"tokenizer.ggml.add_bos_token", false},
		{"tokenizer.chat_template", template},
	}
}

const chatTemplate = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" +
	"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

// specials are the control tokens, which have the first ids.
var specials = []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}

// Vocabulary returns the tokens in the order of their ids: three control
// tokens, the 256 bytes in GPT-2's printable form, what the merges make, and
// one user-defined token.
func Vocabulary() []string {
	out := append([]string(nil), specials...)
	for b := range 256 {
		out = append(out, string(printable(b)))
	}
	for _, m := range mergePairs {
		out = append(out, m[0]+m[1])
	}
	return append(out, userDefined)
}

const userDefined = "<tool>"

var mergePairs = [][2]string{
	{"h", "e"}, {"t", "he"}, {"Ġ", "t"}, {"Ġ", "the"}, {"i", "n"}, {"a", "n"}, {"l", "l"}, {"Ġ", "a"}, {"e", "r"}, {"o", "n"}, {"r", "e"},
}

func merges() []string {
	var out []string
	for _, m := range mergePairs {
		out = append(out, m[0]+" "+m[1])
	}
	return out
}

// printable is GPT-2's map from bytes to characters (openai/gpt-2, encoder.py,
// bytes_to_unicode): printable bytes stand for themselves, the others follow
// from U+0100 on in their order.
func printable(b int) rune {
	next := rune(256)
	for i := range 256 {
		plain := i >= '!' && i <= '~' || i >= 0xa1 && i <= 0xac || i >= 0xae
		switch {
		case i == b && plain:
			return rune(b)
		case i == b:
			return next
		case !plain:
			next++
		}
	}
	panic("gguftest: not a byte")
}

// weights fills a file with random tensors.
type weights struct {
	rng *rand.Rand
	s   Spec
	f   *File
}

func (w *weights) normal(n int, mean, spread float64) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(mean + spread*w.rng.NormFloat64())
	}
	return out
}

func (w *weights) matrix(name string, in, out int, spread float64) {
	t := w.s.Type
	if w.s.TypeOf != nil {
		if other, ok := w.s.TypeOf(name); ok {
			t = other
		}
	}
	// A mean away from zero gives Q4_1's offsets something to say.
	values := w.normal(in*out, spread/4, spread)
	w.f.Tensors = append(w.f.Tensors, Tensor{Name: name, Dims: []uint64{uint64(in), uint64(out)}, Type: t, Data: Encode(t, values)})
}

func (w *weights) vector(name string, n int, mean float64) {
	w.f.Tensors = append(w.f.Tensors, Tensor{Name: name, Dims: []uint64{uint64(n)}, Type: F32, Data: Encode(F32, w.normal(n, mean, 0.2))})
}

func (w *weights) linear(name string, in, out int, bias bool) {
	w.matrix(name+".weight", in, out, 0.15)
	if bias {
		w.vector(name+".bias", out, 0)
	}
}
