package onnx

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"math"
	"net/http"

	"infer/internal/engine"
	"infer/internal/engine/onnx/encoder"
	"infer/internal/engine/onnx/tokenizer"
	"infer/internal/openai"
)

// Bounds on one request; they are OpenAI's for embeddings.
const (
	maxInputs      = 2048
	maxInputTokens = 300_000
)

// encoderUsage is how the encoder's routes count.
type encoderUsage struct {
	PromptTokens int `json:"prompt_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

type embeddingObject struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"` // []float32, or base64 of them
}

// embeddings answers /v1/embeddings.
func (m *embedder) embeddings(f fields, model string, r *http.Request) (any, *openai.Error) {
	if m.Labels() != nil {
		return nil, openai.Invalid("model", openai.CodeInvalidValue, "the model %q is a classifier and makes no embeddings; use /classify, /v1/score or /v1/rerank", model)
	}
	format, fault := take(f, "encoding_format", "float", "float or base64")
	if fault == nil && format != "float" && format != "base64" {
		fault = openai.Invalid("encoding_format", openai.CodeInvalidValue, "encoding_format must be float or base64")
	}
	if fault != nil {
		return nil, fault
	}
	dims, fault := f.integer("dimensions", m.Dimensions(), 1, m.Dimensions())
	if fault != nil {
		return nil, fault
	}
	limit, fault := m.truncation(f)
	if fault != nil {
		return nil, fault
	}
	inputs, fault := m.inputs(f, limit)
	if fault != nil {
		return nil, fault
	}
	if fault := f.rest(); fault != nil {
		return nil, fault
	}
	vectors, u, fault := m.run(r, entries("input", len(inputs)), inputs)
	if vectors == nil {
		return nil, fault
	}
	list := make([]embeddingObject, len(vectors))
	for i, v := range vectors {
		if dims < len(v) {
			v = v[:dims]
			encoder.Normalize(v)
		}
		list[i] = embeddingObject{Object: "embedding", Index: i, Embedding: v}
		if format == "base64" {
			list[i].Embedding = base64Floats(v)
		}
	}
	return struct {
		Object string            `json:"object"`
		Data   []embeddingObject `json:"data"`
		Model  string            `json:"model"`
		Usage  encoderUsage      `json:"usage"`
	}{"list", list, model, u}, nil
}

// base64Floats is what OpenAI's clients ask for by default: the bytes of
// little-endian fp32.
func base64Floats(v []float32) string {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// truncation takes truncate_prompt_tokens: how long an input may be before it
// is cut, -1 for what the model takes. 0 means that long inputs are refused.
func (m *embedder) truncation(f fields) (int, *openai.Error) {
	limit, fault := f.integer("truncate_prompt_tokens", 0, -1, m.MaxTokens())
	if fault == nil && limit < 0 {
		limit = m.MaxTokens()
	}
	return limit, fault
}

// inputs takes the four forms of input. Texts get the prompt of the model's
// authors and its special tokens; token ids are taken as they are.
func (m *embedder) inputs(f fields, limit int) ([]tokenizer.Framed, *openai.Error) {
	const forms = "a string, a list of strings, token ids, or lists of token ids"
	raw, ok := f["input"]
	if !ok {
		return nil, openai.Invalid("input", openai.CodeMissingField, "input is required: %s", forms)
	}
	delete(f, "input")
	if raw.Kind() == '"' {
		raw = jsontext.Value("[" + string(raw) + "]")
	}
	var texts []string
	var ids []int32
	var lists [][]int32
	var framed []tokenizer.Framed
	switch {
	case json.Unmarshal(raw, &texts) == nil:
		if fault := checkTexts("input", texts); fault != nil {
			return nil, fault
		}
		for _, t := range texts {
			framed = append(framed, m.Frame(m.Tokens(m.Prompt()+t), limit))
		}
		return framed, nil
	case json.Unmarshal(raw, &ids) == nil:
		lists = [][]int32{ids}
	case json.Unmarshal(raw, &lists) == nil:
	default:
		return nil, openai.Invalid("input", openai.CodeInvalidValue, "input must be %s", forms)
	}
	if fault := checkCount("input", len(lists)); fault != nil {
		return nil, fault
	}
	for _, ids := range lists {
		if limit > 0 {
			ids = ids[:min(limit, len(ids))]
		}
		framed = append(framed, tokenizer.Framed{IDs: ids, Types: make([]int32, len(ids))})
	}
	return framed, nil
}

func checkCount(param string, n int) *openai.Error {
	switch {
	case n == 0:
		return openai.Invalid(param, openai.CodeInvalidValue, "%s is an empty list; give at least one", param)
	case n > maxInputs:
		return openai.Invalid(param, openai.CodeInvalidValue, "%s has %d entries, at most %d are allowed; send more requests", param, n, maxInputs)
	}
	return nil
}

// checkTexts refuses lists and texts that are empty, and lists that are long.
func checkTexts(param string, texts []string) *openai.Error {
	for i, t := range texts {
		if t == "" {
			return openai.Invalid(at(param, i, len(texts)), openai.CodeInvalidValue, "%s is an empty string; give some text or leave it out", at(param, i, len(texts)))
		}
	}
	return checkCount(param, len(texts))
}

// at names one entry of a list.
func at(param string, i, of int) string {
	if of == 1 {
		return param
	}
	return fmt.Sprintf("%s[%d]", param, i)
}

// entries names the entries of a list by their index.
func entries(param string, of int) func(int) string {
	return func(i int) string { return at(param, i, of) }
}

// run checks inputs, which name names, and runs them. Without vectors and without a fault, the
// client left.
func (m *embedder) run(r *http.Request, name func(int) string, inputs []tokenizer.Framed) ([][]float32, encoderUsage, *openai.Error) {
	total := 0
	for i, in := range inputs {
		if fault := m.check(name(i), in.IDs); fault != nil {
			return nil, encoderUsage{}, fault
		}
		total += len(in.IDs)
	}
	if total > maxInputTokens {
		return nil, encoderUsage{}, openai.Invalid("", openai.CodeInvalidValue, "the request has %d tokens, at most %d are allowed; send more requests", total, maxInputTokens)
	}
	engine.MeterFrom(r.Context()).Prompt(total, 0)
	vectors, err := m.Vectors(r.Context(), inputs)
	bad, notFinite := errors.AsType[*encoder.NotFiniteError](err)
	u := encoderUsage{PromptTokens: total, TotalTokens: total}
	switch {
	case r.Context().Err() != nil || errors.Is(err, context.Canceled):
		return nil, u, nil // the server answers for a deadline or a drain
	case errors.Is(err, encoder.ErrBusy):
		return nil, u, &openai.Error{Status: http.StatusTooManyRequests, Type: openai.TypeRateLimit, Code: openai.CodeQueueFull,
			Message: "too many tokens wait for the encoder; retry after the time in Retry-After, send smaller requests or add replicas"}
	case errors.Is(err, encoder.ErrStopped):
		return nil, u, wireError(errStopped)
	case notFinite:
		return nil, u, &openai.Error{Status: http.StatusInternalServerError, Type: openai.TypeServer, Code: openai.CodeInternal, Param: name(bad.Input),
			Message: name(bad.Input) + " makes the model compute a value that is no finite number, and would again; leave it out or change it"}
	case err != nil:
		return nil, u, wireError(err)
	}
	return vectors, u, nil
}

// check refuses what the model cannot read.
func (m *embedder) check(param string, ids []int32) *openai.Error {
	switch n := len(ids); {
	case n == 0:
		return openai.Invalid(param, openai.CodeInvalidValue, "%s is empty; give at least one token", param)
	case n > m.MaxTokens():
		return openai.Invalid(param, openai.CodeContextLength,
			"%s has %d tokens and this model reads at most %d; shorten it, or cut it with truncate_prompt_tokens", param, n, m.MaxTokens())
	}
	for _, id := range ids {
		if id < 0 || int(id) >= m.VocabSize() {
			return openai.Invalid(param, openai.CodeInvalidValue, "%s holds token id %d; this model has ids 0 to %d", param, id, m.VocabSize()-1)
		}
	}
	return nil
}
