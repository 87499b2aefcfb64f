package gguf

// matrix is a weight that has its place in the weights file.
type matrix struct {
	typ     tensorType
	in, out int
	regions []region
	table   string // initializer with the integers or floats, as a 2-D table; may be empty
	scales  string
	offsets string // m+8d of Q4_1
	rows    string // of an embedding: the looked-up rows
}

// place plans stacked tensors of one type as the parts that their operator
// takes: fp32 [out, in], or integers, scales [out, in/32] and offsets.
func (b *builder) place(name string, srcs ...source) matrix {
	w := matrix{typ: srcs[0].t.typ, in: srcs[0].t.cols()}
	for _, s := range srcs {
		w.out += s.t.rows()
	}
	if !w.typ.quantised() {
		w.regions = []region{b.w.floats(w.out, w.in)}
		b.w.add(decoderOf(w.typ), w.regions, srcs...)
		return w
	}
	blocks := w.in / blockLen
	w.regions = []region{b.w.reserve(w.out, blocks*w.blob()), b.w.floats(w.out, blocks)}
	dims := []int64{int64(w.out), int64(blocks)}
	w.scales = b.outer(name+".scales", b.elem(), dims, w, 1)
	if w.typ == typeQ4_1 {
		w.regions = append(w.regions, b.w.floats(w.out, blocks))
		w.offsets = b.outer(name+".offsets", b.elem(), dims, w, 2)
	}
	b.w.add(encoderOf(w.typ), w.regions, srcs...)
	return w
}

// bits is the width of the integers, blob the bytes of a block of them.
func (w matrix) bits() int {
	if w.typ == typeQ8_0 {
		return 8
	}
	return 4
}

func (w matrix) blob() int { return blockLen * w.bits() / 8 }

// outer declares region i of w as an initializer.
func (b *builder) outer(name string, elem int, dims []int64, w matrix, i int) string {
	r := w.regions[i]
	return b.external(name, elem, dims, r.offset, int64(w.out)*int64(r.rowBytes))
}

// linear places the stacked tensors and multiplies x by them. out names the
// result; when it is empty the name follows from the node's.
func (b *builder) linear(name, x, out string, srcs ...source) (string, error) {
	w := b.place(name+".weight", srcs...)
	bias, err := b.bias(name, srcs)
	if err != nil {
		return "", err
	}
	if bias == "" {
		return b.multiply(name, x, out, w), nil
	}
	y := b.multiply(name, x, "", w)
	return b.node(node{op: "Add", name: name + "/Add", in: []string{y, bias}, out: named(out)}), nil
}

// named is the output list of a node whose only output has this name.
func named(out string) []string {
	if out == "" {
		return nil
	}
	return []string{out}
}

// multiply is x, which has two dimensions, times the transpose of w. Without
// offsets x may have more.
func (b *builder) multiply(name, x, out string, w matrix) string {
	if !w.typ.quantised() {
		if w.table == "" {
			w.table = b.outer(name+".weight", b.elem(), []int64{int64(w.out), int64(w.in)}, w, 0)
		}
		// The transposed product takes GGUF's row order as it is, which lets
		// the rows stream through and a tied table be stored once.
		return b.node(node{op: "FusedMatMul", name: name + "/MatMul", in: []string{x, w.table}, out: named(out), ints: map[string]int{"transB": 1}})
	}
	ints := b.outer(name+".weight.blocks", elemUint8, []int64{int64(w.out), int64(w.in / blockLen), int64(w.blob())}, w, 0)
	n := node{
		op: "MatMulNBits", name: name + "/MatMulNBits", in: []string{x, ints, w.scales}, out: named(out),
		ints: map[string]int{"K": w.in, "N": w.out, "bits": w.bits(), "block_size": blockLen, "accuracy_level": b.o.AccuracyLevel},
	}
	if w.offsets == "" {
		return b.node(n)
	}
	n.out = nil
	y := b.node(n)
	// One Gemm instead of FusedMatMul and Add, which passes over the result
	// once less. On a busy machine five paired runs of SmolLM2 put the gain of
	// one stream between -2 and 10 %, of four between -2 and 4 %; prompts do not
	// change. What is left of the correction is mostly the reading of its fp32
	// matrices: 13 of about 140 MB a token.
	return b.node(node{op: "Gemm", name: name + "/offset/Gemm", in: []string{b.sums(x, w.in), w.offsets, y},
		out: named(out), ints: map[string]int{"transB": 1}})
}

// sums adds up every block of 32 of x, once for all that multiply by it.
func (b *builder) sums(x string, width int) string {
	if s, ok := b.blockSum[x]; ok {
		return s
	}
	blocks := b.node(node{op: "Reshape", name: x + "/blocks/Reshape",
		in: []string{x, b.ints([]int64{3}, 0, int64(width/blockLen), blockLen)}})
	b.blockSum[x] = b.node(node{op: "ReduceSum", name: x + "/blocks/ReduceSum",
		in: []string{blocks, b.ints([]int64{1}, -1)}, ints: map[string]int{"keepdims": 0}})
	return b.blockSum[x]
}

// bias stacks the optional biases as the weights are stacked; a matrix of the
// stack that has none gets zeros.
func (b *builder) bias(name string, srcs []source) (string, error) {
	var raw []byte
	found := false
	for _, s := range srcs {
		n := s.t.rows()
		t := b.tensor(s.t.name[:len(s.t.name)-len("weight")] + "bias")
		if t == nil {
			raw = append(raw, make([]byte, 4*n)...)
			continue
		}
		found = true
		values, err := b.m.f.floatBytes(t)
		if err != nil {
			return "", err
		}
		for i := range n {
			raw = append(raw, values[4*s.order(i):4*s.order(i)+4]...)
		}
	}
	if !found {
		return "", nil
	}
	return b.inlineFloats(name+".bias", raw)
}

// embedding looks the tokens up in token_embd.weight. The table stays
// quantised; what it returns can serve as the output head too.
func (b *builder) embedding() matrix {
	const p = "/model/embed_tokens"
	w := b.place(p+".weight", source{t: b.tensor("token_embd.weight")})
	if !w.typ.quantised() {
		w.table = b.outer(p+".weight", b.elem(), []int64{int64(w.out), int64(w.in)}, w, 0)
		w.rows = b.node(node{op: "Gather", name: p + "/Gather", in: []string{w.table, "input_ids"}, ints: map[string]int{"axis": 0}})
		return w
	}
	// For uint8 tables the default zero point is 2^(bits-1), as in MatMulNBits.
	table := b.outer(p+".weight", elemUint8, []int64{int64(w.out), int64(w.in * w.bits() / 8)}, w, 0)
	w.rows = b.node(node{
		op: "GatherBlockQuantized", name: p + "/GatherBlockQuantized", in: []string{table, "input_ids", w.scales},
		ints: map[string]int{"bits": w.bits(), "block_size": blockLen, "gather_axis": 0, "quantize_axis": 1},
	})
	if w.offsets != "" {
		w.rows = b.shift(p, w)
	}
	return w
}

// shift adds Q4_1's offset to every block of the looked-up rows.
func (b *builder) shift(p string, w matrix) string {
	blocks := int64(w.in / blockLen)
	off := b.node(node{op: "Gather", name: p + "/offset/Gather", in: []string{w.offsets, "input_ids"}, ints: map[string]int{"axis": 0}})
	off = b.node(node{op: "Unsqueeze", name: p + "/offset/Unsqueeze", in: []string{off, b.ints([]int64{1}, 3)}})
	x := b.node(node{op: "Reshape", name: p + "/blocks/Reshape", in: []string{w.rows, b.ints([]int64{4}, 0, 0, blocks, blockLen)}})
	x = b.node(node{op: "Add", name: p + "/offset/Add", in: []string{x, off}})
	return b.node(node{op: "Reshape", name: p + "/Reshape", in: []string{x, b.ints([]int64{3}, 0, 0, int64(w.in))}})
}

// head multiplies by output.weight, or by the embedding when the two are tied:
// then its integers are declared a second time, in the other operator's shape
// and at the same place of the file.
//
// The logits of an fp16 graph are widened there: a GPU does that for nothing,
// and the host would need a millisecond for every ten rows.
func (b *builder) head(w matrix, x string) {
	const p = "/lm_head"
	if t := b.tensor("output.weight"); t != nil {
		w = b.place(p+".weight", source{t: t})
	}
	dims := b.deepDims
	if !b.o.AllLogits {
		dims = b.ints([]int64{3}, 0, 1, -1)
	}
	deep := func(x, out string) string {
		return b.node(node{op: "Reshape", name: p + "/deep/Reshape", in: []string{x, dims}, out: named(out)})
	}
	out := "logits"
	if b.o.Float16 {
		out = ""
	}
	var y string
	if w.offsets != "" {
		y = deep(b.multiply(p, x, "", w), out)
	} else { // the smaller side: a Reshape that makes an output of the graph copies
		y = b.multiply(p, deep(x, ""), out, w)
	}
	if b.o.Float16 {
		b.node(node{op: "Cast", name: p + "/Cast", in: []string{y}, out: []string{"logits"}, ints: map[string]int{"to": elemFloat}})
	}
}
