package translate

import (
	"encoding/json/jsontext"
	"encoding/json/v2"

	"infer/internal/openai"
)

// ParseError reads the body of an engine's refusal, whatever its shape: an
// envelope, an envelope around a string, FastAPI's detail, or no JSON at all.
// status is 0 for the data of an error event, which has none of its own.
func ParseError(body []byte, status int) *openai.Error {
	var envelope struct {
		Error   jsontext.Value `json:"error"`
		Detail  jsontext.Value `json:"detail"`
		Message jsontext.Value `json:"message"`
	}
	// What is no envelope has only its status.
	_ = json.Unmarshal(body, &envelope, lenient, jsontext.AllowDuplicateNames(true))
	raw := envelope.Error
	switch {
	case !absent(raw):
	case envelope.Detail.Kind() == '"':
		raw = envelope.Detail
	case envelope.Message.Kind() == '"': // an error object without its envelope
		raw = body
	}
	return parseError(raw, status)
}
