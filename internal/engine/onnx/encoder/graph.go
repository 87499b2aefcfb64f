package encoder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"infer/internal/engine/onnx/ort"
	"infer/internal/engine/onnx/tokenizer"
)

// The names that exporters give a graph's inputs, and what comes out.
const (
	inputIDs   = "input_ids"
	inputMask  = "attention_mask"
	inputTypes = "token_type_ids"
	logits     = "logits"
)

// pooled are outputs of one vector a text, tokenwise those of one a token.
var (
	pooled    = []string{"sentence_embedding"}
	tokenwise = []string{"last_hidden_state", "token_embeddings"}
)

// graph is a loaded graph with the memory of its inputs. One goroutine uses it.
type graph struct {
	sess    *ort.Session
	binding *ort.Binding
	set     *settings
	output  string
	pool    pooler // nil when the graph gives one vector a text
	inputs  []ort.Matrix
	widened []float32
}

func openGraph(lib *ort.Library, path string, cfg Config, s *settings, tokens int) (_ *graph, err error) {
	sess, err := lib.NewSession(path, ort.SessionConfig{Threads: cfg.Threads, Spin: cfg.Spin, CUDA: cfg.CUDA, Device: cfg.Device})
	if errors.Is(err, ort.ErrNoCUDA) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: load %s: %w", ErrInvalid, path, err)
	}
	g := &graph{sess: sess, set: s}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if err := g.choose(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnsupported, path, err)
	}
	if g.binding, err = sess.NewBinding(); err != nil {
		return nil, err
	}
	for _, v := range sess.Inputs() {
		b, err := sess.NewHostBuffer(8 * tokens)
		if err != nil {
			return nil, err
		}
		g.inputs = append(g.inputs, ort.Matrix{Name: v.Name, Buffer: b})
	}
	return g, nil
}

// choose finds the output to use and checks the inputs.
func (g *graph) choose() error {
	for _, v := range g.sess.Inputs() {
		if !slices.Contains([]string{inputIDs, inputMask, inputTypes}, v.Name) {
			return fmt.Errorf("the graph wants an input %q; only %s, %s and %s are known", v.Name, inputIDs, inputMask, inputTypes)
		}
		if v.Type != ort.Int64 {
			return fmt.Errorf("the graph's input %q is not int64", v.Name)
		}
	}
	if !slices.ContainsFunc(g.sess.Inputs(), func(v ort.ValueInfo) bool { return v.Name == inputIDs }) {
		return fmt.Errorf("the graph has no input %q", inputIDs)
	}
	names := slices.Concat(pooled, tokenwise)
	if g.set.labels != nil {
		names = []string{logits}
	}
	for _, name := range names {
		if slices.ContainsFunc(g.sess.Outputs(), func(v ort.ValueInfo) bool { return v.Name == name }) {
			g.output = name
			break
		}
	}
	switch {
	case g.output == "":
		return fmt.Errorf("the graph has none of the outputs %q", names)
	case slices.Contains(tokenwise, g.output):
		g.pool = poolers[g.set.pooling]
	}
	return nil
}

// run executes the graph over a batch and returns a vector of each text, nil
// where it is not finite. When ctx ends, so does the run, with ctx's error.
func (g *graph) run(ctx context.Context, texts []tokenizer.Framed) ([][]float32, error) {
	width := 0
	for _, t := range texts {
		width = max(width, len(t.IDs))
	}
	free, err := g.bind(texts, width)
	defer free()
	if err != nil {
		return nil, fmt.Errorf("bind inputs: %w", err)
	}
	if err := g.sess.Run(ctx, g.binding); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	out, err := g.binding.Fetch(g.output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	return g.vectors(out, texts, width)
}

// bind fills and binds the inputs, padded on the right to width.
func (g *graph) bind(texts []tokenizer.Framed, width int) (free func(), err error) {
	for i := range g.inputs {
		in := &g.inputs[i]
		in.Rows, in.Cols = len(texts), width
		data := in.Buffer.Int64s()
		for row, t := range texts {
			fill(data[row*width:][:width], in.Name, t, g.set.pad)
		}
	}
	free, err = g.binding.Matrices(g.inputs...)
	return free, cmp.Or(err, g.binding.OutputToHost(g.output))
}

// fill writes one row of one input.
func fill(row []int64, name string, t tokenizer.Framed, pad int64) {
	clear(row)
	for i := range row {
		switch {
		case i >= len(t.IDs):
			if name == inputIDs {
				row[i] = pad
			}
		case name == inputIDs:
			row[i] = int64(t.IDs[i])
		case name == inputMask:
			row[i] = 1
		default:
			row[i] = int64(t.Types[i])
		}
	}
}

// vectors reads the output: [texts, dims], or [texts, width, dims] to pool.
func (g *graph) vectors(out *ort.Tensor, texts []tokenizer.Framed, width int) ([][]float32, error) {
	flat, err := out.Floats(&g.widened)
	if err != nil {
		return nil, fmt.Errorf("output %q: %w", g.output, err)
	}
	want := []int64{int64(len(texts))}
	if g.pool != nil {
		want = append(want, int64(width))
	}
	if n := len(want); len(out.Shape) != n+1 || !slices.Equal(out.Shape[:n], want) || out.Shape[n] < 1 {
		return nil, fmt.Errorf("output %q has shape %v where %v and a size are wanted", g.output, out.Shape, want)
	}
	dims := int(out.Shape[len(out.Shape)-1])
	list := make([][]float32, len(texts))
	for i, t := range texts {
		if g.pool == nil {
			list[i] = slices.Clone(flat[i*dims:][:dims])
		} else {
			list[i] = g.pool(flat[i*width*dims:][:len(t.IDs)*dims], dims)
		}
		list[i] = g.set.finish(list[i])
	}
	return list, nil
}

func (g *graph) close() {
	if g.binding != nil {
		g.binding.Close()
	}
	for _, in := range g.inputs {
		in.Buffer.Close()
	}
	g.sess.Close()
}
