package onnx

import (
	"cmp"
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"io"
	"net/http"

	"infer/internal/engine/onnx/grammar"
	"infer/internal/openai"
)

// begin reads what every route needs. It answers by itself and returns false
// when the request ends here.
func (e *Engine) begin(w http.ResponseWriter, r *http.Request) (*live, fields, string, bool) {
	l := e.live.Load()
	if l == nil {
		openai.WriteError(w, wireError(errStopped))
		return nil, nil, "", false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		openai.WriteError(w, openai.Invalid("", openai.CodeInvalidJSON, "the body cannot be read: %v", err))
		return nil, nil, "", false
	}
	f, fault := parseFields(body)
	if fault == nil {
		var model string
		if model, fault = take(f, "model", l.model.ID, "a string"); fault == nil {
			fault = e.writes(model)
		}
		if fault == nil {
			return l, f, model, true
		}
	}
	openai.WriteError(w, fault)
	return nil, nil, "", false
}

func (e *Engine) chatCompletions(w http.ResponseWriter, r *http.Request) {
	l, f, model, ok := e.begin(w, r)
	if !ok {
		return
	}
	j, fault := l.chatJob(r.Context(), f, model)
	if fault != nil {
		openai.WriteError(w, fault)
		return
	}
	j.serve(w, r)
}

func (l *live) chatJob(ctx context.Context, f fields, model string) (*job, *openai.Error) {
	messages, fault := f.messages()
	if fault != nil {
		return nil, fault
	}
	delete(f, "messages")
	o, fault := f.options(l.config)
	if fault != nil {
		return nil, fault
	}
	use, fault := f.toolUse()
	if fault != nil {
		return nil, fault
	}
	with, fault := f.settings(l.chat)
	if fault != nil {
		return nil, fault
	}
	rules, fault := l.outputRules(ctx, f, &o, &use)
	if fault != nil {
		return nil, fault
	}
	if fault := cmp.Or(f.chatLogprobs(&o), o.wantsToken(), f.rest()); fault != nil {
		return nil, fault
	}
	r, err := l.chat.render(l.tok, messages, use.offered(), with)
	if err != nil {
		return nil, openai.Invalid("messages", openai.CodeInvalidValue, "%v", err)
	}
	j, fault := l.newJob(o, true, model, [][]int32{r.ids})
	if fault != nil {
		return nil, fault
	}
	j.tools, j.thinking, j.rules = use, r.thinking, rules
	return j, nil
}

// defaultCompletionTokens is what OpenAI's completions route gives when the
// client asks for no number.
const defaultCompletionTokens = 16

func (e *Engine) completions(w http.ResponseWriter, r *http.Request) {
	l, f, model, ok := e.begin(w, r)
	if !ok {
		return
	}
	j, fault := l.completionJob(r.Context(), f, model)
	if fault != nil {
		openai.WriteError(w, fault)
		return
	}
	j.serve(w, r)
}

func (l *live) completionJob(ctx context.Context, f fields, model string) (*job, *openai.Error) {
	prompts, fault := l.prompts(f)
	if fault != nil {
		return nil, fault
	}
	o, fault := f.options(l.config)
	if fault != nil {
		return nil, fault
	}
	rules, fault := l.outputRules(ctx, f, &o, &toolUse{})
	if fault != nil {
		return nil, fault
	}
	if fault := cmp.Or(f.completionExtras(&o), f.rest()); fault != nil {
		return nil, fault
	}
	if o.maxField == "" {
		longest := 0
		for _, p := range prompts {
			longest = max(longest, len(p))
		}
		o.maxTokens = max(min(defaultCompletionTokens, l.model.ContextTokens-longest), 1)
		o.maxField = "prompt"
	}
	j, fault := l.newJob(o, false, model, prompts)
	if fault == nil {
		j.rules = rules
	}
	return j, fault
}

// outputRules compiles what the output must be: a structure that was asked for
// or forced tool calls.
func (l *live) outputRules(ctx context.Context, f fields, o *options, use *toolUse) (*grammar.Grammar, *openai.Error) {
	rules, fault := f.structured(ctx, l.rules)
	if fault != nil {
		return nil, fault
	}
	if use.forced() {
		if rules != nil {
			return nil, openai.Invalid("tool_choice", openai.CodeInvalidValue, "a forced tool call and response_format exclude each other; drop one")
		}
		if rules, fault = l.rules.calls(ctx, use, l.chat.calls); fault != nil {
			return nil, fault
		}
	}
	if rules != nil && o.minTokens > 0 {
		return nil, openai.Invalid("min_tokens", openai.CodeInvalidValue, "min_tokens cannot be held where the output has a given structure; drop one")
	}
	return rules, nil
}

// prompts takes the four forms of prompt: a text, texts, ids, lists of ids.
func (l *live) prompts(f fields) ([][]int32, *openai.Error) {
	raw, ok := f["prompt"]
	if !ok {
		return nil, openai.Invalid("prompt", openai.CodeMissingField, "prompt is required: a string, a list of strings, token ids, or lists of token ids")
	}
	delete(f, "prompt")
	if len(raw) > 0 && raw.Kind() != '[' {
		raw = jsontext.Value("[" + string(raw) + "]")
	}
	var texts []string
	var ids []int32
	var lists [][]int32
	switch {
	case json.Unmarshal(raw, &texts) == nil:
		for _, t := range texts {
			lists = append(lists, l.tok.EncodeWithSpecial(t))
		}
	case json.Unmarshal(raw, &ids) == nil:
		lists = [][]int32{ids}
	case json.Unmarshal(raw, &lists) == nil:
	default:
		return nil, openai.Invalid("prompt", openai.CodeInvalidValue, "prompt must be a string, a list of strings, token ids, or lists of token ids")
	}
	if len(lists) == 0 {
		return nil, openai.Invalid("prompt", openai.CodeInvalidValue, "prompt is an empty list; give at least one prompt")
	}
	for _, p := range lists {
		if fault := l.config.knownTokens("prompt", p); fault != nil {
			return nil, fault
		}
	}
	return lists, nil
}

// knownTokens refuses ids that the model does not have.
func (c *genaiConfig) knownTokens(param string, ids []int32) *openai.Error {
	for _, id := range ids {
		if id < 0 || int(id) >= c.Model.VocabSize {
			return openai.Invalid(param, openai.CodeInvalidValue, "%s holds token id %d; this model has ids 0 to %d", param, id, c.Model.VocabSize-1)
		}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		openai.WriteError(w, openai.Internal("the answer cannot be written as JSON"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the client may have left; there is nobody to tell
}
