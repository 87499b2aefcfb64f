package translate

import (
	"time"

	"infer/internal/openai"
)

// The events of a response's stream. Fields that an event of its type does not
// have are left out.
type (
	responseEvent struct {
		Type           string    `json:"type"`
		SequenceNumber int       `json:"sequence_number"`
		Response       *response `json:"response"`
	}
	itemEvent struct {
		Type           string `json:"type"`
		SequenceNumber int    `json:"sequence_number"`
		OutputIndex    int    `json:"output_index"`
		Item           any    `json:"item"`
	}
	partEvent struct {
		Type           string     `json:"type"`
		SequenceNumber int        `json:"sequence_number"`
		ItemID         string     `json:"item_id"`
		OutputIndex    int        `json:"output_index"`
		ContentIndex   *int       `json:"content_index,omitzero"`
		Part           any        `json:"part,omitzero"`
		Delta          *string    `json:"delta,omitzero"`
		Text           *string    `json:"text,omitzero"`
		Logprobs       *[]logprob `json:"logprobs,omitzero"`
		Name           string     `json:"name,omitzero"`
		Arguments      *string    `json:"arguments,omitzero"`
	}
	errorEvent struct {
		Type           string  `json:"type"` // always error
		SequenceNumber int     `json:"sequence_number"`
		Code           *string `json:"code"`
		Message        string  `json:"message"`
		Param          *string `json:"param"`
	}
)

func (d *responses) next() int { d.seq++; return d.seq - 1 }

func (d *responses) sendResponse(name string) {
	d.send(name, responseEvent{name, d.next(), d.object})
}

func (d *responses) sendItem(name string, p *part, v any) {
	d.send(name, itemEvent{name, d.next(), p.index, v})
}

func (d *responses) sendPart(name string, p *part, ev partEvent) {
	ev.Type, ev.SequenceNumber, ev.ItemID, ev.OutputIndex = name, d.next(), p.id, p.index
	if p.kind != kindCall {
		ev.ContentIndex = new(int) // every item has one part
	}
	d.send(name, ev)
}

func (d *responses) begin(a *answer) {
	d.start(a)
	switch t := d.turn; {
	case t == nil || !t.Background:
		d.sendResponse("response.created")
	case t.Again:
		d.object.Status = statusQueued
		d.sendResponse("response.queued")
		d.object.Status = statusInProgress
	}
	d.sendResponse("response.in_progress")
}

func (d *responses) openPart(p *part) {
	const added, partAdded = "response.output_item.added", "response.content_part.added"
	identify(p)
	switch p.kind {
	case kindCall:
		d.sendItem(added, p, callItem{p.id, "function_call", statusInProgress, p.callID, p.name, ""})
	case kindReasoning:
		d.sendItem(added, p, reasoningItem{p.id, "reasoning", statusInProgress, []typedText{}, []typedText{}})
		d.sendPart(partAdded, p, partEvent{Part: typedText{"reasoning_text", ""}})
	default:
		d.sendItem(added, p, messageItem{p.id, "message", statusInProgress, "assistant", []outputText{}})
		d.sendPart(partAdded, p, partEvent{Part: textPart("", nil)})
	}
}

func (d *responses) delta(p *part, text string) {
	switch p.kind {
	case kindCall:
		d.sendPart("response.function_call_arguments.delta", p, partEvent{Delta: &text})
	case kindReasoning:
		d.sendPart("response.reasoning_text.delta", p, partEvent{Delta: &text})
	default:
		fresh := p.logprobs[p.told:]
		p.told = len(p.logprobs)
		d.sendPart("response.output_text.delta", p, partEvent{Delta: &text, Logprobs: &fresh})
	}
}

func (d *responses) closePart(p *part, cutShort bool) {
	text := string(p.text)
	switch p.kind {
	case kindCall:
		d.sendPart("response.function_call_arguments.done", p, partEvent{Name: p.name, Arguments: &text})
	case kindReasoning:
		d.sendPart("response.reasoning_text.done", p, partEvent{Text: &text})
		d.sendPart("response.content_part.done", p, partEvent{Part: typedText{"reasoning_text", text}})
	default:
		d.sendPart("response.output_text.done", p, partEvent{Text: &text, Logprobs: &p.logprobs})
		d.sendPart("response.content_part.done", p, partEvent{Part: textPart(text, p.logprobs)})
	}
	status := statusCompleted
	if cutShort {
		status = statusIncomplete
	}
	d.sendItem("response.output_item.done", p, item(p, status))
}

func (d *responses) end(a *answer) {
	d.conclude(a)
	d.keep()
	d.sendResponse("response." + d.object.Status)
}

// cut ends a broken stream as OpenAI does: with an error, then with what there
// is of the response, which has failed.
func (d *responses) cut(a *answer, e *openai.Error) {
	if d.object == nil { // a comment has committed the stream
		a.model, a.created = d.req.Model, time.Now().Unix()
		d.begin(a)
	}
	opt := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	d.send("error", errorEvent{"error", d.next(), opt(e.Code), e.Message, opt(e.Param)})
	code := "server_error" // of the closed set that a response's error has
	if e.Type == openai.TypeRateLimit {
		code = "rate_limit_exceeded"
	}
	d.object.Output = d.output(a, statusIncomplete)
	d.object.Status, d.object.Error = statusFailed, &responseError{code, e.Message}
	d.keep()
	d.sendResponse("response.failed")
}
