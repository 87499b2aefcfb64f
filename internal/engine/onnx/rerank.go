package onnx

import (
	"cmp"
	"crypto/rand"
	"encoding/json/v2"
	"math"
	"net/http"
	"slices"
	"time"

	"infer/internal/engine/onnx/encoder"
	"infer/internal/engine/onnx/tokenizer"
	"infer/internal/openai"
)

// listed is a list in an answer of vLLM's routes.
type listed struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"`
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Data    any          `json:"data"`
	Usage   encoderUsage `json:"usage"`
}

func newList(prefix, model string, data any, u encoderUsage) listed {
	return listed{ID: prefix + rand.Text(), Object: "list", Created: time.Now().Unix(), Model: model, Data: data, Usage: u}
}

type document struct {
	Text string `json:"text"`
}

type ranked struct {
	Index    int       `json:"index"`
	Score    float64   `json:"relevance_score"`
	Document *document `json:"document,omitzero"`
}

// rerank answers /v1/rerank as Cohere and Jina do.
func (m *embedder) rerank(f fields, model string, r *http.Request) (any, *openai.Error) {
	query, fault := f.text("query")
	if fault != nil {
		return nil, fault
	}
	docs, fault := f.documents()
	if fault != nil {
		return nil, fault
	}
	top, fault := f.integer("top_n", len(docs), 1, math.MaxInt32)
	if fault != nil {
		return nil, fault
	}
	withText, fault := take(f, "return_documents", false, "true or false")
	if fault != nil {
		return nil, fault
	}
	limit, fault := m.truncation(f)
	if fault == nil {
		fault = f.rest()
	}
	if fault != nil {
		return nil, fault
	}
	scores, u, fault := m.relevance(r, pairs{"query", "documents", []string{query}, docs, limit})
	if scores == nil {
		return nil, fault
	}
	results := make([]ranked, len(docs))
	for i, s := range scores {
		results[i] = ranked{Index: i, Score: s}
		if withText {
			results[i].Document = &document{docs[i]}
		}
	}
	slices.SortStableFunc(results, func(a, b ranked) int { return cmp.Compare(b.Score, a.Score) })
	return struct {
		ID      string       `json:"id"`
		Model   string       `json:"model"`
		Usage   encoderUsage `json:"usage"`
		Results []ranked     `json:"results"`
	}{"rerank-" + rand.Text(), model, u, results[:min(top, len(results))]}, nil
}

// text takes a required string that is not empty.
func (f fields) text(name string) (string, *openai.Error) {
	if _, ok := f[name]; !ok {
		return "", openai.Invalid(name, openai.CodeMissingField, "%s is required: a string", name)
	}
	s, fault := take(f, name, "", "a string")
	if fault == nil {
		fault = checkTexts(name, []string{s})
	}
	return s, fault
}

// documents takes strings and objects with a text, also mixed.
func (f fields) documents() ([]string, *openai.Error) {
	const want = "documents must be a list of strings or of objects with a text"
	raw, ok := f["documents"]
	if !ok {
		return nil, openai.Invalid("documents", openai.CodeMissingField, "documents is required: a list of strings or of objects with a text")
	}
	delete(f, "documents")
	var list []any
	if json.Unmarshal(raw, &list) != nil {
		return nil, openai.Invalid("documents", openai.CodeInvalidValue, want)
	}
	texts := make([]string, len(list))
	for i, d := range list {
		if object, ok := d.(map[string]any); ok {
			d = object["text"]
		}
		if texts[i], ok = d.(string); !ok {
			return nil, openai.Invalid(at("documents", i, len(list)), openai.CodeInvalidValue, want)
		}
	}
	return texts, checkTexts("documents", texts)
}

type scored struct {
	Index  int     `json:"index"`
	Object string  `json:"object"`
	Score  float64 `json:"score"`
}

// scores answers /v1/score as vLLM does: text_1 with each text of text_2, or
// two lists of one length pair by pair.
func (m *embedder) scores(f fields, model string, r *http.Request) (any, *openai.Error) {
	first, fault := f.texts("text_1")
	if fault != nil {
		return nil, fault
	}
	second, fault := f.texts("text_2")
	if fault != nil {
		return nil, fault
	}
	if len(first) != 1 && len(first) != len(second) {
		return nil, openai.Invalid("text_1", openai.CodeInvalidValue, "text_1 has %d texts and text_2 has %d; give one text_1, or as many as text_2", len(first), len(second))
	}
	limit, fault := m.truncation(f)
	if fault == nil {
		fault = f.rest()
	}
	if fault != nil {
		return nil, fault
	}
	values, u, fault := m.relevance(r, pairs{"text_1", "text_2", first, second, limit})
	if values == nil {
		return nil, fault
	}
	data := make([]scored, len(values))
	for i, s := range values {
		data[i] = scored{Index: i, Object: "score", Score: s}
	}
	return newList("score-", model, data, u), nil
}

// texts takes a required string or list of strings, none of them empty.
func (f fields) texts(name string) ([]string, *openai.Error) {
	raw, ok := f[name]
	if !ok {
		return nil, openai.Invalid(name, openai.CodeMissingField, "%s is required: a string or a list of strings", name)
	}
	if raw.Kind() == '"' {
		f[name] = append(append([]byte{'['}, raw...), ']')
	}
	list, fault := take[[]string](f, name, nil, "a string or a list of strings")
	if fault == nil {
		fault = checkTexts(name, list)
	}
	return list, fault
}

// pairs are one a with every b, or as many of both, and the fields that they
// came from.
type pairs struct {
	nameA, nameB string
	as, bs       []string
	limit        int // to cut long texts at, or 0
}

// name names the inputs of a and then of b.
func (p pairs) name(i int) string {
	if i < len(p.as) {
		return at(p.nameA, i, len(p.as))
	}
	return at(p.nameB, i-len(p.as), len(p.bs))
}

// relevance scores pairs. A cross-encoder reads both texts together;
// embeddings are compared by the cosine of their angle.
func (m *embedder) relevance(r *http.Request, p pairs) ([]float64, encoderUsage, *openai.Error) {
	if m.Labels() != nil {
		return m.crossScores(r, p)
	}
	var inputs []tokenizer.Framed
	for _, text := range slices.Concat(p.as, p.bs) {
		inputs = append(inputs, m.Frame(m.Tokens(m.Prompt()+text), p.limit))
	}
	vectors, u, fault := m.run(r, p.name, inputs)
	if vectors == nil {
		return nil, u, fault
	}
	scores := make([]float64, len(p.bs))
	for i := range p.bs {
		scores[i] = encoder.Cosine(vectors[i%len(p.as)], vectors[len(p.as)+i])
	}
	return scores, u, nil
}

func (m *embedder) crossScores(r *http.Request, p pairs) ([]float64, encoderUsage, *openai.Error) {
	if n := len(m.Labels()); n != 1 {
		return nil, encoderUsage{}, openai.Invalid("model", openai.CodeInvalidValue, "this model has %d classes and no single score; use /classify, or serve a cross-encoder of one class", n)
	}
	var first [][]int32
	for _, a := range p.as {
		first = append(first, m.Tokens(a))
	}
	inputs := make([]tokenizer.Framed, len(p.bs))
	for i, b := range p.bs {
		inputs[i] = m.FramePair(first[i%len(p.as)], m.Tokens(b), p.limit)
	}
	logits, u, fault := m.run(r, entries(p.nameB, len(p.bs)), inputs)
	if logits == nil {
		return nil, u, fault
	}
	scores := make([]float64, len(p.bs))
	for i, l := range logits {
		if scores[i] = float64(l[0]); m.ScoreActivation() == encoder.Sigmoid {
			scores[i] = sigmoid(scores[i])
		}
	}
	return scores, u, nil
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

type classified struct {
	Index   int       `json:"index"`
	Label   string    `json:"label"`
	Probs   []float64 `json:"probs"`
	Classes int       `json:"num_classes"`
}

// classify answers /classify as vLLM does.
func (m *embedder) classify(f fields, model string, r *http.Request) (any, *openai.Error) {
	if m.Labels() == nil {
		return nil, openai.Invalid("model", openai.CodeInvalidValue, "the model %q makes embeddings and has no classes; serve a model for sequence classification", model)
	}
	limit, fault := m.truncation(f)
	if fault != nil {
		return nil, fault
	}
	inputs, fault := m.inputs(f, limit)
	if fault == nil {
		fault = f.rest()
	}
	if fault != nil {
		return nil, fault
	}
	logits, u, fault := m.run(r, entries("input", len(inputs)), inputs)
	if logits == nil {
		return nil, fault
	}
	data := make([]classified, len(logits))
	for i, l := range logits {
		p := probabilities(l)
		best := slices.Index(p, slices.Max(p))
		data[i] = classified{Index: i, Label: m.Labels()[best], Probs: p, Classes: len(p)}
	}
	return newList("classify-", model, data, u), nil
}

// probabilities of one class are what a sigmoid says, of more a softmax.
func probabilities(logits []float32) []float64 {
	if len(logits) == 1 {
		return []float64{sigmoid(float64(logits[0]))}
	}
	out := make([]float64, len(logits))
	top, sum := float64(slices.Max(logits)), 0.0
	for i, l := range logits {
		out[i] = math.Exp(float64(l) - top)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}
