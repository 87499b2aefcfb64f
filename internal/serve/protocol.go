package serve

import (
	"strings"

	"infer/internal/openai"
	"infer/internal/translate"
)

// speak chooses the shape of errors by the path, so that also those of paths,
// methods and keys are what the client of that path parses.
func (x *exchange) speak(path string) {
	x.errors = (*openai.Error).Body
	if path == "/v1/messages" || strings.HasPrefix(path, "/v1/messages/") {
		x.errors = func(e *openai.Error) []byte { return translate.MessagesErrorBody(e, x.id) }
		x.Header().Set("Request-Id", x.id) // where Anthropic's clients look for it
	}
}

// WriteError implements what openai.WriteError looks for.
func (x *exchange) WriteError(e *openai.Error) {
	h := x.Header()
	h.Set("Content-Type", "application/json")
	h.Del("Content-Length")
	x.WriteHeader(e.Status)
	_, _ = x.Write(x.errors(e)) // the client may have left; there is nobody to tell
}
