package translate

import (
	"crypto/rand"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"net/http"

	"infer/internal/openai"
)

// messages is one request for a message, and what it has been told.
type messages struct {
	events
	request chatRequest
	mute    bool // thinking is not to be shown
	opened  bool // a block was
}

// message is Anthropic's Message object.
type message struct {
	ID           string        `json:"id"`
	Type         string        `json:"type"` // always message
	Role         string        `json:"role"` // always assistant
	Model        string        `json:"model"`
	Content      []any         `json:"content"`
	StopReason   *string       `json:"stop_reason"`
	StopSequence *string       `json:"stop_sequence"`
	Usage        messagesUsage `json:"usage"`
}

// messagesUsage counts as Anthropic does: what came from a cache is no input.
type messagesUsage struct {
	InputTokens         int `json:"input_tokens"`
	CacheCreationTokens int `json:"cache_creation_input_tokens"`
	CacheReadTokens     int `json:"cache_read_input_tokens"`
	OutputTokens        int `json:"output_tokens"`
}

// The content blocks of a message.
type (
	textContent struct {
		Type string `json:"type"` // always text
		Text string `json:"text"`
	}
	thinkingContent struct {
		Type      string `json:"type"` // always thinking
		Thinking  string `json:"thinking"`
		Signature string `json:"signature"` // always empty: nothing here is signed
	}
	toolUseContent struct {
		Type  string         `json:"type"` // always tool_use
		ID    string         `json:"id"`
		Name  string         `json:"name"`
		Input jsontext.Value `json:"input"`
	}
)

func (d *messages) chat() (*chatRequest, *answer) { return &d.request, &answer{mute: d.mute} }

func (d *messages) names() [][2]string {
	return [][2]string{{"stop", "stop_sequences"}, {"response_format", "output_config.format"},
		{"reasoning_effort", "output_config.effort"}, {"chat_template_kwargs", "thinking"}, {"parallel_tool_calls", "tool_choice.disable_parallel_tool_use"},
		{"continue_final_message", "a last message of the assistant"},
		{"add_generation_prompt", "a last message of the assistant"}}
}

func (d *messages) refuse(w http.ResponseWriter, e *openai.Error) { refuseMessages(w, e) }

// newMessage is the message before anything was said.
func newMessage(a *answer) *message {
	return &message{ID: "msg_" + rand.Text(), Type: "message", Role: "assistant", Model: a.model,
		Content: []any{}, Usage: countUsage(a)}
}

func countUsage(a *answer) messagesUsage {
	cached := a.usage.PromptDetails.CachedTokens
	return messagesUsage{InputTokens: max(a.usage.PromptTokens-cached, 0), CacheReadTokens: cached,
		OutputTokens: a.usage.CompletionTokens}
}

// stopReason says in Anthropic's words why the answer ended. OpenAI's "stop"
// covers a stop sequence too, which only some engines tell.
func stopReason(a *answer) (reason string, sequence *string) {
	switch {
	case a.finish == "length":
		return "max_tokens", nil
	case a.finish == "content_filter":
		return "refusal", nil
	case a.calls():
		return "tool_use", nil
	case a.stop != nil:
		return "stop_sequence", a.stop
	}
	return "end_turn", nil
}

func (d *messages) whole(a *answer) (any, *openai.Error) {
	m := newMessage(a)
	for _, p := range a.parts {
		block, e := content(a, p)
		if e != nil {
			return nil, e
		}
		m.Content = append(m.Content, block)
	}
	reason, sequence := stopReason(a)
	m.StopReason, m.StopSequence = &reason, sequence
	return m, nil
}

// content is a whole part as a content block.
func content(a *answer, p *part) (any, *openai.Error) {
	switch p.kind {
	case kindText:
		return textContent{"text", string(p.text)}, nil
	case kindReasoning:
		return thinkingContent{Type: "thinking", Thinking: string(p.text)}, nil
	}
	input := jsontext.Value(p.text)
	var object map[string]jsontext.Value
	switch err := json.Unmarshal(input, &object, lenient); {
	case err == nil && object != nil:
	case len(p.text) == 0, a.cutShort(): // no arguments, or not all of them
		input = jsontext.Value("{}")
	default:
		return nil, brokeOff("the model called a tool with arguments that are no JSON object")
	}
	return toolUseContent{"tool_use", toolUseID(p), p.name, input}, nil
}

func toolUseID(p *part) string {
	if p.callID == "" {
		p.callID = "toolu_" + rand.Text()
	}
	return p.callID
}
