package serve

import (
	"context"
	"time"

	"infer/internal/admission"
)

// admit takes a slot or waits for one.
type admit func(ctx context.Context, r admission.Request) (release func(admission.Tokens), queued time.Duration, err error)

// whenReady admits what costs the engine next to nothing: no slot, no queue.
func (s *Server) whenReady(ctx context.Context, r admission.Request) (func(admission.Tokens), time.Duration, error) {
	queued, err := s.gate.Ready(ctx, r.Bytes)
	return func(admission.Tokens) {}, queued, err
}

// standing is what admission knows of a request's caller. Its zero value is
// the one caller of a server without keys.
type standing struct {
	caller        string          // bounded set: the names of keys
	class         admission.Class // of what the caller sends
	weight        float64         // share beside that of other callers; 0 counts as 1
	maxConcurrent int             // slots at once; 0 when unbounded
}

// bytesPerToken is what a token of English prose needs in a body, about.
const bytesPerToken = 4

// request is what the gate is told.
func (x *exchange) request() admission.Request {
	return admission.Request{
		Bytes: x.bytes, Prompt: int(x.bytes / bytesPerToken),
		Caller: x.caller, Class: x.class, Weight: x.weight, MaxConcurrent: x.maxConcurrent,
	}
}

// served is what the engine did, as far as it said.
func (x *exchange) served() admission.Tokens {
	m := x.meter
	if m == nil { // it was not asked
		return admission.Tokens{}
	}
	return admission.Tokens{Prompt: int(m.prompt.Load()), Cached: int(m.cached.Load()), Completion: int(m.completion.Load())}
}
