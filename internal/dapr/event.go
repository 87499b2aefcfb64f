package dapr

import (
	"bytes"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"infer/internal/openai"
)

// Types of the events that are published.
const (
	typeResult = "infer.result.v1" // data: id, status, response
	typeError  = "infer.error.v1"  // data: id, status, error
	typeDelta  = "infer.delta.v1"  // data: id, sequence, sse: a part of a streamed answer
)

// request is one event of the topic of requests. Its data is an object
//
//	{"url": "/v1/chat/completions", "request": {…}, "reply_to": "topic", "deadline": "RFC 3339"}
//
// in which only request must be there, or the body of a chat completion alone.
type request struct {
	name     string // of the event, unique: source and id
	id       string
	url      string // the route
	body     []byte
	replyTo  string
	deadline time.Time // zero for none
	trace    trace
}

// work is the data of an event.
type work struct {
	URL      string         `json:"url"`
	Request  jsontext.Value `json:"request"`
	ReplyTo  string         `json:"reply_to"`
	Deadline string         `json:"deadline"`
}

// nameOf is unique to an event, as CloudEvents has it; its id alone is not.
func nameOf(e *pb.TopicEventRequest) string { return e.GetSource() + "/" + e.GetId() }

// ours says that e is one that this program publishes: answered, it would be
// followed by another without end, where topics lead in a circle.
func ours(e *pb.TopicEventRequest) bool {
	return slices.Contains([]string{typeResult, typeError, typeDelta}, e.GetType())
}

// parse reads an event. The request is usable for a reply also when there is an
// error.
func (s *Sidecar) parse(e *pb.TopicEventRequest) (request, *openai.Error) {
	r := request{name: nameOf(e), id: e.GetId(), url: "/v1/chat/completions", replyTo: s.cfg.ReplyTopics[0]}
	extension := func(name string) string { return e.GetExtensions().GetFields()[name].GetStringValue() }
	r.trace = trace{extension("traceparent"), extension("tracestate")}
	if at, err := time.Parse(time.RFC3339, extension("expiration")); err == nil {
		r.deadline = at
	}
	data := bytes.TrimSpace(e.GetData())
	var members map[string]jsontext.Value
	if err := json.Unmarshal(data, &members); err != nil {
		return r, openai.Invalid("data", openai.CodeInvalidJSON, "the event's data is not one JSON object; publish it with the content type application/json")
	}
	if _, ok := members["request"]; !ok {
		r.body = data
		return r, nil
	}
	var w work
	if err := json.Unmarshal(data, &w, json.RejectUnknownMembers(true)); err != nil {
		return r, openai.Invalid("data", openai.CodeInvalidValue, "the event's data may hold url, request, reply_to and deadline alone: three strings and an object")
	}
	return r, s.read(&r, w)
}

func (s *Sidecar) read(r *request, w work) *openai.Error {
	r.body = w.Request
	if w.ReplyTo != "" {
		if !slices.Contains(s.cfg.ReplyTopics, w.ReplyTo) {
			return openai.Invalid("reply_to", openai.CodeInvalidValue, "reply_to is none of the topics that --dapr-reply-topics allows")
		}
		r.replyTo = w.ReplyTo
	}
	if w.URL != "" {
		if r.url = path.Clean(w.URL); r.url != w.URL || !strings.HasPrefix(r.url, "/v1/") || strings.ContainsAny(r.url, "?#%") {
			return openai.Invalid("url", openai.CodeInvalidValue, "url must be a path such as /v1/chat/completions")
		}
	}
	if jsontext.Value(r.body).Kind() != '{' {
		return openai.Invalid("request", openai.CodeInvalidValue, "request must be an object: the body that a POST would have")
	}
	if w.Deadline == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, w.Deadline)
	if err != nil {
		return openai.Invalid("deadline", openai.CodeInvalidValue, "deadline must be a time such as 2030-01-31T12:00:00Z")
	}
	if r.deadline.IsZero() || at.Before(r.deadline) {
		r.deadline = at
	}
	return nil
}

// reply is what is published of one answer.
type reply struct {
	ID       string         `json:"id"`
	Status   int            `json:"status,omitzero"`
	Sequence int            `json:"sequence,omitzero"`
	Response jsontext.Value `json:"response,omitzero"`
	Error    jsontext.Value `json:"error,omitzero"`
	SSE      string         `json:"sse,omitempty"`
	Deltas   int            `json:"deltas,omitzero"` // of a streamed answer: how many were published
}

// refused is the reply to a request that was not asked of the engine, or that
// the engine refused.
func refused(id string, e *openai.Error) reply {
	return failed(id, e.Status, e.Body())
}

// failed is the reply made of an error's body.
func failed(id string, status int, body []byte) reply {
	var envelope struct {
		Error jsontext.Value `json:"error"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil || envelope.Error == nil {
		return refused(id, &openai.Error{Status: status, Type: openai.TypeServer, Code: openai.CodeInternal,
			Message: fmt.Sprintf("the engine answered HTTP %d without an error that can be read", status)})
	}
	return reply{ID: id, Status: status, Error: envelope.Error}
}

// header is what a request of the worker carries.
func (r *request) header(now time.Time) http.Header {
	h := http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {idempotencyKey(r.name)}}
	if r.trace.parent != "" {
		h.Set("Traceparent", r.trace.parent)
	}
	if r.trace.state != "" {
		h.Set("Tracestate", r.trace.state)
	}
	if !r.deadline.IsZero() {
		h.Set("X-Request-Timeout", fmt.Sprintf("%.3f", min(max(r.deadline.Sub(now).Seconds(), 0.001), 86400)))
	}
	return h
}
