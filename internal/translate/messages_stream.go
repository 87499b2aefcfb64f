package translate

import "infer/internal/openai"

// The events of a message's stream.
type (
	messageStart struct {
		Type    string   `json:"type"`
		Message *message `json:"message"`
	}
	blockEvent struct {
		Type  string `json:"type"`
		Index int    `json:"index"`
		Block any    `json:"content_block,omitzero"`
		Delta any    `json:"delta,omitzero"`
	}
	textDelta struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	thinkingDelta struct {
		Type     string `json:"type"`
		Thinking string `json:"thinking"`
	}
	inputDelta struct {
		Type        string `json:"type"`
		PartialJSON string `json:"partial_json"`
	}
	messageDelta struct {
		Type  string `json:"type"`
		Delta struct {
			StopReason   string  `json:"stop_reason"`
			StopSequence *string `json:"stop_sequence"`
		} `json:"delta"`
		Usage messagesUsage `json:"usage"`
	}
	bareEvent struct {
		Type string `json:"type"`
	}
)

// begin starts the message. Most engines count the prompt only at the end, so
// that the usage of the first event is zero and the last event's is right.
func (d *messages) begin(a *answer) {
	d.send("message_start", messageStart{"message_start", newMessage(a)})
}

func (d *messages) openPart(p *part) {
	ev := blockEvent{Type: "content_block_start", Index: p.index}
	switch p.kind {
	case kindCall:
		ev.Block = toolUseContent{"tool_use", toolUseID(p), p.name, []byte("{}")}
	case kindReasoning:
		ev.Block = thinkingContent{Type: "thinking"}
	default:
		ev.Block = textContent{Type: "text"}
	}
	d.send(ev.Type, ev)
	if !d.opened {
		d.opened = true
		d.send("ping", bareEvent{"ping"})
	}
}

func (d *messages) delta(p *part, text string) {
	ev := blockEvent{Type: "content_block_delta", Index: p.index}
	switch p.kind {
	case kindCall:
		ev.Delta = inputDelta{"input_json_delta", text}
	case kindReasoning:
		ev.Delta = thinkingDelta{"thinking_delta", text}
	default:
		ev.Delta = textDelta{"text_delta", text}
	}
	d.send(ev.Type, ev)
}

func (d *messages) closePart(p *part, _ bool) {
	d.send("content_block_stop", blockEvent{Type: "content_block_stop", Index: p.index})
}

func (d *messages) end(a *answer) {
	ev := messageDelta{Type: "message_delta", Usage: countUsage(a)}
	ev.Delta.StopReason, ev.Delta.StopSequence = stopReason(a)
	d.send(ev.Type, ev)
	d.send("message_stop", bareEvent{"message_stop"})
}

// cut ends a broken stream. After an error there is no message_stop.
func (d *messages) cut(_ *answer, e *openai.Error) {
	d.send("error", messagesFault(e, ""))
}
