package onnx

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"infer/internal/engine"
	"infer/internal/engine/onnx/ort"
)

// model is a loaded graph with its KV cache: slots × context positions, one
// row of every layer's key and value buffer a slot. The same buffer is bound
// as past and as present, so the graph extends it in place. One goroutine uses
// a model.
type model struct {
	lib     *ort.Library
	sess    *ort.Session
	cfg     *genaiConfig
	slots   int
	context int // positions a slot
	kvType  ort.ElementType
	kv      []*ort.Buffer // key and value of layer 0, of layer 1, …
	rows    map[rowRange]*rowBinding

	ids, mask, pos *ort.Buffer // pos is nil when the graph wants none
	logits         *ort.Tensor // of the last run
	widened        []float32   // logits of a 16-bit graph as fp32
}

type rowRange struct{ first, n int }

// rowBinding ties rows of the KV cache to the graph, once.
type rowBinding struct {
	b     *ort.Binding
	views []*ort.Tensor
}

// kvBytesPerToken is what one position of one slot takes.
func (c *genaiConfig) kvBytesPerToken(t ort.ElementType) int64 {
	d := c.Model.Decoder
	return 2 * int64(d.Layers) * int64(d.KVHeads) * int64(d.HeadSize) * int64(t.Size())
}

// newModel loads the graph of dir and reserves its KV cache. Every error is a
// *engine.Failure.
func newModel(lib *ort.Library, dir string, gc *genaiConfig, cfg Config, on device) (_ *model, err error) {
	path := filepath.Join(dir, gc.Model.Decoder.Filename)
	sess, err := lib.NewSession(path, ort.SessionConfig{Threads: cfg.Threads, Spin: cfg.Spin, CUDA: on.cuda, Device: on.index,
		Entries: map[string]string{"session.use_device_allocator_for_initializers": "1"}})
	if err != nil {
		return nil, sessionFailure(path, err)
	}
	m := &model{lib: lib, sess: sess, cfg: gc, rows: map[rowRange]*rowBinding{}}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if err := m.checkGraph(); err != nil {
		return nil, invalidModel(err)
	}
	if err := m.size(cfg, on.cuda); err != nil {
		return nil, err
	}
	if err := m.allocate(); err != nil {
		return nil, &engine.Failure{Cause: engine.CauseOutOfMemoryAtStart, Err: err,
			Message: fmt.Sprintf("reserve the KV cache: %v", err),
			Remedy:  "lower --slots, --context or --kv-bytes"}
	}
	return m, nil
}

// checkGraph holds the graph against genai_config.json, by name.
func (m *model) checkGraph() error {
	d := &m.cfg.Model.Decoder
	in := func(name string) (ort.ValueInfo, bool) { return find(m.sess.Inputs(), name) }
	known := map[string]bool{d.Inputs.InputIDs: true, d.Inputs.AttentionMask: true, d.Inputs.PositionIDs: true}
	for _, name := range []string{d.Inputs.InputIDs, d.Inputs.AttentionMask} {
		if v, ok := in(name); !ok || v.Type != ort.Int64 {
			return fmt.Errorf("graph has no int64 input %q", name)
		}
	}
	if v, ok := find(m.sess.Outputs(), d.Outputs.Logits); !ok || !floats(v.Type) {
		return fmt.Errorf("graph has no floating-point output %q", d.Outputs.Logits)
	}
	for l := range d.Layers {
		for _, pair := range [][2]string{{d.Inputs.PastKey, d.Outputs.PresentKey}, {d.Inputs.PastValue, d.Outputs.PresentValue}} {
			past, present := fmt.Sprintf(pair[0], l), fmt.Sprintf(pair[1], l)
			v, ok := in(past)
			if !ok || !floats(v.Type) || len(v.Shape) != 4 {
				return fmt.Errorf("graph has no KV cache input %q of rank 4", past)
			}
			if v.Shape[1] > 0 && v.Shape[1] != int64(d.KVHeads) || v.Shape[3] > 0 && v.Shape[3] != int64(d.HeadSize) {
				return fmt.Errorf("input %q has shape %v, %s says %d heads of %d", past, v.Shape, configFile, d.KVHeads, d.HeadSize)
			}
			if m.kvType != 0 && v.Type != m.kvType {
				return fmt.Errorf("input %q differs in type from the layers before", past)
			}
			if _, ok := find(m.sess.Outputs(), present); !ok {
				return fmt.Errorf("graph has no output %q", present)
			}
			m.kvType, known[past] = v.Type, true
		}
	}
	for _, v := range m.sess.Inputs() {
		if !known[v.Name] {
			return fmt.Errorf("graph wants an input %q that is no part of the convention", v.Name)
		}
	}
	return nil
}

func floats(t ort.ElementType) bool { return t == ort.Float32 || t == ort.Float16 || t == ort.BFloat16 }

func find(list []ort.ValueInfo, name string) (ort.ValueInfo, bool) {
	i := slices.IndexFunc(list, func(v ort.ValueInfo) bool { return v.Name == name })
	if i < 0 {
		return ort.ValueInfo{}, false
	}
	return list[i], true
}

// size settles slots and context so that the KV cache stays in its bound.
func (m *model) size(cfg Config, cuda bool) error {
	m.context = m.cfg.Model.ContextLength
	if cfg.ContextTokens > m.context {
		return &engine.Failure{Cause: engine.CauseModelUnsupported,
			Message: fmt.Sprintf("--context %d is over the model's own %d", cfg.ContextTokens, m.context),
			Remedy:  "lower --context"}
	}
	if cfg.ContextTokens > 0 {
		m.context = cfg.ContextTokens
	}
	m.slots = cfg.Slots
	if m.slots == 0 {
		m.slots = defaultSlots(cuda)
	}
	bound := cfg.KVBytes
	if bound == 0 {
		bound = defaultKVBytes
	}
	perSlot := m.cfg.kvBytesPerToken(m.kvType) * int64(m.context)
	fit := bound / perSlot
	if cfg.Slots == 0 {
		m.slots = int(min(int64(m.slots), max(fit, 1)))
	}
	if int64(m.slots) > fit {
		return &engine.Failure{Cause: engine.CauseOutOfMemoryAtStart,
			Message: fmt.Sprintf("the KV cache takes %d bytes for each of %d slots of %d tokens, over the bound of %d in all", perSlot, m.slots, m.context, bound),
			Remedy:  "lower --slots or --context, or raise --kv-bytes"}
	}
	return nil
}

const defaultKVBytes = 2 << 30

func defaultSlots(cuda bool) int {
	if cuda {
		return 16
	}
	return 4
}

func (m *model) kvBytes() int64 {
	return m.cfg.kvBytesPerToken(m.kvType) * int64(m.context) * int64(m.slots)
}

func (m *model) allocate() (err error) {
	d := &m.cfg.Model.Decoder
	one := m.slots * d.KVHeads * m.context * d.HeadSize * m.kvType.Size()
	for range 2 * d.Layers {
		b, err := m.sess.NewBuffer(one)
		if err != nil {
			return err
		}
		m.kv = append(m.kv, b)
	}
	width := 8 * max(m.context, m.slots)
	if m.ids, err = m.sess.NewHostBuffer(width); err != nil {
		return err
	}
	if m.mask, err = m.sess.NewHostBuffer(8 * m.context * m.slots); err != nil {
		return err
	}
	if _, ok := find(m.sess.Inputs(), d.Inputs.PositionIDs); ok {
		m.pos, err = m.sess.NewHostBuffer(width)
	}
	return err
}

// bind returns the binding of rows first … first+n-1 of the cache.
func (m *model) bind(r rowRange) (*rowBinding, error) {
	if rb, ok := m.rows[r]; ok {
		return rb, nil
	}
	b, err := m.sess.NewBinding()
	if err != nil {
		return nil, err
	}
	rb := &rowBinding{b: b}
	m.rows[r] = rb
	d := &m.cfg.Model.Decoder
	if err := b.OutputToHost(d.Outputs.Logits); err != nil {
		return nil, err
	}
	row := d.KVHeads * m.context * d.HeadSize * m.kvType.Size()
	for i, buf := range m.kv {
		in, out := d.Inputs.PastKey, d.Outputs.PresentKey
		if i%2 == 1 {
			in, out = d.Inputs.PastValue, d.Outputs.PresentValue
		}
		t, err := buf.Tensor(m.kvType, r.first*row, int64(r.n), int64(d.KVHeads), int64(m.context), int64(d.HeadSize))
		if err != nil {
			return nil, err
		}
		rb.views = append(rb.views, t)
		if err := b.Input(fmt.Sprintf(in, i/2), t); err != nil {
			return nil, err
		}
		if err := b.Output(fmt.Sprintf(out, i/2), t); err != nil {
			return nil, err
		}
	}
	return rb, nil
}

// prefill extends slot, which holds pos tokens, by tokens, and returns the
// logits after the last of them. They are valid until the next run. When ctx
// ends, so does the run, with ctx's error.
func (m *model) prefill(ctx context.Context, slot int, tokens []int32, pos int) ([]float32, error) {
	ids, mask := m.ids.Int64s(), m.mask.Int64s()
	for i, t := range tokens {
		ids[i] = int64(t)
	}
	total := pos + len(tokens)
	for i := range total {
		mask[i] = 1
	}
	if m.pos != nil {
		p := m.pos.Int64s()
		for i := range tokens {
			p[i] = int64(pos + i)
		}
	}
	out, err := m.run(ctx, rowRange{slot, 1}, len(tokens), total)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// decode extends row i, which holds lengths[i] tokens, by tokens[i], for all
// rows from 0, and returns their logits, valid until the next run. A row
// without work may be given any token: what it writes lies behind its length.
// When ctx ends, so does the run, with ctx's error.
func (m *model) decode(ctx context.Context, tokens []int32, lengths []int) ([][]float32, error) {
	n := len(tokens)
	total := slices.Max(lengths) + 1
	ids, mask := m.ids.Int64s(), m.mask.Int64s()
	for i := range n {
		ids[i] = int64(tokens[i])
		if m.pos != nil {
			m.pos.Int64s()[i] = int64(lengths[i])
		}
		row := mask[i*total : (i+1)*total]
		for j := range row {
			row[j] = 0
			if j <= lengths[i] {
				row[j] = 1
			}
		}
	}
	return m.run(ctx, rowRange{0, n}, 1, total)
}

// run executes the graph over rows with seq new tokens each and a mask of
// total positions, and returns the last position's logits of each row.
func (m *model) run(ctx context.Context, r rowRange, seq, total int) ([][]float32, error) {
	m.dropLogits()
	rb, err := m.bind(r)
	if err != nil {
		return nil, fmt.Errorf("bind KV cache: %w", err)
	}
	free, err := m.bindInputs(rb.b, r.n, seq, total)
	defer free()
	if err != nil {
		return nil, fmt.Errorf("bind inputs: %w", err)
	}
	if err := m.sess.Run(ctx, rb.b); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	if m.logits, err = rb.b.Fetch(m.cfg.Model.Decoder.Outputs.Logits); err != nil {
		return nil, err
	}
	return m.lastRows(r.n)
}

func (m *model) bindInputs(b *ort.Binding, n, seq, total int) (free func(), err error) {
	d := &m.cfg.Model.Decoder
	inputs := []ort.Matrix{
		{Name: d.Inputs.InputIDs, Buffer: m.ids, Rows: n, Cols: seq},
		{Name: d.Inputs.AttentionMask, Buffer: m.mask, Rows: n, Cols: total},
	}
	if m.pos != nil {
		inputs = append(inputs, ort.Matrix{Name: d.Inputs.PositionIDs, Buffer: m.pos, Rows: n, Cols: seq})
	}
	free, err = b.Matrices(inputs...)
	return free, cmp.Or(err, b.OutputToHost(d.Outputs.Logits))
}

// lastRows cuts the logits, [rows, 1, vocabulary] or [rows, positions,
// vocabulary] as the graph likes, into one slice a row.
func (m *model) lastRows(n int) ([][]float32, error) {
	s := m.logits.Shape
	if len(s) != 3 || s[0] != int64(n) || s[1] < 1 || s[2] < 1 {
		return nil, fmt.Errorf("logits have shape %v for %d rows", s, n)
	}
	flat, err := m.logits.Floats(&m.widened)
	if err != nil {
		return nil, fmt.Errorf("logits: %w", err)
	}
	vocab := int(s[2])
	out := make([][]float32, n)
	for i := range out {
		last := (i+1)*int(s[1]) - 1
		out[i] = flat[last*vocab : (last+1)*vocab]
	}
	return out, nil
}

func (m *model) dropLogits() {
	if m.logits != nil {
		m.logits.Close()
		m.logits = nil
	}
}

// copy copies the first length positions of slot from to slot to. It reports
// false when the cache is not on the host.
func (m *model) copy(from, to, length int) bool {
	return m.pairs(from, to, length, func(a, b []byte) { copy(b, a) })
}

// swap exchanges the first length positions of two slots. It reports false
// when the cache is not on the host.
func (m *model) swap(a, b, length int) bool {
	var page [4096]byte
	return m.pairs(a, b, length, func(a, b []byte) {
		for len(a) > 0 {
			n := copy(page[:], a)
			copy(a[:n], b[:n])
			copy(b[:n], page[:n])
			a, b = a[n:], b[n:]
		}
	})
}

// pairs calls f for the memory of each head in two slots.
func (m *model) pairs(x, y, length int, f func(x, y []byte)) bool {
	d := &m.cfg.Model.Decoder
	head := m.context * d.HeadSize * m.kvType.Size()
	row := d.KVHeads * head
	used := length * d.HeadSize * m.kvType.Size()
	for _, buf := range m.kv {
		b := buf.Bytes()
		if b == nil {
			return false
		}
		for h := range d.KVHeads {
			f(b[x*row+h*head:][:used], b[y*row+h*head:][:used])
		}
	}
	return true
}

func (m *model) close() {
	m.dropLogits()
	for _, rb := range m.rows {
		rb.b.Close()
		for _, v := range rb.views {
			v.Close()
		}
	}
	for _, b := range append(m.kv, m.ids, m.mask, m.pos) {
		if b != nil {
			b.Close()
		}
	}
	m.sess.Close()
}

// device names where the model runs.
func (m *model) device() string {
	if m.kv[0].Bytes() == nil {
		return "cuda"
	}
	return "cpu"
}
