package gguftest

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Recital describes a model that says texts by heart, so that a test knows
// what a real engine will read. It is a Llama like any other to who loads it:
// attention and feed-forward add zeros, so that the hidden state is the last
// token, and the output head names the token that follows it in its text. Each
// text is cut into tokens that no other place has.
type Recital struct {
	Template string            // the chat template
	Control  []string          // control tokens that texts hold, each at one place only
	Texts    map[string]string // what is said, by the control token that the prompt ends with
}

// File builds the model. It panics when the texts are too alike to be told
// apart by their tokens.
func (r Recital) File() File {
	v := vocabulary{ids: map[string]int{}, next: map[int]int{}}
	starts := slices.Sorted(maps.Keys(r.Texts))
	control := slices.Concat(specials, r.Control, starts)
	for _, token := range slices.Concat(Vocabulary(), r.Control, starts) {
		v.add(token)
	}
	for _, start := range starts {
		at := v.ids[start]
		for _, token := range v.cut(r.Texts[start], r.Control) {
			if _, taken := v.next[at]; taken {
				panic(fmt.Sprintf("gguftest: %q is followed by two tokens", v.tokens[at]))
			}
			v.next[at] = v.ids[token]
			at = v.ids[token]
		}
		v.next[at] = v.ids["<|im_end|>"]
	}
	s := Spec{Layers: 1, Width: len(v.tokens), FeedForward: 32, Heads: 1, KVHeads: 1, Context: 4096}.withDefaults()
	return File{Keys: s.metadata(v.tokens, control, r.Template), Tensors: v.tensors(s)}
}

// vocabulary is the tokens of a recital and which follows which.
type vocabulary struct {
	tokens []string
	ids    map[string]int
	next   map[int]int
}

func (v *vocabulary) add(token string) {
	if _, known := v.ids[token]; known {
		panic(fmt.Sprintf("gguftest: the token %q is needed twice", token))
	}
	v.ids[token] = len(v.tokens)
	v.tokens = append(v.tokens, token)
}

// pieceBytes is how long a token is that no other token equals.
const pieceBytes = 4

// cut makes new tokens of a text, but for the control tokens in it.
func (v *vocabulary) cut(text string, control []string) []string {
	var out []string
	for text != "" {
		plain, mark := len(text), ""
		for _, c := range control {
			if at := strings.Index(text, c); at >= 0 && at < plain {
				plain, mark = at, c
			}
		}
		for rest := text[:plain]; rest != ""; {
			n := min(pieceBytes, len(rest))
			for n < len(rest) && (v.known(rest[:n]) || len(rest)-n < pieceBytes) {
				n++
			}
			token := asBytes(rest[:n])
			v.add(token)
			out, rest = append(out, token), rest[n:]
		}
		if mark != "" {
			out = append(out, mark)
		}
		text = text[plain+len(mark):]
	}
	return out
}

func (v *vocabulary) known(text string) bool { _, ok := v.ids[asBytes(text)]; return ok }

// asBytes is how a byte-level vocabulary spells text.
func asBytes(text string) string {
	var b strings.Builder
	for i := range len(text) {
		b.WriteRune(printable(int(text[i])))
	}
	return b.String()
}

// certain is the logit of the token that follows; all others have 0.
const certain = 40

// tensors are those of a Llama whose hidden state is one-hot.
func (v *vocabulary) tensors(s Spec) []Tensor {
	n := s.Width
	one := float32(math.Sqrt(float64(n))) // what the norm makes of it
	embedding, head := make([]float32, n*n), make([]float32, n*n)
	for id := range n {
		embedding[id*n+id] = one
		next, ok := v.next[id]
		if !ok {
			next = v.ids["<|im_end|>"] // nothing is said after any other token
		}
		head[next*n+id] = certain / one
	}
	ones, heads := slices.Repeat([]float32{1}, n), s.Heads*s.HeadDim
	matrix := func(name string, in, out int, values []float32) Tensor {
		if values == nil {
			values = make([]float32, in*out)
		}
		return Tensor{Name: name, Dims: []uint64{uint64(in), uint64(out)}, Type: F32, Data: Encode(F32, values)}
	}
	norm := func(name string) Tensor {
		return Tensor{Name: name, Dims: []uint64{uint64(n)}, Type: F32, Data: Encode(F32, ones)}
	}
	return []Tensor{
		matrix("token_embd.weight", n, n, embedding), norm("blk.0.attn_norm.weight"), norm("blk.0.ffn_norm.weight"),
		matrix("blk.0.attn_q.weight", n, heads, nil), matrix("blk.0.attn_k.weight", n, heads, nil),
		matrix("blk.0.attn_v.weight", n, heads, nil), matrix("blk.0.attn_output.weight", heads, n, nil),
		matrix("blk.0.ffn_gate.weight", n, s.FeedForward, nil), matrix("blk.0.ffn_up.weight", n, s.FeedForward, nil),
		matrix("blk.0.ffn_down.weight", s.FeedForward, n, nil),
		norm("output_norm.weight"), matrix("output.weight", n, n, head),
	}
}
