package translate

import (
	"encoding/json/v2"
	"net/http"

	"infer/internal/openai"
)

// messagesError is Anthropic's error body.
type messagesError struct {
	Type  string `json:"type"` // always error
	Error struct {
		Type    string         `json:"type"`
		Message string         `json:"message"`
		Details *threadRefused `json:"details,omitzero"`
	} `json:"error"`
	RequestID string `json:"request_id,omitzero"`
}

// threadRefused tells a client that asked for a conversation kept by the server
// to send all of it each time. Anthropic's tool runners ask for one by
// themselves, and go on without it only after these details.
type threadRefused struct {
	Code        string   `json:"error_code"`
	Unsupported []string `json:"unsupported"`
}

// messagesFault says e in Anthropic's words.
func messagesFault(e *openai.Error, requestID string) messagesError {
	m := messagesError{Type: "error", RequestID: requestID}
	m.Error.Message = e.Message
	if e.Param == "thread" && e.Code == openai.CodeUnsupported {
		m.Error.Details = &threadRefused{"thread_unsupported_request", []string{e.Param}}
	}
	switch {
	case e.Status == http.StatusRequestEntityTooLarge:
		m.Error.Type = "request_too_large"
	case e.Type == openai.TypeUnavailable:
		m.Error.Type = "overloaded_error"
	case e.Type == openai.TypeServer:
		m.Error.Type = "api_error"
	default: // the others have the same name
		m.Error.Type = e.Type
	}
	return m
}

// MessagesErrorBody returns e as the body that clients of the Messages
// protocol parse.
func MessagesErrorBody(e *openai.Error, requestID string) []byte {
	b, err := json.Marshal(messagesFault(e, requestID), lenient)
	if err != nil { // strings always marshal when invalid UTF-8 is allowed
		return []byte(`{"type":"error","error":{"type":"api_error","message":"internal error"}}`)
	}
	return b
}

// refuseMessages answers with e. Nothing may have been written before.
func refuseMessages(w http.ResponseWriter, e *openai.Error) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Del("Content-Length")
	w.WriteHeader(e.Status)
	_, _ = w.Write(MessagesErrorBody(e, h.Get("X-Request-Id"))) // the client may have left
}
