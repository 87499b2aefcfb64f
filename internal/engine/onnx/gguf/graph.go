package gguf

import (
	"fmt"
	"math"
	"strconv"
)

// builder writes the decoder graph and plans its weights. Nodes and values are
// named as the GenAI model builder names them.
type builder struct {
	*graph
	m        *llama
	o        Options
	w        *weights
	blockSum map[string]string // sums over blocks of 32, by the value summed
	deepDims string            // the shape [batch, positions, as many as are left]
}

func newBuilder(m *llama, o Options) *builder {
	return &builder{
		graph: &graph{known: map[string]bool{}}, m: m, o: o,
		w: &weights{f: m.f, half: o.Float16}, blockSum: map[string]string{},
	}
}

// build writes the whole graph; the weights are then planned, not yet written.
//
// The hidden state is two-dimensional, with a row for every position of every
// sequence, since Gemm takes nothing else; only attention and the choice of
// the last position see sequences.
func (b *builder) build() error {
	m := b.m
	b.declare()
	lengths, total := b.lengths()
	b.deepDims = b.positions()
	cos, sin, err := b.rotary()
	if err != nil {
		return err
	}
	head := b.embedding()
	x, rest := b.flat(head.rows, m.embd), ""
	for l := range m.layers {
		p := fmt.Sprintf("/model/layers.%d", l)
		t := fmt.Sprintf("blk.%d.", l)
		if x, rest, err = b.norm(p+"/input_layernorm", x, rest, t+"attn_norm.weight"); err != nil {
			return err
		}
		if x, err = b.attention(l, x, lengths, total, cos, sin); err != nil {
			return err
		}
		if l == m.layers-1 && !b.o.AllLogits {
			x = b.last(p+"/attn/last", x)
			rest = b.flat(b.last(p+"/residual/last", b.deep(rest)), m.embd)
		}
		x = b.flat(x, m.heads*m.headDim)
		if x, err = b.linear(p+"/attn/o_proj", x, "", source{t: b.tensor(t + "attn_output.weight")}); err != nil {
			return err
		}
		if x, rest, err = b.norm(p+"/post_attention_layernorm", x, rest, t+"ffn_norm.weight"); err != nil {
			return err
		}
		if x, err = b.mlp(p+"/mlp", t, x); err != nil {
			return err
		}
	}
	if x, _, err = b.norm(fmt.Sprintf("/model/layers.%d/final_norm_layernorm", m.layers), x, rest, "output_norm.weight"); err != nil {
		return err
	}
	b.head(head, x)
	return nil
}

// elem is the element type of activations and of floating point weights.
func (b *builder) elem() int {
	if b.o.Float16 {
		return elemHalf
	}
	return elemFloat
}

// inlineFloats adds a vector, given as fp32, as a small initializer.
func (b *builder) inlineFloats(name string, raw []byte) (string, error) {
	n := int64(len(raw) / 4)
	if b.o.Float16 {
		var err error
		if raw, err = narrow(raw); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return b.inline(name, b.elem(), []int64{n}, raw), nil
}

func (b *builder) tensor(name string) *tensor { return b.m.f.byName[name] }

// declare names the graph's inputs and outputs.
func (b *builder) declare() {
	m := b.m
	b.value(graphInput, "input_ids", elemInt64, "batch_size", "sequence_length")
	b.value(graphInput, "attention_mask", elemInt64, "batch_size", "total_sequence_length")
	var positions any = "sequence_length"
	if !b.o.AllLogits {
		positions = 1
	}
	b.value(graphOutput, "logits", elemFloat, "batch_size", positions, m.vocab)
	for l := range m.layers {
		for _, kind := range []string{"key", "value"} {
			b.value(graphInput, fmt.Sprintf("past_key_values.%d.%s", l, kind), b.elem(),
				"batch_size", m.kvHeads, "past_sequence_length", m.headDim)
			b.value(graphOutput, fmt.Sprintf("present.%d.%s", l, kind), b.elem(),
				"batch_size", m.kvHeads, "total_sequence_length", m.headDim)
		}
	}
}

// lengths derives what GroupQueryAttention wants to know from the mask: every
// row's length minus one, and the widest length.
func (b *builder) lengths() (perRow, total string) {
	const p = "/model/attn_mask_reformat/"
	sum := b.node(node{op: "ReduceSum", name: p + "ReduceSum",
		in: []string{"attention_mask", b.ints([]int64{1}, 1)}, ints: map[string]int{"keepdims": 0}})
	less := b.node(node{op: "Sub", name: p + "Sub", in: []string{sum, b.ints([]int64{1}, 1)}})
	perRow = b.node(node{op: "Cast", name: p + "Sub/Cast", in: []string{less}, ints: map[string]int{"to": elemInt32}})
	shape := b.node(node{op: "Shape", name: p + "Shape", in: []string{"attention_mask"}})
	width := b.node(node{op: "Gather", name: p + "Gather", in: []string{shape, b.ints(nil, 1)}, ints: map[string]int{"axis": 0}})
	return perRow, b.node(node{op: "Cast", name: p + "Gather/Cast", in: []string{width}, ints: map[string]int{"to": elemInt32}})
}

// positions is the shape of three-dimensional values: the batch and the number
// of new positions, then whatever is left.
func (b *builder) positions() string {
	const p = "/model/positions/"
	ids := b.node(node{op: "Shape", name: p + "Shape", in: []string{"input_ids"}})
	return b.node(node{op: "Concat", name: p + "Concat", in: []string{ids, b.ints([]int64{1}, -1)}, ints: map[string]int{"axis": 0}})
}

// flat makes rows of n numbers of x, deep takes them apart into sequences
// again. Both only rename the dimensions, in a fifth of a microsecond.
func (b *builder) flat(x string, n int) string {
	return b.node(node{op: "Reshape", name: x + "/flat/Reshape", in: []string{x, b.ints([]int64{2}, -1, int64(n))}})
}

func (b *builder) deep(x string) string {
	return b.node(node{op: "Reshape", name: x + "/deep/Reshape", in: []string{x, b.deepDims}})
}

func (b *builder) rotary() (cos, sin string, err error) {
	freqs, err := b.m.frequencies()
	if err != nil {
		return "", "", err
	}
	for _, table := range rotaryTables {
		r := b.w.floats(b.m.context, len(freqs))
		b.w.rotary(r, b.m.context, freqs, table.fn)
		b.external(table.name, b.elem(), []int64{int64(b.m.context), int64(len(freqs))},
			r.offset, int64(b.m.context)*int64(r.rowBytes))
	}
	return rotaryTables[0].name, rotaryTables[1].name, nil
}

// norm is the RMS norm of x, or of x plus the residual stream when there is
// one; the sum is returned as the new residual stream.
func (b *builder) norm(name, x, rest, weight string) (normed, sum string, err error) {
	raw, err := b.m.f.floatBytes(b.tensor(weight))
	if err != nil {
		return "", "", err
	}
	gamma, err := b.inlineFloats(name+"/weight", raw)
	if err != nil {
		return "", "", err
	}
	eps := map[string]float32{"epsilon": b.m.eps}
	if rest == "" {
		return b.node(node{op: "SimplifiedLayerNormalization", name: name + "/LayerNorm", in: []string{x, gamma},
			ints: map[string]int{"axis": -1, "stash_type": 1}, floats: eps}), x, nil
	}
	sum = name + "/output_3"
	return b.node(node{op: "SkipSimplifiedLayerNormalization", name: name + "/SkipLayerNorm",
		in: []string{rest, x, gamma}, out: []string{name + "/output_0", "", "", sum}, floats: eps}), sum, nil
}

// attention projects to queries, keys and values and attends. The three
// matrices become one when they have one type. The result is deep.
func (b *builder) attention(layer int, x, lengths, total, cos, sin string) (string, error) {
	m, t := b.m, fmt.Sprintf("blk.%d.", layer)
	p := fmt.Sprintf("/model/layers.%d/attn", layer)
	q := source{b.tensor(t + "attn_q.weight"), m.paired}
	k := source{b.tensor(t + "attn_k.weight"), m.paired}
	v := source{t: b.tensor(t + "attn_v.weight")}
	var in [3]string
	var err error
	if q.t.typ == k.t.typ && k.t.typ == v.t.typ {
		in[0], err = b.linear(p+"/qkv_proj", x, "", q, k, v)
	} else {
		for i, s := range []source{q, k, v} {
			if in[i], err = b.linear(p+[]string{"/q_proj", "/k_proj", "/v_proj"}[i], x, "", s); err != nil {
				break
			}
		}
	}
	if err != nil {
		return "", err
	}
	for i := range in {
		if in[i] != "" {
			in[i] = b.deep(in[i])
		}
	}
	n := strconv.Itoa(layer)
	name := p + "/GroupQueryAttention"
	return b.node(node{
		op: "GroupQueryAttention", name: name,
		in: []string{in[0], in[1], in[2], "past_key_values." + n + ".key", "past_key_values." + n + ".value",
			lengths, total, cos, sin},
		out:    []string{name + "/output_0", "present." + n + ".key", "present." + n + ".value"},
		ints:   map[string]int{"num_heads": m.heads, "kv_num_heads": m.kvHeads, "do_rotary": 1, "rotary_interleaved": 0},
		floats: map[string]float32{"scale": float32(1 / math.Sqrt(float64(m.headDim)))},
	}), nil
}

// last keeps the last position of every sequence of a deep x. It stands before
// the last layer's feed-forward part, so that a prompt pays for one position
// only.
func (b *builder) last(name, x string) string {
	return b.node(node{op: "Slice", name: name + "/Slice", in: []string{
		x, b.ints([]int64{1}, -1), b.ints([]int64{1}, math.MaxInt64), b.ints([]int64{1}, 1),
	}})
}

// mlp is SwiGLU: down(silu(gate(x)) * up(x)).
func (b *builder) mlp(p, t, x string) (string, error) {
	gate, err := b.linear(p+"/gate_proj", x, "", source{t: b.tensor(t + "ffn_gate.weight")})
	if err != nil {
		return "", err
	}
	up, err := b.linear(p+"/up_proj", x, "", source{t: b.tensor(t + "ffn_up.weight")})
	if err != nil {
		return "", err
	}
	// x * sigmoid(1 * x): ONNX Runtime makes the same of Sigmoid and Mul.
	act := b.node(node{op: "QuickGelu", name: p + "/act_fn/QuickGelu", in: []string{gate}, floats: map[string]float32{"alpha": 1}})
	mul := b.node(node{op: "Mul", name: p + "/Mul", in: []string{act, up}})
	return b.linear(p+"/down_proj", mul, "", source{t: b.tensor(t + "ffn_down.weight")})
}
