package serve

import (
	"context"
	"time"

	"infer/internal/admission"
	"infer/internal/engine"
	"infer/internal/openai"
)

// admit takes a slot or waits for one.
type admit func(ctx context.Context, r admission.Request) (release func(admission.Tokens), queued time.Duration, err error)

// whenReady admits what costs the engine next to nothing: no slot, no queue.
func (s *Server) whenReady(ctx context.Context, r admission.Request) (func(admission.Tokens), time.Duration, error) {
	queued, err := s.gate.Ready(ctx, r)
	return func(admission.Tokens) {}, queued, err
}

// encode admits what an encoder does. One that batches by itself and bounds
// what waits for it runs beside the slots.
func (s *Server) encode(ctx context.Context, r admission.Request) (func(admission.Tokens), time.Duration, error) {
	if s.eng.Status().Beside == 0 {
		return s.gate.Acquire(ctx, r)
	}
	release, queued, err := s.gate.Beside(ctx, r)
	return func(admission.Tokens) { release() }, queued, err
}

// standing is what admission knows of a request's caller. Its zero value is
// the one caller of a server without keys.
type standing struct {
	caller string          // bounded set: the names of keys
	class  admission.Class // of what the caller sends
	weight float64         // share beside that of other callers; 0 counts as 1
}

// extent is what admission knows of what a request asks for.
type extent struct {
	bytes   int64     // of the body
	prompt  int       // tokens, estimated
	answers int       // 0 when nothing is generated
	longest int       // tokens of each answer; 0 when unbounded
	until   time.Time // by when it must have a slot; zero when it has time
	cause   error     // of the end of its context at that time; nil when it does not end then
}

// measure takes the extent of a request whose body has so many bytes. A prompt
// that is longer than the model's context is refused by the engine and costs no
// more than one that fills it.
func (x *exchange) measure(req *openai.Request, bytes int) {
	x.bytes, x.prompt, x.longest = int64(bytes), req.PromptTokens, req.MaxTokens
	if x.timed {
		x.answers = max(req.N*req.Prompts, 1)
	}
	if context := contextOf(x.s.eng.Status().Models, x.model); context > 0 {
		x.prompt = min(x.prompt, context*max(req.Prompts, 1))
	}
}

// contextOf is the context of a served model in tokens, 0 when it is unknown.
func contextOf(models []engine.Model, id string) int {
	for _, m := range models {
		if m.ID == id {
			return m.ContextTokens
		}
	}
	return 0
}

// request is what the gate is told.
func (x *exchange) request() admission.Request {
	return admission.Request{
		Bytes: x.bytes, Prompt: x.prompt, Answers: x.answers, MaxTokens: x.longest, Deadline: x.until,
		Caller: x.caller, Class: x.class, Weight: x.weight,
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

// charge is what the caller's share is charged. An engine that was asked and
// did not count the prompt may have read it.
func (x *exchange) charge() admission.Tokens {
	t := x.served()
	if x.meter != nil && t.Prompt == 0 {
		t.Prompt = x.prompt
	}
	return t
}

// capacity is what the gate is told of a ready engine.
func (s *Server) capacity(st engine.Status) admission.Capacity {
	c := admission.Capacity{Slots: s.slots(st), Beside: st.Beside}
	// With fewer slots than it has, the engine would find no need to park.
	c.Yields = st.Yields && c.Slots == st.Slots
	if len(st.Models) > 0 {
		c.Context = st.Models[0].ContextTokens
	}
	return c
}

// slots is what the engine has, within what the operator allows, who is asked
// when the engine does not know.
func (s *Server) slots(st engine.Status) int {
	switch limit := s.cfg.MaxConcurrency; {
	case limit == 0:
		return max(st.Slots, 1)
	case st.Slots == 0, st.SlotsGuessed:
		return limit
	default:
		return min(st.Slots, limit)
	}
}
