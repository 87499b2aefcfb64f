package translate

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"net/http"
	"slices"

	"infer/internal/openai"
)

// Responses returns a handler of OpenAI's POST /v1/responses, without state but
// for what the Turn of a request knows.
func Responses(chat http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn := turnOf(r.Context())
		ask(chat, w, r, func(body []byte) (dialect, *openai.Error) {
			d, e := parseResponses(body, turn)
			if e != nil {
				return nil, e
			}
			return d, nil
		}, openai.WriteError)
	})
}

// responsesRequest is the body of a request. Raw values are of several types,
// or only looked at for whether they ask for something.
type responsesRequest struct {
	Model             string            `json:"model"`
	Input             jsontext.Value    `json:"input"`
	Instructions      *string           `json:"instructions"`
	Stream            bool              `json:"stream"`
	StreamOptions     *responsesStream  `json:"stream_options"`
	MaxOutputTokens   *int              `json:"max_output_tokens"`
	Temperature       *float64          `json:"temperature"`
	TopP              *float64          `json:"top_p"`
	PresencePenalty   *float64          `json:"presence_penalty"`
	FrequencyPenalty  *float64          `json:"frequency_penalty"`
	TopLogprobs       *int              `json:"top_logprobs"`
	Include           []string          `json:"include"`
	Tools             []jsontext.Value  `json:"tools"`
	ToolChoice        jsontext.Value    `json:"tool_choice"`
	ParallelToolCalls *bool             `json:"parallel_tool_calls"`
	MaxToolCalls      *int              `json:"max_tool_calls"`
	Text              responsesText     `json:"text"`
	Reasoning         *reasoning        `json:"reasoning"`
	Metadata          map[string]string `json:"metadata"`
	Truncation        string            `json:"truncation"`
	User              *string           `json:"user"`
	SafetyIdentifier  *string           `json:"safety_identifier"`

	Store                bool           `json:"store"`
	ServiceTier          string         `json:"service_tier"`
	PromptCacheKey       *string        `json:"prompt_cache_key"`
	PromptCacheRetention string         `json:"prompt_cache_retention"`
	PromptCacheOptions   jsontext.Value `json:"prompt_cache_options"`

	Background         bool           `json:"background"`
	PreviousResponseID string         `json:"previous_response_id"`
	Conversation       jsontext.Value `json:"conversation"`
}

type responsesStream struct {
	IncludeObfuscation bool `json:"include_obfuscation"`
}

type reasoning struct {
	Effort          *string `json:"effort"`
	Summary         *string `json:"summary"`
	GenerateSummary *string `json:"generate_summary,omitzero"`
}

type responsesText struct {
	Format    jsontext.Value `json:"format,omitzero"`
	Verbosity string         `json:"verbosity,omitzero"`
}

// functionTool is a tool in a request and, with its nulls, in a response.
type functionTool struct {
	Type        string         `json:"type"`
	Name        string         `json:"name"`
	Description *string        `json:"description"`
	Parameters  jsontext.Value `json:"parameters"`
	Strict      *bool          `json:"strict"`
}

// textFormat is the text.format of a request.
type textFormat struct {
	Type        string         `json:"type"`
	Name        string         `json:"name"`
	Description *string        `json:"description"`
	Schema      jsontext.Value `json:"schema"`
	Strict      *bool          `json:"strict"`
}

// includable are what include may name. Only the log probabilities are given;
// the others belong to tools that are refused, or ask for reasoning in a form
// that can be sent back, as its text can.
func includable() []string {
	return []string{"message.output_text.logprobs", "reasoning.encrypted_content", "file_search_call.results",
		"web_search_call.results", "web_search_call.action.sources", "message.input_image.image_url",
		"computer_call_output.output.image_url", "code_interpreter_call.outputs"}
}

// parseResponses reads a request; turn may be nil.
func parseResponses(body []byte, turn *Turn) (*responses, *openai.Error) {
	req, e := decode[responsesRequest](body, "")
	if e != nil {
		return nil, e
	}
	if e := req.refused(turn != nil); e != nil {
		return nil, e
	}
	d := &responses{req: req, turn: turn, request: chatRequest{
		Model: req.Model, Stream: req.Stream, MaxCompletionTokens: req.MaxOutputTokens,
		Temperature: req.Temperature, TopP: req.TopP,
		PresencePenalty: req.PresencePenalty, FrequencyPenalty: req.FrequencyPenalty,
		User: given(req.User), Verbosity: req.Text.Verbosity,
	}}
	if turn != nil {
		d.seq = turn.First
	}
	if req.Stream {
		d.request.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	if req.Reasoning != nil {
		d.request.ReasoningEffort = given(req.Reasoning.Effort)
	}
	for _, translate := range []func() *openai.Error{d.logprobs, d.tools, d.toolChoice, d.format, d.input} {
		if e := translate(); e != nil {
			return nil, e
		}
	}
	return d, nil
}

// refused names what needs state, or time after the answer, unless there is
// somebody who keeps responses.
func (r *responsesRequest) refused(kept bool) *openai.Error {
	const stateless = "is not supported: no response is kept here; send the whole conversation in input"
	switch {
	case r.PreviousResponseID != "" && !kept:
		return unsupported("previous_response_id", stateless)
	case !absent(r.Conversation):
		return unsupported("conversation", stateless)
	case r.Background && !kept:
		return unsupported("background", "is not supported: no response is kept here; leave it out and wait for the answer")
	case r.Truncation == "auto":
		return unsupported("truncation", `"auto" is not supported: shorten the input yourself, or leave it out`)
	case r.Truncation != "" && r.Truncation != "disabled":
		return invalid("truncation", `must be "disabled"`)
	}
	for i, name := range r.Include {
		if at := fmt.Sprintf("include[%d]", i); !slices.Contains(includable(), name) {
			return unsupported(at, "is not supported; message.output_text.logprobs is")
		}
	}
	return nil
}

func (d *responses) logprobs() *openai.Error {
	d.request.Logprobs = slices.Contains(d.req.Include, includable()[0]) || orElse(d.req.TopLogprobs, 0) > 0
	if d.request.Logprobs {
		d.request.TopLogprobs = d.req.TopLogprobs
	}
	return nil
}

func (d *responses) tools() *openai.Error {
	for i, raw := range d.req.Tools {
		at := fmt.Sprintf("tools[%d]", i)
		kind, e := kindOf(raw, at)
		if e != nil {
			return e
		}
		if kind != "function" {
			return unsupported(at+".type", fmt.Sprintf("%.64q is not supported; only function tools are", kind))
		}
		tool, e := decode[functionTool](raw, at)
		if e != nil {
			return e
		}
		if tool.Name == "" {
			return missing(at+".name", "the name of the function")
		}
		d.functions = append(d.functions, tool)
		f := chatFunction{Name: tool.Name, Description: given(tool.Description), Strict: tool.Strict}
		if !absent(tool.Parameters) {
			f.Parameters = tool.Parameters
		}
		d.request.Tools = append(d.request.Tools, chatTool{Type: "function", Function: f})
	}
	if len(d.request.Tools) > 0 {
		d.request.ParallelToolCalls = d.req.ParallelToolCalls
	}
	return nil
}

// responsesChoice is a tool_choice that is an object.
type responsesChoice struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Mode  string `json:"mode"`
	Tools []struct {
		Type string `json:"type"`
		Name string `json:"name"`
	} `json:"tools"`
}

func (d *responses) toolChoice() *openai.Error {
	raw := d.req.ToolChoice
	if absent(raw) {
		return nil
	}
	if raw.Kind() == '"' {
		mode, e := decode[string](raw, "tool_choice")
		if e != nil {
			return e
		}
		return d.choose(mode)
	}
	kind, e := kindOf(raw, "tool_choice")
	if e != nil {
		return e
	}
	if kind != "function" && kind != "allowed_tools" {
		return unsupported("tool_choice.type", fmt.Sprintf("%.64q is not supported; use function or allowed_tools", kind))
	}
	choice, e := decode[responsesChoice](raw, "tool_choice")
	if e != nil {
		return e
	}
	if kind == "allowed_tools" {
		return d.allow(choice)
	}
	if !d.offers(choice.Name) {
		return invalid("tool_choice.name", "is not the name of a tool in tools")
	}
	d.request.ToolChoice = named(choice.Name)
	return nil
}

func (d *responses) choose(mode string) *openai.Error {
	switch {
	case mode != "auto" && mode != "none" && mode != "required":
		return invalid("tool_choice", "must be auto, none, required or an object")
	case len(d.request.Tools) > 0:
		d.request.ToolChoice = mode
	case mode == "required":
		return invalid("tool_choice", "is required, but tools is empty")
	}
	return nil
}

// allow leaves only the allowed tools: chat completions of most engines have
// no other way to say it.
func (d *responses) allow(c responsesChoice) *openai.Error {
	allowed := map[string]bool{}
	for i, t := range c.Tools {
		at := fmt.Sprintf("tool_choice.tools[%d]", i)
		if t.Type != "function" || !d.offers(t.Name) {
			return invalid(at, "is not a function in tools")
		}
		allowed[t.Name] = true
	}
	d.request.Tools = slices.DeleteFunc(d.request.Tools, func(t chatTool) bool { return !allowed[t.Function.Name] })
	return d.choose(c.Mode)
}

func (d *responses) offers(name string) bool {
	return slices.ContainsFunc(d.functions, func(t functionTool) bool { return t.Name == name })
}

func (d *responses) format() *openai.Error {
	raw := d.req.Text.Format
	if absent(raw) {
		return nil
	}
	f, e := decode[textFormat](raw, "text.format")
	if e != nil {
		return e
	}
	switch f.Type {
	case "text":
	case "json_object":
		d.request.ResponseFormat = map[string]string{"type": "json_object"}
	case "json_schema":
		if absent(f.Schema) {
			return missing("text.format.schema", "a JSON schema")
		}
		if f.Name == "" {
			return missing("text.format.name", "a name for the schema")
		}
		d.request.ResponseFormat = schemaFormat{Type: f.Type, JSONSchema: jsonSchema{
			Name: f.Name, Description: given(f.Description), Schema: f.Schema, Strict: f.Strict}}
		strict := orElse(f.Strict, false)
		f.Strict = &strict
		b, err := json.Marshal(f)
		if err != nil {
			return invalid("text.format", "cannot be repeated in the answer")
		}
		d.req.Text.Format = b // as the response tells it, with its nulls
	default:
		return invalid("text.format.type", "must be text, json_object or json_schema")
	}
	return nil
}
