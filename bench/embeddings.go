package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
)

// pythonRuntime is the reference of the embeddings suite.
const pythonRuntime = "Python onnxruntime"

// embedScript is the reference's source.
const embedScript = "bench/embeddings.py"

// embedTotal is at least how many texts are embedded for a sample.
const embedTotal = 64

// Words of a text, so that a batch has texts of different lengths.
const (
	embedFewest = 10
	embedMost   = 60
)

// embedBatch is how many texts a request has. Texts of one length have the same
// words in another order, so that nothing is gained by who pads less.
type embedBatch struct {
	texts     int
	oneLength bool
}

var embedBatches = []embedBatch{{1, false}, {32, false}, {32, true}}

// of names the batch in a table.
func (b embedBatch) of(engine string) string {
	name := fmt.Sprintf("%s, batch %d", engine, b.texts)
	if b.oneLength {
		name += " of one length"
	}
	return name
}

// request makes the texts of one request.
func (b embedBatch) request(rng *rand.Rand) []string {
	texts := make([]string, b.texts)
	words := strings.Fields(story(rng, (embedFewest+embedMost)/2))
	for i := range texts {
		if b.oneLength {
			rng.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
			texts[i] = strings.Join(words, " ")
		} else {
			texts[i] = story(rng, embedFewest+rng.IntN(embedMost-embedFewest+1))
		}
	}
	return texts
}

// minLikeness is the cosine of two engines' vectors of one text, under which
// they do not run the same model.
const minLikeness = 0.98

// embedder makes embeddings and throws them away.
type embedder interface {
	embed(ctx context.Context, texts []string) error
	vector(ctx context.Context, text string) ([]float64, error)
}

// measureEmbeddings compares the embeddings route with the same model in Python.
func (p *plan) measureEmbeddings(ctx context.Context, s setting) (t *table, err error) {
	srv, err := startServer(ctx, serverConfig{
		program: p.infer, model: p.encoder, library: p.library, cache: p.cache, threads: s.Threads, spin: s.Spin,
	}, p.stderr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	spin := "0"
	if s.Spin {
		spin = "1"
	}
	py, err := startPiped(ctx, p.stderr, nil, p.python, filepath.Join(p.root, embedScript), p.encoder, fmt.Sprint(s.Threads), spin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, py.stop()) }()
	if err := sameModel(ctx, srv, py, story(p.rng, embedMost)); err != nil {
		return nil, err
	}
	t = &table{Suite: "embeddings", setting: s,
		Task:    fmt.Sprintf("%s; texts of %d to %d words, one request at a time", p.encoder, embedFewest, embedMost),
		Columns: []column{{"embeddings per CPU-second", "%.0f"}, {"embeddings per second", "%.0f"}}}
	var compared []comparedRows
	for _, b := range embedBatches {
		compared = append(compared, comparedRows{Name: b.of("infer / " + pythonRuntime), A: b.of(infer), B: b.of(pythonRuntime)})
	}
	err = p.collect(ctx, t, compared, func(ctx context.Context, round int, r *rounds) error {
		for _, b := range embedBatches {
			if err := p.takeEmbeddings(ctx, srv, py, b, round, r); err != nil {
				return fmt.Errorf("%s: %w", b.of("all"), err)
			}
		}
		return nil
	})
	return t, err
}

// takeEmbeddings measures requests of one kind of batch, the same for both.
func (p *plan) takeEmbeddings(ctx context.Context, srv *server, py *piped, b embedBatch, round int, r *rounds) error {
	requests := make([][]string, max(embedTotal/b.texts, 4))
	for i := range requests {
		requests[i] = b.request(p.rng)
	}
	for _, name := range turns([]string{infer, pythonRuntime}, round) {
		e, pid := embedder(srv), srv.cmd.Process.Pid
		if name == pythonRuntime {
			e, pid = py, py.cmd.Process.Pid
		}
		m, err := startMeter(pid)
		if err != nil {
			return err
		}
		for _, texts := range requests {
			if err := e.embed(ctx, texts); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		got, err := m.stop(len(requests) * b.texts)
		if err != nil {
			return err
		}
		r.add(b.of(name), got.perCPUSecond(), got.perSecond())
	}
	return nil
}

// sameModel is an error when a and b have different vectors for text.
func sameModel(ctx context.Context, a, b embedder, text string) error {
	va, err := a.vector(ctx, text)
	if err != nil {
		return err
	}
	vb, err := b.vector(ctx, text)
	if err != nil {
		return err
	}
	if like := cosine(va, vb); like < minLikeness || math.IsNaN(like) {
		return fmt.Errorf("the two engines' vectors of a text have a cosine of %.3f, want at least %.2f: they do not run the same model", like, minLikeness)
	}
	return nil
}

// cosine is not a number when the vectors have different lengths or none.
func cosine(a, b []float64) float64 {
	if len(a) != len(b) {
		return math.NaN()
	}
	var ab, aa, bb float64
	for i := range a {
		ab, aa, bb = ab+a[i]*b[i], aa+a[i]*a[i], bb+b[i]*b[i]
	}
	return ab / math.Sqrt(aa*bb)
}

func (p *piped) embed(_ context.Context, texts []string) error {
	_, err := p.order(order{Op: "embed", Texts: texts})
	return err
}

func (p *piped) vector(_ context.Context, text string) ([]float64, error) {
	r, err := p.order(order{Op: "vector", Texts: []string{text}})
	return r.Vector, err
}

// embed reads the whole answer, but leaves the numbers in it alone.
func (s *server) embed(ctx context.Context, texts []string) error {
	body, err := s.post(ctx, "/v1/embeddings", fields{"model": modelName, "input": texts})
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // only read from
	if _, err := io.Copy(io.Discard, body); err != nil {
		return fmt.Errorf("read embeddings: %w", err)
	}
	return nil
}

func (s *server) vector(ctx context.Context, text string) ([]float64, error) {
	body, err := s.post(ctx, "/v1/embeddings", fields{"model": modelName, "input": text})
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // only read from
	var answer struct {
		Data []struct {
			Embedding []float64 `json:"embedding"`
		} `json:"data"`
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("parse embedding: %w", err)
	}
	if len(answer.Data) != 1 {
		return nil, fmt.Errorf("%d embeddings of one text", len(answer.Data))
	}
	return answer.Data[0].Embedding, nil
}
