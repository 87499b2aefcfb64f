package translate

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"net/http"

	"infer/internal/openai"
)

// reply is what the chat handler writes: a whole completion or one chunk.
type reply struct {
	Created int64          `json:"created"`
	Model   string         `json:"model"`
	Choices []replyChoice  `json:"choices"`
	Usage   *chatUsage     `json:"usage"`
	Error   jsontext.Value `json:"error"`
}

type replyChoice struct {
	Index    int          `json:"index"`
	Message  replyMessage `json:"message"`
	Delta    replyMessage `json:"delta"`
	Logprobs *struct {
		Content []logprob `json:"content"`
	} `json:"logprobs"`
	FinishReason string         `json:"finish_reason"`
	StopReason   jsontext.Value `json:"stop_reason"` // vLLM's: the stop string that was met, a token id or null
}

type replyMessage struct {
	Content          string      `json:"content"`
	Refusal          string      `json:"refusal"`
	ReasoningContent string      `json:"reasoning_content"`
	Reasoning        string      `json:"reasoning"` // the newer name of reasoning_content in vLLM
	ToolCalls        []replyCall `json:"tool_calls"`
}

type replyCall struct {
	Index    int    `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type logprob struct {
	Token       string       `json:"token"`
	Logprob     float64      `json:"logprob"`
	Bytes       []int        `json:"bytes"`
	TopLogprobs []topLogprob `json:"top_logprobs"`
}

type topLogprob struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

type chatUsage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	PromptDetails    struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		ReasoningTokens int `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

// parseError reads an error envelope. Engines differ in it: vLLM writes a
// number into code, others a string instead of the whole object. status is 0
// for an error inside a stream, which has none of its own.
func parseError(raw jsontext.Value, status int) *openai.Error {
	var object struct {
		Message string         `json:"message"`
		Type    string         `json:"type"`
		Param   string         `json:"param"`
		Code    jsontext.Value `json:"code"`
		Phase   string         `json:"phase"`
		Cause   string         `json:"cause"`
	}
	if raw.Kind() == '"' {
		_ = json.Unmarshal(raw, &object.Message, lenient) // stays empty when broken
	} else {
		_ = json.Unmarshal(raw, &object, lenient)
	}
	e := &openai.Error{Status: status, Type: object.Type, Param: object.Param, Message: object.Message,
		Phase: object.Phase, Cause: object.Cause}
	switch object.Code.Kind() {
	case '0':
		if status == 0 {
			_ = json.Unmarshal(object.Code, &e.Status)
		}
	case '"':
		_ = json.Unmarshal(object.Code, &e.Code, lenient)
	}
	complete(e)
	return e
}

// statuses is what an error's type says when nothing else does.
var statuses = []struct {
	kind   string
	status int
}{
	{openai.TypeInvalidRequest, http.StatusBadRequest},
	{openai.TypeAuthentication, http.StatusUnauthorized},
	{openai.TypePermission, http.StatusForbidden},
	{openai.TypeNotFound, http.StatusNotFound},
	{openai.TypeRateLimit, http.StatusTooManyRequests},
	{openai.TypeServer, http.StatusBadGateway},
	{openai.TypeUnavailable, http.StatusServiceUnavailable},
	{openai.TypeTimeout, http.StatusGatewayTimeout},
}

// complete fills what an engine left out or said in words of its own.
func complete(e *openai.Error) {
	for _, s := range statuses {
		if e.Type == s.kind && (e.Status < 400 || e.Status > 599) {
			e.Status = s.status
		}
	}
	if e.Status < 400 || e.Status > 599 {
		e.Status = http.StatusBadGateway
	}
	if !known(e.Type) {
		e.Type = openai.TypeServer
		if e.Status < 500 {
			e.Type = openai.TypeInvalidRequest
		}
		for _, s := range statuses {
			if e.Status == s.status {
				e.Type = s.kind
			}
		}
	}
	if e.Message == "" {
		e.Message = "the engine answered " + http.StatusText(e.Status) + " without a reason"
	}
}

func known(kind string) bool {
	for _, s := range statuses {
		if s.kind == kind {
			return true
		}
	}
	return false
}
