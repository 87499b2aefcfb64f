package translate

import (
	"encoding/json/jsontext"
	"fmt"
	"slices"

	"infer/internal/openai"
)

// A content block in each of its forms.
type (
	textBlock struct {
		Type         string         `json:"type"`
		Text         *string        `json:"text"`
		CacheControl jsontext.Value `json:"cache_control"`
		Citations    jsontext.Value `json:"citations"`
		ParsedOutput jsontext.Value `json:"parsed_output"` // added by Anthropic's Python client
	}
	toolUseBlock struct {
		Type         string         `json:"type"`
		ID           string         `json:"id"`
		Name         string         `json:"name"`
		Input        jsontext.Value `json:"input"`
		Caller       jsontext.Value `json:"caller"`
		CacheControl jsontext.Value `json:"cache_control"`
	}
	toolResultBlock struct {
		Type         string         `json:"type"`
		ToolUseID    string         `json:"tool_use_id"`
		Content      jsontext.Value `json:"content"`
		IsError      bool           `json:"is_error"`
		CacheControl jsontext.Value `json:"cache_control"`
	}
	thinkingBlock struct {
		Type      string `json:"type"`
		Thinking  string `json:"thinking"`
		Signature string `json:"signature"`
		Data      string `json:"data"` // of a redacted one
	}
)

// conversation turns system and messages into the messages of a chat.
func (p *prompt) conversation(r *chatRequest) *openai.Error {
	var c conversation
	if !absent(p.System) {
		parts, e := textBlocks(p.System, "system")
		if e != nil {
			return e
		}
		c.say("system", parts...)
	}
	if absent(p.Messages) {
		return missing("messages", "a list of objects with role and content")
	}
	list, e := elements(p.Messages, "messages", "a list of objects")
	if e != nil {
		return e
	}
	if len(list) == 0 {
		return invalid("messages", "is empty; give at least one message")
	}
	for i, raw := range list {
		if e := messageInto(&c, raw, fmt.Sprintf("messages[%d]", i)); e != nil {
			return e
		}
	}
	r.Messages = c.messages()
	if r.Messages[len(r.Messages)-1].Role == "assistant" { // the model is to go on with its own words
		r.ContinueFinalMessage, r.AddGenerationPrompt = true, new(bool)
	}
	return nil
}

func messageInto(c *conversation, raw jsontext.Value, at string) *openai.Error {
	m, e := decode[struct {
		Role    string         `json:"role"`
		Content jsontext.Value `json:"content"`
	}](raw, at)
	if e != nil {
		return e
	}
	if !slices.Contains([]string{"user", "assistant", "system"}, m.Role) {
		return invalid(at+".role", "must be user, assistant or system")
	}
	at += ".content"
	switch {
	case absent(m.Content):
		return missing(at, "a string or a list of blocks")
	case m.Content.Kind() == '"':
		text, e := decode[string](m.Content, at)
		if e == nil {
			c.say(m.Role, text)
		}
		return e
	}
	list, e := elements(m.Content, at, "a string or a list of blocks")
	if e != nil {
		return e
	}
	for i, raw := range list {
		if e := blockInto(c, m.Role, raw, fmt.Sprintf("%s[%d]", at, i)); e != nil {
			return e
		}
	}
	if len(list) == 0 {
		c.turn(m.Role)
	}
	return nil
}

func blockInto(c *conversation, role string, raw jsontext.Value, at string) *openai.Error {
	kind, e := kindOf(raw, at)
	if e != nil {
		return e
	}
	switch {
	case kind == "text":
		text, e := blockText(raw, at)
		if e == nil {
			c.say(role, text)
		}
		return e
	case kind == "tool_use" && role == "assistant":
		return toolUseInto(c, raw, at)
	case kind == "tool_result" && role == "user":
		return toolResultInto(c, raw, at)
	case (kind == "thinking" || kind == "redacted_thinking") && role == "assistant":
		b, e := decode[thinkingBlock](raw, at)
		if e == nil && b.Thinking != "" {
			c.think(b.Thinking)
		}
		return e
	}
	return unsupported(at+".type", fmt.Sprintf("%.64q is not supported in a message of the %s; this model takes text, tool_use, tool_result and thinking", kind, role))
}

func blockText(raw jsontext.Value, at string) (string, *openai.Error) {
	b, e := decode[textBlock](raw, at)
	if e == nil && b.Text == nil {
		e = missing(at+".text", "a string")
	}
	return given(b.Text), e
}

// textBlocks reads a string or a list of text blocks.
func textBlocks(raw jsontext.Value, at string) ([]string, *openai.Error) {
	return textsOf(raw, at, "a string or a list of text blocks", func(raw jsontext.Value, at, kind string) (string, *openai.Error) {
		if kind != "text" {
			return "", unsupported(at+".type", fmt.Sprintf("%.64q is not supported; only text is", kind))
		}
		return blockText(raw, at)
	})
}

func toolUseInto(c *conversation, raw jsontext.Value, at string) *openai.Error {
	b, e := decode[toolUseBlock](raw, at)
	switch {
	case e != nil:
		return e
	case b.ID == "":
		return missing(at+".id", "the id of the call")
	case b.Name == "":
		return missing(at+".name", "the name of the tool")
	case b.Input.Kind() != '{':
		return invalid(at+".input", "must be an object")
	}
	c.call(b.ID, b.Name, string(b.Input))
	return nil
}

// toolResultInto adds a tool's answer. Chat completions have no way to say
// that it is an error, other than in words.
func toolResultInto(c *conversation, raw jsontext.Value, at string) *openai.Error {
	b, e := decode[toolResultBlock](raw, at)
	switch {
	case e != nil:
		return e
	case b.ToolUseID == "":
		return missing(at+".tool_use_id", "the id of the call")
	}
	var parts []string
	if !absent(b.Content) {
		if parts, e = textBlocks(b.Content, at+".content"); e != nil {
			return e
		}
	}
	if b.IsError {
		if len(parts) == 0 {
			parts = []string{""}
		}
		parts[0] = "error: " + parts[0]
	}
	c.result(b.ToolUseID, parts)
	return nil
}
