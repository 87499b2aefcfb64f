package translate

import (
	"crypto/rand"
	"encoding/json/jsontext"
	"net/http"
	"time"

	"infer/internal/openai"
)

// responses is one request for a response, and what it has been told.
type responses struct {
	events
	req       responsesRequest
	request   chatRequest
	functions []functionTool
	turn      *Turn // nil for a response that nobody keeps
	object    *response
	seq       int // of the next event
}

// response is OpenAI's Response object. Clients that validate want every field
// to be there, and those that are no pointer not to be null.
type response struct {
	ID                 string             `json:"id"`
	Object             string             `json:"object"` // always response
	CreatedAt          int64              `json:"created_at"`
	CompletedAt        *int64             `json:"completed_at"`
	Status             string             `json:"status"`
	Background         bool               `json:"background"`
	Error              *responseError     `json:"error"`
	IncompleteDetails  *incompleteDetails `json:"incomplete_details"`
	Instructions       *string            `json:"instructions"`
	MaxOutputTokens    *int               `json:"max_output_tokens"`
	MaxToolCalls       *int               `json:"max_tool_calls"`
	Model              string             `json:"model"`
	Output             []any              `json:"output"`
	ParallelToolCalls  bool               `json:"parallel_tool_calls"`
	PresencePenalty    float64            `json:"presence_penalty"`
	FrequencyPenalty   float64            `json:"frequency_penalty"`
	PreviousResponseID *string            `json:"previous_response_id"`
	PromptCacheKey     *string            `json:"prompt_cache_key"`
	Reasoning          reasoning          `json:"reasoning"`
	SafetyIdentifier   *string            `json:"safety_identifier"`
	ServiceTier        string             `json:"service_tier"`
	Store              bool               `json:"store"`
	Temperature        float64            `json:"temperature"`
	Text               responsesText      `json:"text"`
	ToolChoice         jsontext.Value     `json:"tool_choice"`
	Tools              []functionTool     `json:"tools"`
	TopLogprobs        int                `json:"top_logprobs"`
	TopP               float64            `json:"top_p"`
	Truncation         string             `json:"truncation"`
	Usage              *responseUsage     `json:"usage"`
	User               *string            `json:"user"`
	Metadata           map[string]string  `json:"metadata"`
}

type responseError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type incompleteDetails struct {
	Reason string `json:"reason"`
}

type responseUsage struct {
	InputTokens  int `json:"input_tokens"`
	InputDetails struct {
		CachedTokens     int `json:"cached_tokens"`
		CacheWriteTokens int `json:"cache_write_tokens"`
	} `json:"input_tokens_details"`
	OutputTokens  int `json:"output_tokens"`
	OutputDetails struct {
		ReasoningTokens int `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	TotalTokens int `json:"total_tokens"`
}

// The items of a response's output.
type (
	messageItem struct {
		ID      string       `json:"id"`
		Type    string       `json:"type"` // always message
		Status  string       `json:"status"`
		Role    string       `json:"role"` // always assistant
		Content []outputText `json:"content"`
	}
	outputText struct {
		Type        string     `json:"type"` // always output_text
		Text        string     `json:"text"`
		Annotations []struct{} `json:"annotations"`
		Logprobs    []logprob  `json:"logprobs"`
	}
	callItem struct {
		ID        string `json:"id"`
		Type      string `json:"type"` // always function_call
		Status    string `json:"status"`
		CallID    string `json:"call_id"`
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	}
	reasoningItem struct {
		ID      string      `json:"id"`
		Type    string      `json:"type"` // always reasoning
		Status  string      `json:"status"`
		Summary []typedText `json:"summary"`
		Content []typedText `json:"content"`
	}
)

// Statuses of a response and of its items.
const (
	statusQueued     = "queued"
	statusInProgress = "in_progress"
	statusCompleted  = "completed"
	statusIncomplete = "incomplete"
	statusFailed     = "failed"
)

func (d *responses) chat() (*chatRequest, *answer) { return &d.request, &answer{} }

func (d *responses) names() [][2]string {
	return [][2]string{{"max_completion_tokens", "max_output_tokens"}, {"response_format", "text.format"},
		{"reasoning_effort", "reasoning.effort"}, {"verbosity", "text.verbosity"}, {"logprobs", "include"}, {"messages", "input"}}
}

func (d *responses) refuse(w http.ResponseWriter, e *openai.Error) { openai.WriteError(w, e) }

// start makes the response as it is before anything was said. What the client
// left to the engine is told as the protocol's default.
func (d *responses) start(a *answer) {
	r := &d.req
	d.object = &response{
		ID: "resp_" + rand.Text(), Object: "response", CreatedAt: a.created, Status: statusInProgress,
		Instructions: r.Instructions, MaxOutputTokens: r.MaxOutputTokens, MaxToolCalls: r.MaxToolCalls, Model: a.model,
		Output: []any{}, ParallelToolCalls: orElse(r.ParallelToolCalls, true),
		PresencePenalty: orElse(r.PresencePenalty, 0), FrequencyPenalty: orElse(r.FrequencyPenalty, 0),
		PromptCacheKey: r.PromptCacheKey, SafetyIdentifier: r.SafetyIdentifier, ServiceTier: "default",
		Temperature: orElse(r.Temperature, 1), Text: r.Text, ToolChoice: r.ToolChoice, Tools: d.functions,
		TopLogprobs: orElse(r.TopLogprobs, 0), TopP: orElse(r.TopP, 1), Truncation: "disabled",
		User: r.User, Metadata: r.Metadata,
	}
	if t := d.turn; t != nil {
		d.object.ID, d.object.Background, d.object.Store = t.ID, t.Background, t.Background || t.Keep != nil
		if t.Created != 0 {
			d.object.CreatedAt = t.Created
		}
		if r.PreviousResponseID != "" {
			d.object.PreviousResponseID = &r.PreviousResponseID
		}
	}
	if r.Reasoning != nil {
		d.object.Reasoning = *r.Reasoning
	}
	if absent(d.object.ToolChoice) {
		d.object.ToolChoice = jsontext.Value(`"auto"`)
	}
	if absent(d.object.Text.Format) {
		d.object.Text.Format = jsontext.Value(`{"type":"text"}`)
	}
	for i := range d.object.Tools {
		if absent(d.object.Tools[i].Parameters) {
			d.object.Tools[i].Parameters = jsontext.Value("null")
		}
	}
	if d.object.Model == "" {
		d.object.Model = r.Model
	}
	if d.object.CreatedAt == 0 {
		d.object.CreatedAt = time.Now().Unix()
	}
}

// conclude writes into the object how the answer ended.
func (d *responses) conclude(a *answer) {
	o := d.object
	o.Output = d.output(a, "")
	u := &responseUsage{InputTokens: a.usage.PromptTokens, OutputTokens: a.usage.CompletionTokens,
		TotalTokens: a.usage.PromptTokens + a.usage.CompletionTokens}
	u.InputDetails.CachedTokens = a.usage.PromptDetails.CachedTokens
	u.OutputDetails.ReasoningTokens = a.usage.CompletionDetails.ReasoningTokens
	o.Usage = u
	switch a.finish {
	case "length":
		o.Status, o.IncompleteDetails = statusIncomplete, &incompleteDetails{"max_output_tokens"}
	case "content_filter":
		o.Status, o.IncompleteDetails = statusIncomplete, &incompleteDetails{"content_filter"}
	default:
		now := time.Now().Unix()
		o.Status, o.CompletedAt = statusCompleted, &now
	}
}

// output lists the items; all but the last are whole.
func (d *responses) output(a *answer, last string) []any {
	items := []any{}
	for i, p := range a.parts {
		status := statusCompleted
		if i == len(a.parts)-1 {
			if last != "" {
				status = last
			} else if a.cutShort() {
				status = statusIncomplete
			}
		}
		identify(p)
		items = append(items, item(p, status))
	}
	return items
}

func (d *responses) whole(a *answer) (any, *openai.Error) {
	d.start(a)
	d.conclude(a)
	d.keep()
	return d.object, nil
}

// identify gives a part its id, and a call one by which its result is known.
func identify(p *part) {
	if p.id != "" {
		return
	}
	p.id = map[kind]string{kindText: "msg_", kindReasoning: "rs_", kindCall: "fc_"}[p.kind] + rand.Text()
	if p.kind == kindCall && p.callID == "" {
		p.callID = "call_" + rand.Text()
	}
}

// item is a part as an output item.
func item(p *part, status string) any {
	text := string(p.text)
	switch p.kind {
	case kindCall:
		return callItem{p.id, "function_call", status, p.callID, p.name, text}
	case kindReasoning:
		return reasoningItem{p.id, "reasoning", status, []typedText{}, []typedText{{"reasoning_text", text}}}
	}
	return messageItem{p.id, "message", status, "assistant", []outputText{textPart(text, p.logprobs)}}
}

func textPart(text string, logprobs []logprob) outputText {
	return outputText{"output_text", text, []struct{}{}, logprobs}
}
