// Package encoder runs an encoder model on ONNX Runtime: sentence embeddings,
// and classifiers of one text or of a pair.
//
// A model is a folder as sentence-transformers and Hugging Face Optimum write
// it: model.onnx (or onnx/model.onnx), a WordPiece tokenizer, and the JSON
// files that say how token vectors become one; see settings for what is read
// and assumed.
//
// One goroutine owns the session. Texts that wait while it runs are batched by
// similar length, across requests, and requests take turns: one with a
// thousand texts delays another by a batch, not by itself. Nothing ever waits
// for company.
package encoder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"infer/internal/engine/onnx/ort"
	"infer/internal/engine/onnx/tokenizer"
)

// The typed ends of this package's calls.
var (
	// ErrInvalid is returned by Open for a folder that is damaged or incomplete.
	ErrInvalid = errors.New("model is damaged or incomplete")
	// ErrUnsupported is returned by Open for a model that this package does not
	// implement.
	ErrUnsupported = errors.New("model is not supported")
	// ErrBusy is returned when more work waits than Config allows.
	ErrBusy = errors.New("too much work waits for the encoder")
	// ErrStopped is returned once Run has ended.
	ErrStopped = errors.New("encoder is stopping")
)

// NotFiniteError is returned by Vectors for inputs of which one makes the model
// compute what no client can use.
type NotFiniteError struct{ Input int }

// Error implements error.
func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("input %d makes the model compute a value that is no finite number", e.Input)
}

// Config says which model runs, and bounds what it takes.
type Config struct {
	Dir     string
	Threads int  // intra-op threads; 0 lets the library choose
	Spin    bool // idle threads spin for work
	CUDA    bool
	Device  int // which of the visible GPUs, for CUDA
	// BatchTokens bounds a batch, padding included; 0 means 2048 on the CPU,
	// where more gains nothing and delays others, and 32768 on CUDA.
	BatchTokens int
	// QueueTokens bounds what waits; 0 means 1048576.
	QueueTokens int
}

// Encoder is a loaded model. Any goroutine may use it while Run runs.
type Encoder struct {
	settings
	tok   *tokenizer.WordPiece
	graph *graph
	log   *slog.Logger
	batch int // tokens
	dims  int
	vocab int

	mu      sync.Mutex
	queue   queue
	stopped bool
	wake    chan struct{}
}

// Open loads a model and runs it once. Its errors wrap ErrInvalid,
// ErrUnsupported or an error of package ort. The caller calls Run, or Close.
func Open(lib *ort.Library, cfg Config, log *slog.Logger) (*Encoder, error) {
	s, err := readSettings(cfg.Dir)
	if err != nil {
		return nil, err
	}
	e := &Encoder{settings: *s, log: log, batch: cfg.BatchTokens, wake: make(chan struct{}, 1)}
	if e.tok, err = tokenizer.LoadWordPiece(cfg.Dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	e.queue.limit = cfg.QueueTokens
	if e.queue.limit == 0 {
		e.queue.limit = 1 << 20
	}
	if e.batch == 0 {
		e.batch = 2048
		if cfg.CUDA {
			e.batch = 32768
		}
	}
	e.batch = max(e.batch, s.maxTokens)
	e.vocab = e.tok.VocabSize()
	if s.vocab > 0 {
		e.vocab = min(e.vocab, s.vocab)
	}
	if e.graph, err = openGraph(lib, filepath.Join(cfg.Dir, s.graph), cfg, s, e.batch); err != nil {
		return nil, err
	}
	if err := e.warm(); err != nil {
		e.graph.close()
		return nil, fmt.Errorf("%w: first inference: %w", ErrInvalid, err)
	}
	return e, nil
}

// warm runs the shortest input, which also tells the size of what comes out.
func (e *Encoder) warm() error {
	out, err := e.graph.run(context.Background(), []tokenizer.Framed{e.tok.Frame(nil)})
	if err != nil {
		return err
	}
	if out[0] == nil {
		return &NotFiniteError{}
	}
	e.dims = len(out[0])
	if e.labels != nil && len(e.labels) != e.dims {
		return fmt.Errorf("the graph has %d classes, config.json names %d", e.dims, len(e.labels))
	}
	return nil
}

// Close frees the model of an Encoder whose Run was never called.
func (e *Encoder) Close() { e.graph.close() }

// usualTokens is the length of a text that requests are counted by.
const usualTokens = 128

// Capacity is how many requests with a text of usual length fill one batch.
func (e *Encoder) Capacity() int { return max(e.batch/usualTokens, 1) }

// MaxTokens is how many tokens one input may have, special ones included.
func (e *Encoder) MaxTokens() int { return e.maxTokens }

// VocabSize is the highest token id that the model knows, plus one.
func (e *Encoder) VocabSize() int { return e.vocab }

// Dimensions is the length of what Vectors returns for each input.
func (e *Encoder) Dimensions() int { return e.dims }

// Labels names the classes of a classifier; it is nil for a model of
// embeddings.
func (e *Encoder) Labels() []string { return e.labels }

// Tokens returns the ids of a text, without special tokens.
func (e *Encoder) Tokens(text string) []int32 { return e.tok.Encode(text) }

// Prompt is what the model's authors put before every text, often nothing.
func (e *Encoder) Prompt() string { return e.prompt }

// Frame puts the special tokens around a text that was cut to make the whole
// at most limit tokens long; 0 is no limit.
func (e *Encoder) Frame(a []int32, limit int) tokenizer.Framed {
	if single, _ := e.tok.Overhead(); limit > 0 {
		a = a[:min(len(a), max(limit-single, 0))]
	}
	return e.tok.Frame(a)
}

// FramePair is Frame for two texts, the longer of which is cut first.
func (e *Encoder) FramePair(a, b []int32, limit int) tokenizer.Framed {
	if _, pair := e.tok.Overhead(); limit > 0 {
		a, b = tokenizer.TruncatePair(a, b, limit-pair)
	}
	return e.tok.FramePair(a, b)
}

// Vectors runs inputs, each of 1 to MaxTokens ids below VocabSize, and returns
// an embedding of each, or its logits when the model is a classifier. When ctx
// ends, what has not run is dropped.
func (e *Encoder) Vectors(ctx context.Context, inputs []tokenizer.Framed) ([][]float32, error) {
	if len(inputs) == 0 {
		return nil, nil
	}
	for i, in := range inputs {
		if len(in.IDs) == 0 || len(in.IDs) > e.maxTokens || len(in.Types) != len(in.IDs) {
			return nil, fmt.Errorf("input %d has %d tokens, must have 1 to %d", i, len(in.IDs), e.maxTokens)
		}
	}
	c := newCall(ctx, inputs)
	if err := e.submit(c); err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return c.out, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
