package translate

import (
	"encoding/json/jsontext"
	"fmt"
	"net/http"
	"slices"

	"infer/internal/openai"
)

// Messages returns a handler of Anthropic's POST /v1/messages.
func Messages(chat http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask(chat, w, r, parseMessages, refuseMessages)
	})
}

// prompt is what a request for a message and one for its count share.
type prompt struct {
	Model        string            `json:"model"`
	Messages     jsontext.Value    `json:"messages"`
	System       jsontext.Value    `json:"system"`
	Tools        []jsontext.Value  `json:"tools"`
	ToolChoice   *messagesChoice   `json:"tool_choice"`
	Thinking     *messagesThinking `json:"thinking"`
	OutputConfig *outputConfig     `json:"output_config"`

	CacheControl      jsontext.Value `json:"cache_control"`
	ContextManagement jsontext.Value `json:"context_management"`
}

// messagesRequest is the body of a request.
type messagesRequest struct {
	prompt
	MaxTokens     *int     `json:"max_tokens"`
	Stream        bool     `json:"stream"`
	StopSequences []string `json:"stop_sequences"`
	Temperature   *float64 `json:"temperature"`
	TopP          *float64 `json:"top_p"`
	TopK          *int     `json:"top_k"`
	Metadata      struct {
		UserID *string `json:"user_id"`
	} `json:"metadata"`
	ServiceTier string `json:"service_tier"`
}

type messagesChoice struct {
	Type                   string `json:"type"`
	Name                   string `json:"name"`
	DisableParallelToolUse bool   `json:"disable_parallel_tool_use"`
}

type messagesThinking struct {
	Type         string `json:"type"`
	BudgetTokens *int   `json:"budget_tokens"`
	Display      string `json:"display"`
}

type outputConfig struct {
	Effort string         `json:"effort"`
	Format jsontext.Value `json:"format"`
}

type messagesTool struct {
	Type                string         `json:"type"`
	Name                string         `json:"name"`
	Description         string         `json:"description"`
	InputSchema         jsontext.Value `json:"input_schema"`
	Strict              *bool          `json:"strict"`
	CacheControl        jsontext.Value `json:"cache_control"`
	EagerInputStreaming bool           `json:"eager_input_streaming"`
	DeferLoading        bool           `json:"defer_loading"`
}

func parseMessages(body []byte) (dialect, *openai.Error) {
	req, e := decode[messagesRequest](body, "")
	if e != nil {
		return nil, e
	}
	if req.MaxTokens == nil {
		return nil, missing("max_tokens", "the most tokens to generate")
	}
	d := &messages{request: chatRequest{
		Model: req.Model, Stream: req.Stream, MaxTokens: req.MaxTokens,
		Temperature: req.Temperature, TopP: req.TopP, TopK: req.TopK,
		Stop: req.StopSequences, User: given(req.Metadata.UserID),
	}}
	if req.Stream {
		d.request.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	if e := req.fill(&d.request); e != nil {
		return nil, e
	}
	if t := req.Thinking; t != nil {
		d.mute = t.Type == "disabled" || t.Display == "omitted"
	}
	return d, nil
}

// fill writes the prompt into a chat.
func (p *prompt) fill(r *chatRequest) *openai.Error {
	for _, translate := range []func(*chatRequest) *openai.Error{p.conversation, p.tools, p.choose, p.thinking, p.output} {
		if e := translate(r); e != nil {
			return e
		}
	}
	return nil
}

func (p *prompt) tools(r *chatRequest) *openai.Error {
	for i, raw := range p.Tools {
		at := fmt.Sprintf("tools[%d]", i)
		kind, e := kindOf(raw, at)
		if e != nil {
			return e
		}
		if kind != "" && kind != "custom" {
			return unsupported(at+".type", fmt.Sprintf("%.64q is not supported; only tools of your own are", kind))
		}
		tool, e := decode[messagesTool](raw, at)
		switch {
		case e != nil:
			return e
		case tool.Name == "":
			return missing(at+".name", "the name of the tool")
		case absent(tool.InputSchema):
			return missing(at+".input_schema", "a JSON schema")
		case tool.DeferLoading:
			return unsupported(at+".defer_loading", "is not supported; leave it out")
		}
		r.Tools = append(r.Tools, chatTool{Type: "function", Function: chatFunction{
			Name: tool.Name, Description: tool.Description, Parameters: tool.InputSchema, Strict: tool.Strict}})
	}
	return nil
}

func (p *prompt) choose(r *chatRequest) *openai.Error {
	c := p.ToolChoice
	if c == nil {
		return nil
	}
	var choice any
	switch c.Type {
	case "auto", "none":
		choice = c.Type
	case "any":
		choice = "required"
	case "tool":
		if !slices.ContainsFunc(r.Tools, func(t chatTool) bool { return t.Function.Name == c.Name }) {
			return invalid("tool_choice.name", "is not the name of a tool in tools")
		}
		choice = named(c.Name)
	default:
		return invalid("tool_choice.type", "must be auto, any, tool or none")
	}
	if len(r.Tools) == 0 {
		if c.Type == "any" {
			return invalid("tool_choice", "asks for a tool, but tools is empty")
		}
		return nil
	}
	r.ToolChoice = choice
	if c.DisableParallelToolUse {
		r.ParallelToolCalls = new(bool)
	}
	return nil
}

// thinking switches thoughts off where the model's template can. An engine
// thinks as much as its model does, so that the budget is not passed on.
func (p *prompt) thinking(r *chatRequest) *openai.Error {
	switch {
	case p.Thinking == nil:
	case p.Thinking.Type == "disabled":
		// An effort of none would say the same, but not every engine takes it.
		r.TemplateKwargs = map[string]bool{"enable_thinking": false, "thinking": false}
	case p.Thinking.Type != "enabled" && p.Thinking.Type != "adaptive":
		return invalid("thinking.type", "must be enabled, adaptive or disabled")
	}
	return nil
}

func (p *prompt) output(r *chatRequest) *openai.Error {
	if p.OutputConfig == nil {
		return nil
	}
	r.ReasoningEffort = p.OutputConfig.Effort
	if absent(p.OutputConfig.Format) {
		return nil
	}
	f, e := decode[struct {
		Type   string         `json:"type"`
		Schema jsontext.Value `json:"schema"`
	}](p.OutputConfig.Format, "output_config.format")
	switch {
	case e != nil:
		return e
	case f.Type != "json_schema":
		return invalid("output_config.format.type", "must be json_schema")
	case absent(f.Schema):
		return missing("output_config.format.schema", "a JSON schema")
	}
	strict := true
	r.ResponseFormat = schemaFormat{Type: f.Type, JSONSchema: jsonSchema{Name: "answer", Schema: f.Schema, Strict: &strict}}
	return nil
}
