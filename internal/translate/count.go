package translate

import (
	"encoding/json/v2"
	"io"
	"net/http"

	"infer/internal/openai"
)

// CountTokens returns a handler of Anthropic's POST /v1/messages/count_tokens
// in front of one of vLLM's POST /tokenize.
func CountTokens(tokenize http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner, e := countRequest(r)
		if e != nil {
			refuseMessages(w, e)
			return
		}
		out := &writer{w: w, d: &messages{}, a: &answer{}, steps: silent{}, header: make(http.Header)}
		aborted := call(tokenize, out, inner)
		var counted struct {
			Count *int `json:"count"`
		}
		switch err := json.Unmarshal(out.buf.Bytes(), &counted, lenient); {
		case aborted, out.status != http.StatusOK:
			out.fail(out.refusal())
		case err != nil, counted.Count == nil:
			out.fail(brokeOff("the engine counted in an unknown way"))
		default:
			out.whole(struct {
				InputTokens int `json:"input_tokens"`
			}{*counted.Count})
		}
	})
}

// countRequest translates the request. What shapes the answer only has no
// place in a prompt.
func countRequest(r *http.Request) (*http.Request, *openai.Error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, openai.Invalid("", openai.CodeInvalidJSON, "the body cannot be read; send it again")
	}
	p, e := decode[prompt](body, "")
	if e != nil {
		return nil, e
	}
	var chat chatRequest
	if e := p.fill(&chat); e != nil {
		return nil, e
	}
	return forward(r, "/tokenize", chatRequest{Model: p.Model, Messages: chat.Messages, Tools: chat.Tools,
		TemplateKwargs:       chat.TemplateKwargs,
		ContinueFinalMessage: chat.ContinueFinalMessage, AddGenerationPrompt: chat.AddGenerationPrompt})
}
