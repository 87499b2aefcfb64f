package translate

import (
	"encoding/json/jsontext"
	"fmt"
	"slices"
	"strings"

	"infer/internal/openai"
)

// An input item in each of its forms. What a client sends back of our own
// answers is all accepted.
type (
	inputMessage struct {
		Type    string         `json:"type"`
		ID      string         `json:"id"`
		Role    string         `json:"role"`
		Content jsontext.Value `json:"content"`
		Status  string         `json:"status"`
		Phase   string         `json:"phase"`
	}
	inputCall struct {
		Type            string         `json:"type"`
		ID              string         `json:"id"`
		CallID          string         `json:"call_id"`
		Name            string         `json:"name"`
		Arguments       *string        `json:"arguments"`
		ParsedArguments jsontext.Value `json:"parsed_arguments"` // added by OpenAI's Python client
		Status          string         `json:"status"`
	}
	inputResult struct {
		Type   string         `json:"type"`
		ID     string         `json:"id"`
		CallID string         `json:"call_id"`
		Output jsontext.Value `json:"output"`
		Status string         `json:"status"`
	}
	inputReasoning struct {
		Type      string         `json:"type"`
		ID        string         `json:"id"`
		Summary   []typedText    `json:"summary"`
		Content   []typedText    `json:"content"`
		Encrypted jsontext.Value `json:"encrypted_content"`
		Status    string         `json:"status"`
	}
	typedText struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	inputPart struct {
		Type        string         `json:"type"`
		Text        *string        `json:"text"`
		Refusal     *string        `json:"refusal"`
		Annotations jsontext.Value `json:"annotations"`
		Logprobs    jsontext.Value `json:"logprobs"`
		Parsed      jsontext.Value `json:"parsed"` // added by OpenAI's Python client
		Breakpoint  jsontext.Value `json:"prompt_cache_breakpoint"`
	}
)

// input turns instructions and input into the messages of a chat.
func (d *responses) input() *openai.Error {
	var c conversation
	if text := given(d.req.Instructions); text != "" {
		c.say("system", text)
	}
	switch raw := d.req.Input; {
	case absent(raw):
		return missing("input", "a string or a list of items")
	case raw.Kind() == '"':
		text, e := decode[string](raw, "input")
		if e != nil {
			return e
		}
		c.say("user", text)
	default:
		items, e := elements(raw, "input", "a string or a list of items")
		if e != nil {
			return e
		}
		if len(items) == 0 {
			return invalid("input", "is empty; give at least one item")
		}
		for i, item := range items {
			if e := inputItem(&c, item, fmt.Sprintf("input[%d]", i)); e != nil {
				return e
			}
		}
	}
	d.request.Messages = c.messages()
	return nil
}

func inputItem(c *conversation, raw jsontext.Value, at string) *openai.Error {
	kind, e := kindOf(raw, at)
	if e != nil {
		return e
	}
	switch kind {
	case "message", "": // the type of a message may be left out
		return inputSays(c, raw, at)
	case "function_call":
		return inputCalls(c, raw, at)
	case "function_call_output":
		return inputResults(c, raw, at)
	case "reasoning":
		return inputThinks(c, raw, at)
	case "item_reference":
		return unsupported(at+".type", `"item_reference" is not supported: no item is kept here; send the item itself`)
	}
	return unsupported(at+".type", fmt.Sprintf("%.64q is not supported; use message, function_call, function_call_output or reasoning", kind))
}

func inputSays(c *conversation, raw jsontext.Value, at string) *openai.Error {
	m, e := decode[inputMessage](raw, at)
	if e != nil {
		return e
	}
	if !slices.Contains([]string{"user", "assistant", "system", "developer"}, m.Role) {
		return invalid(at+".role", "must be user, assistant, system or developer")
	}
	if m.Role == "developer" { // the newer name, which most chat templates do not know
		m.Role = "system"
	}
	parts, e := inputContent(m.Content, at+".content")
	if e != nil {
		return e
	}
	c.say(m.Role, parts...)
	return nil
}

// inputContent reads a string or a list of text parts.
func inputContent(raw jsontext.Value, at string) ([]string, *openai.Error) {
	return textsOf(raw, at, "a string or a list of parts", func(raw jsontext.Value, at, kind string) (string, *openai.Error) {
		if !slices.Contains([]string{"input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"}, kind) {
			return "", unsupported(at+".type", fmt.Sprintf("%.64q is not supported; this model takes text only", kind))
		}
		p, e := decode[inputPart](raw, at)
		if e != nil {
			return "", e
		}
		text := p.Text
		if kind == "refusal" {
			text = p.Refusal
		}
		if text == nil {
			e = missing(at+".text", "a string")
		}
		return given(text), e
	})
}

func inputCalls(c *conversation, raw jsontext.Value, at string) *openai.Error {
	call, e := decode[inputCall](raw, at)
	switch {
	case e != nil:
		return e
	case call.CallID == "":
		return missing(at+".call_id", "the id of the call")
	case call.Name == "":
		return missing(at+".name", "the name of the function")
	case call.Arguments == nil:
		return missing(at+".arguments", "a string of JSON")
	}
	c.call(call.CallID, call.Name, *call.Arguments)
	return nil
}

func inputResults(c *conversation, raw jsontext.Value, at string) *openai.Error {
	result, e := decode[inputResult](raw, at)
	switch {
	case e != nil:
		return e
	case result.CallID == "":
		return missing(at+".call_id", "the id of the call")
	}
	parts, e := inputContent(result.Output, at+".output")
	if e != nil {
		return e
	}
	c.result(result.CallID, parts)
	return nil
}

// inputThinks reads reasoning that was sent back. What is encrypted was made
// elsewhere and says nothing to this model.
func inputThinks(c *conversation, raw jsontext.Value, at string) *openai.Error {
	r, e := decode[inputReasoning](raw, at)
	if e != nil {
		return e
	}
	list := r.Content
	if len(list) == 0 {
		list = r.Summary
	}
	var lines []string
	for _, t := range list {
		lines = append(lines, t.Text)
	}
	if len(lines) > 0 {
		c.think(strings.Join(lines, "\n"))
	}
	return nil
}
