package gguf

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// maxContext bounds the rotary tables, which have a row for every position.
const maxContext = 1 << 20

// llama is a checked model: every tensor that the graph needs is there, has
// the shape that the metadata says, and none is left over.
type llama struct {
	f           *file
	layers      int
	context     int
	embd        int
	ff          int
	heads       int
	kvHeads     int
	headDim     int
	paired      int // rows of Q and K that the file stores as rotated pairs: a head
	vocab       int
	eps         float32
	ropeBase    float64
	ropeScale   float64 // positions are divided by this
	ropeFactors *tensor // nil: none
	tok         *tokenizer
	used        map[string]bool
}

// harmless are the keys below "llama." that the importer reads or may ignore.
// Any other could change what the model computes, so it is refused by name.
var harmless = []string{
	"vocab_size", "block_count", "context_length", "embedding_length", "feed_forward_length",
	"attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon",
	"attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base",
	"rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
	"rope.scaling.finetuned", "rope.scale_linear", "tensor_data_layout",
}

// newLlama checks metadata and tensors.
func newLlama(f *file) (*llama, error) {
	if a := f.meta.text("general.architecture"); a != "llama" {
		return nil, fmt.Errorf("%w: architecture %q; only llama is imported, use a folder built by the ONNX Runtime GenAI model builder",
			ErrUnsupported, a)
	}
	if n, ok := f.meta.count("split.count"); ok && n > 1 {
		return nil, fmt.Errorf("%w: the model is split over %d files; join them with llama-gguf-split --merge", ErrUnsupported, n)
	}
	m := &llama{f: f, used: map[string]bool{}}
	if err := m.refuseKeys(); err != nil {
		return nil, err
	}
	if err := m.refuseTypes(); err != nil {
		return nil, err
	}
	if err := m.readShape(); err != nil {
		return nil, err
	}
	if err := m.readRope(); err != nil {
		return nil, err
	}
	if err := m.checkTensors(); err != nil {
		return nil, err
	}
	tok, err := newTokenizer(f.meta, m.vocab)
	m.tok = tok
	return m, err
}

func (m *llama) refuseKeys() error {
	if n, _ := m.f.meta.count("llama.expert_count"); n > 0 {
		return fmt.Errorf("%w: mixture of %d experts; only dense Llama models are imported", ErrUnsupported, n)
	}
	for _, key := range m.f.meta.under("llama.") {
		short := strings.TrimPrefix(key, "llama.")
		n, isCount := m.f.meta.count(key)
		if slices.Contains(harmless, short) || isCount && n == 0 {
			continue // zero switches off what the key is about, such as a sliding window
		}
		return fmt.Errorf("%w: %s is set, and what it asks for is not implemented; build an ONNX folder with the ONNX Runtime GenAI model builder",
			ErrUnsupported, key)
	}
	return nil
}

func (m *llama) refuseTypes() error {
	for i := range m.f.tensors {
		t := &m.f.tensors[i]
		if strings.Contains(t.name, "_exps.") || strings.Contains(t.name, "ffn_gate_inp") {
			return fmt.Errorf("%w: tensor %s belongs to a mixture of experts; only dense Llama models are imported", ErrUnsupported, t.name)
		}
		if _, _, ok := t.typ.block(); !ok {
			return fmt.Errorf("%w: tensor %s is %s; convert the unquantised model with llama-quantize to Q4_0, Q4_1, Q8_0 or F16",
				ErrUnsupported, t.name, t.typ)
		}
	}
	return nil
}

// size reads a positive integer of the llama section that fits an int32.
func (m *llama) size(key string, into *int) error {
	n, ok := m.f.meta.count("llama." + key)
	if !ok || n == 0 || n > math.MaxInt32 {
		return fmt.Errorf("%w: llama.%s is %v", ErrInvalid, key, m.f.meta["llama."+key])
	}
	*into = int(n)
	return nil
}

func (m *llama) readShape() error {
	for key, into := range map[string]*int{
		"block_count": &m.layers, "context_length": &m.context, "embedding_length": &m.embd,
		"feed_forward_length": &m.ff, "attention.head_count": &m.heads,
	} {
		if err := m.size(key, into); err != nil {
			return err
		}
	}
	m.kvHeads = m.heads
	if _, ok := m.f.meta["llama.attention.head_count_kv"]; ok {
		if err := m.size("attention.head_count_kv", &m.kvHeads); err != nil {
			return err
		}
	}
	eps, ok := m.f.meta.float("llama.attention.layer_norm_rms_epsilon")
	if !ok || !(eps > 0) || eps > 1 {
		return fmt.Errorf("%w: llama.attention.layer_norm_rms_epsilon is %v", ErrInvalid, m.f.meta["llama.attention.layer_norm_rms_epsilon"])
	}
	m.eps = float32(eps)
	if m.context > maxContext {
		return fmt.Errorf("%w: a context of %d positions, the limit is %d", ErrUnsupported, m.context, maxContext)
	}
	if m.heads%m.kvHeads != 0 {
		return fmt.Errorf("%w: %d heads over %d key-value heads", ErrInvalid, m.heads, m.kvHeads)
	}
	if m.layers > len(m.f.tensors) {
		return fmt.Errorf("%w: %d layers but %d tensors", ErrInvalid, m.layers, len(m.f.tensors))
	}
	return m.readHeadDim()
}

func (m *llama) readHeadDim() error {
	m.headDim = m.embd / m.heads
	if _, ok := m.f.meta["llama.attention.key_length"]; ok {
		if err := m.size("attention.key_length", &m.headDim); err != nil {
			return err
		}
	} else if m.embd%m.heads != 0 {
		return fmt.Errorf("%w: width %d over %d heads", ErrInvalid, m.embd, m.heads)
	}
	if v, ok := m.f.meta.count("llama.attention.value_length"); ok && v != uint64(m.headDim) {
		return fmt.Errorf("%w: keys of %d and values of %d per head; they must be equal", ErrUnsupported, m.headDim, v)
	}
	// GroupQueryAttention with a rotary embedding says so itself, but only when
	// the first prompt runs: "head_size shall be a multiple of 16".
	if m.headDim == 0 || m.headDim%16 != 0 {
		return fmt.Errorf("%w: heads of %d; ONNX Runtime's attention takes multiples of 16", ErrUnsupported, m.headDim)
	}
	m.paired = m.headDim
	return nil
}

// checkTensors compares every tensor with the metadata.
func (m *llama) checkTensors() error {
	emb := m.f.byName["token_embd.weight"]
	if emb == nil || len(emb.dims) != 2 || emb.rows() > math.MaxInt32 {
		return fmt.Errorf("%w: token_embd.weight is missing or is no matrix", ErrInvalid)
	}
	m.vocab = emb.rows()
	q, kv := m.heads*m.headDim, m.kvHeads*m.headDim
	faults := []error{m.want("token_embd.weight", m.embd, m.vocab), m.want("output_norm.weight", m.embd)}
	if m.f.byName["output.weight"] != nil {
		faults = append(faults, m.want("output.weight", m.embd, m.vocab))
	}
	for l := range m.layers {
		p := fmt.Sprintf("blk.%d.", l)
		faults = append(faults,
			m.want(p+"attn_norm.weight", m.embd), m.want(p+"ffn_norm.weight", m.embd),
			m.linear(p+"attn_q", m.embd, q), m.linear(p+"attn_k", m.embd, kv), m.linear(p+"attn_v", m.embd, kv),
			m.linear(p+"attn_output", q, m.embd), m.linear(p+"ffn_gate", m.embd, m.ff),
			m.linear(p+"ffn_up", m.embd, m.ff), m.linear(p+"ffn_down", m.ff, m.embd))
		if i := slices.IndexFunc(faults, func(err error) bool { return err != nil }); i >= 0 {
			return faults[i]
		}
		faults = faults[:0]
	}
	for i := range m.f.tensors {
		if n := m.f.tensors[i].name; !m.used[n] {
			return fmt.Errorf("%w: tensor %s has no place in a Llama graph; leaving it out would change the model", ErrUnsupported, n)
		}
	}
	return nil
}

// linear checks a weight and its optional bias.
func (m *llama) linear(name string, in, out int) error {
	if m.f.byName[name+".bias"] != nil {
		if err := m.want(name+".bias", out); err != nil {
			return err
		}
	}
	return m.want(name+".weight", in, out)
}

// want checks that a tensor exists with these dimensions and marks it as used.
func (m *llama) want(name string, dims ...int) error {
	t := m.f.byName[name]
	if t == nil {
		return fmt.Errorf("%w: tensor %s is missing", ErrInvalid, name)
	}
	m.used[name] = true
	same := len(t.dims) == len(dims)
	for i := 0; same && i < len(dims); i++ {
		same = t.dims[i] == uint64(dims[i])
	}
	if !same {
		return fmt.Errorf("%w: tensor %s is %v, the metadata says %v", ErrInvalid, name, t.dims, dims)
	}
	if len(dims) == 1 && t.typ.quantised() {
		return fmt.Errorf("%w: tensor %s is a vector of type %s", ErrInvalid, name, t.typ)
	}
	return nil
}
