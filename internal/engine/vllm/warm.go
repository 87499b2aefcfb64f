package vllm

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"fmt"
	"io"
	"net/http"

	"infer/internal/engine"
)

// warmUps are the smallest inference of each task. Which one a model has is
// known by which route answers.
var warmUps = []struct {
	path string
	body map[string]any
}{
	{"/v1/completions", map[string]any{"prompt": "Hello", "max_tokens": 1, "temperature": 0}},
	{"/v1/embeddings", map[string]any{"input": "Hello"}},
	{"/classify", map[string]any{"input": "Hello"}},
	{"/v1/score", map[string]any{"text_1": "Hello", "text_2": "Hello"}},
	{"/pooling", map[string]any{"input": "Hello"}},
}

// warm runs a first inference through the handler that requests take. Until
// it has answered, "ready" is only vLLM's word.
func (e *Engine) warm(ctx context.Context, up *upstream, model string) error {
	p := &proxy{up: up, load: &e.load, log: e.log}
	for _, w := range warmUps {
		body := map[string]any{"model": model}
		for k, v := range w.body {
			body[k] = v
		}
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("write warm-up request: %w", err)
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.path, bytes.NewReader(text))
		if err != nil {
			return fmt.Errorf("make warm-up request: %w", err)
		}
		var answer recorder
		p.ServeHTTP(&answer, r)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("first inference: %w", context.Cause(ctx))
		case answer.status == http.StatusNotFound:
		case answer.status == http.StatusOK && answer.body.Len() > 0:
			return nil
		default:
			return fmt.Errorf("first inference: POST %s: HTTP %d: %s", w.path, answer.status, clip(answer.body.String(), 300))
		}
	}
	e.log.Info("no warm-up is known for this model's task", "model", model)
	return nil
}

// recorder keeps a small answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

var _ io.Writer = (*recorder)(nil)

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}

// warmFailure says that the first inference did not work.
func warmFailure(err error) *engine.Failure {
	return &engine.Failure{Cause: engine.CauseEngineFault, Retryable: true, Err: err, Message: err.Error(),
		Remedy: "it is started again; if it repeats, the model and this vLLM do not fit, see its lines in the log"}
}
