package translate

import (
	"encoding/json/v2"

	"infer/internal/openai"
)

// kind is what one part of an answer holds.
type kind int

const (
	kindText kind = iota
	kindReasoning
	kindCall
)

// part is one item of a response, or one content block of a message.
type part struct {
	kind     kind
	index    int
	id       string // the client protocol's own; set when the part is opened
	text     []byte // text, reasoning or the arguments of the call
	callID   string
	name     string // of the function
	call     int    // the call's index in the chat
	logprobs []logprob
	told     int // how many of logprobs a delta has carried
}

// answer is what the chat has said so far.
type answer struct {
	model   string
	created int64
	parts   []*part
	open    bool    // the last part may grow
	finish  string  // OpenAI's finish_reason; empty until known
	stop    *string // the stop string that was met, where the engine tells
	usage   chatUsage
	begun   bool
	mute    bool // drop reasoning
}

// steps are told how an answer grows.
type steps interface {
	begin(*answer)
	openPart(*part)
	delta(*part, string)
	closePart(p *part, cutShort bool)
}

// take adds one chunk, or a whole completion, to the answer.
func (a *answer) take(r *reply, s steps) *openai.Error {
	if !a.begun {
		a.begun = true
		a.model, a.created = r.Model, r.Created
		if r.Usage != nil {
			a.usage = *r.Usage
		}
		s.begin(a)
	}
	if r.Usage != nil {
		a.usage = *r.Usage
	}
	for i := range r.Choices {
		c := &r.Choices[i]
		if c.Index != 0 {
			continue // nobody asked for more than one
		}
		for _, m := range []*replyMessage{&c.Delta, &c.Message} {
			if e := a.message(c, m, s); e != nil {
				return e
			}
		}
		if c.FinishReason != "" {
			a.finish = c.FinishReason
		}
		var stop string
		if c.StopReason.Kind() == '"' && json.Unmarshal(c.StopReason, &stop, lenient) == nil {
			a.stop = &stop
		}
	}
	return nil
}

func (a *answer) message(c *replyChoice, m *replyMessage, s steps) *openai.Error {
	if thought := m.ReasoningContent + m.Reasoning; thought != "" && !a.mute {
		if m.ReasoningContent == m.Reasoning { // an engine that writes both names
			thought = m.Reasoning
		}
		a.grow(kindReasoning, thought, s)
	}
	if text := m.Content + m.Refusal; text != "" {
		p := a.enter(kindText, s)
		if c.Logprobs != nil {
			p.logprobs = append(p.logprobs, c.Logprobs.Content...)
		}
		a.grow(kindText, text, s)
	}
	for i := range m.ToolCalls {
		call := &m.ToolCalls[i]
		if m == &c.Message {
			call.Index = i // whole completions have none
		}
		if e := a.toolCall(call, s); e != nil {
			return e
		}
	}
	return nil
}

// enter returns the open part of a kind; it opens a new one when the last part
// is of another.
func (a *answer) enter(k kind, s steps) *part {
	if a.open {
		if last := a.parts[len(a.parts)-1]; last.kind == k {
			return last
		}
	}
	return a.add(&part{kind: k}, s)
}

func (a *answer) add(p *part, s steps) *part {
	a.shut(s, false)
	p.index = len(a.parts)
	a.parts = append(a.parts, p)
	a.open = true
	s.openPart(p)
	return p
}

func (a *answer) grow(k kind, text string, s steps) {
	p := a.enter(k, s)
	p.text = append(p.text, text...)
	s.delta(p, text)
}

func (a *answer) toolCall(c *replyCall, s steps) *openai.Error {
	var p *part
	for _, old := range a.parts {
		if old.kind == kindCall && old.call == c.Index {
			p = old
		}
	}
	switch {
	case p == nil && c.Function.Name == "":
		return brokeOff("the engine began a tool call without a name")
	case p == nil:
		p = a.add(&part{kind: kindCall, call: c.Index, callID: c.ID, name: c.Function.Name}, s)
	case !a.open || p != a.parts[len(a.parts)-1]:
		return brokeOff("the engine went back to a tool call that had ended")
	}
	if c.Function.Arguments != "" {
		p.text = append(p.text, c.Function.Arguments...)
		s.delta(p, c.Function.Arguments)
	}
	return nil
}

// shut closes the open part.
func (a *answer) shut(s steps, cutShort bool) {
	if a.open {
		a.open = false
		s.closePart(a.parts[len(a.parts)-1], cutShort)
	}
}

// done closes what is open, once the chat has ended in good order.
func (a *answer) done(s steps) *openai.Error {
	if a.finish == "" {
		return brokeOff("the engine ended its answer without saying why")
	}
	a.shut(s, a.cutShort())
	return nil
}

// cutShort says that the model would have gone on.
func (a *answer) cutShort() bool { return a.finish == "length" || a.finish == "content_filter" }

// calls says whether the model called a tool.
func (a *answer) calls() bool {
	for _, p := range a.parts {
		if p.kind == kindCall {
			return true
		}
	}
	return false
}

// silent are the steps of an answer that is told as a whole.
type silent struct{}

func (silent) begin(*answer)         {}
func (silent) openPart(*part)        {}
func (silent) delta(*part, string)   {}
func (silent) closePart(*part, bool) {}
