package translate

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
)

// chatRequest is what the engine is asked, in OpenAI's chat completions with
// the extensions of vLLM.
type chatRequest struct {
	Model               string         `json:"model,omitzero"`
	Messages            []*chatMessage `json:"messages"`
	Stream              bool           `json:"stream,omitzero"`
	StreamOptions       *streamOptions `json:"stream_options,omitzero"`
	MaxTokens           *int           `json:"max_tokens,omitzero"`
	MaxCompletionTokens *int           `json:"max_completion_tokens,omitzero"`
	Temperature         *float64       `json:"temperature,omitzero"`
	TopP                *float64       `json:"top_p,omitzero"`
	TopK                *int           `json:"top_k,omitzero"` // vLLM's
	PresencePenalty     *float64       `json:"presence_penalty,omitzero"`
	FrequencyPenalty    *float64       `json:"frequency_penalty,omitzero"`
	Stop                []string       `json:"stop,omitempty"`
	Tools               []chatTool     `json:"tools,omitempty"`
	ToolChoice          any            `json:"tool_choice,omitzero"`
	ParallelToolCalls   *bool          `json:"parallel_tool_calls,omitzero"`
	ResponseFormat      any            `json:"response_format,omitzero"`
	ReasoningEffort     string         `json:"reasoning_effort,omitzero"`
	Verbosity           string         `json:"verbosity,omitzero"`
	Logprobs            bool           `json:"logprobs,omitzero"`
	TopLogprobs         *int           `json:"top_logprobs,omitzero"`
	User                string         `json:"user,omitzero"`

	// vLLM's way to set a variable of the chat template.
	TemplateKwargs map[string]bool `json:"chat_template_kwargs,omitempty"`
	// vLLM's way to let the model go on with the last message.
	ContinueFinalMessage bool  `json:"continue_final_message,omitzero"`
	AddGenerationPrompt  *bool `json:"add_generation_prompt,omitzero"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type chatTool struct {
	Type     string       `json:"type"` // always function
	Function chatFunction `json:"function"`
}

type chatFunction struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitzero"`
	Parameters  jsontext.Value `json:"parameters,omitzero"`
	Strict      *bool          `json:"strict,omitzero"`
}

// namedTool is a tool_choice that forces one function.
type namedTool struct {
	Type     string `json:"type"` // always function
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

func named(name string) namedTool {
	n := namedTool{Type: "function"}
	n.Function.Name = name
	return n
}

// schemaFormat is a response_format that holds an answer to a JSON schema.
type schemaFormat struct {
	Type       string     `json:"type"` // always json_schema
	JSONSchema jsonSchema `json:"json_schema"`
}

type jsonSchema struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitzero"`
	Schema      jsontext.Value `json:"schema"`
	Strict      *bool          `json:"strict,omitzero"`
}

type chatMessage struct {
	Role       string     `json:"role"`
	Content    texts      `json:"content"`
	Reasoning  string     `json:"reasoning_content,omitzero"`
	ToolCalls  []chatCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitzero"`
}

// texts are the parts of a message: one is a string on the wire, none is null.
type texts []string

// MarshalJSON implements json.Marshaler.
func (t texts) MarshalJSON() ([]byte, error) {
	switch len(t) {
	case 0:
		return []byte("null"), nil
	case 1:
		return json.Marshal(t[0])
	}
	type part struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	parts := make([]part, len(t))
	for i, text := range t {
		parts[i] = part{"text", text}
	}
	return json.Marshal(parts)
}

type chatCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"` // always function
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// conversation collects the messages of a chat. What comes from one side in a
// row becomes one message, because chat templates want roles to alternate, one
// system message, and calls beside the text of their turn.
type conversation struct{ list []*chatMessage }

// turn returns the last message if role wrote it, otherwise a new one.
func (c *conversation) turn(role string) *chatMessage {
	if n := len(c.list); n > 0 && c.list[n-1].Role == role {
		return c.list[n-1]
	}
	m := &chatMessage{Role: role}
	c.list = append(c.list, m)
	return m
}

func (c *conversation) say(role string, parts ...string) {
	m := c.turn(role)
	m.Content = append(m.Content, parts...)
}

func (c *conversation) think(text string) {
	m := c.turn("assistant")
	if m.Reasoning != "" {
		m.Reasoning += "\n"
	}
	m.Reasoning += text
}

func (c *conversation) call(id, name, arguments string) {
	call := chatCall{ID: id, Type: "function"}
	call.Function.Name, call.Function.Arguments = name, arguments
	m := c.turn("assistant")
	m.ToolCalls = append(m.ToolCalls, call)
}

func (c *conversation) result(id string, parts []string) {
	if len(parts) == 0 {
		parts = []string{""}
	}
	c.list = append(c.list, &chatMessage{Role: "tool", ToolCallID: id, Content: parts})
}

// messages returns the conversation; a user's empty message is an empty string.
func (c *conversation) messages() []*chatMessage {
	for _, m := range c.list {
		if len(m.Content) == 0 && m.Role != "assistant" {
			m.Content = texts{""}
		}
	}
	return c.list
}
