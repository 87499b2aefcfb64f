package vllm

import (
	"bytes"
	"encoding/json/v2"
	"net/http"
	"regexp"
	"strings"

	"infer/internal/openai"
)

// complaint is what vLLM's error bodies have in common. They come in three
// shapes: an object with an integer code, a string, and FastAPI's detail.
type complaint struct {
	message string
	kind    string
	param   string
}

// readComplaint never fails: what it does not understand it leaves out.
func readComplaint(body []byte) complaint {
	var c complaint
	text := func(b []byte) string {
		var s string
		if len(b) == 0 || b[0] != '"' || json.Unmarshal(b, &s) != nil {
			return ""
		}
		return s
	}
	switch e := member(body, "error").of(body); {
	case len(e) == 0:
		c.message = text(member(body, "detail").of(body))
	case e[0] == '{':
		c.message, c.kind = text(member(e, "message").of(e)), text(member(e, "type").of(e))
		c.param = text(member(e, "param").of(e))
	default:
		c.message = text(e)
	}
	return c
}

// engineDead says whether body reports that vLLM's engine process has ended,
// as its API server does for a second or two before it exits itself; or that
// it is shutting down, when it answers 500 to all that needs its tokenizer.
func engineDead(body []byte) bool {
	for _, words := range []string{"EngineCore encountered an issue", "EngineDeadError", "cannot schedule new futures after shutdown"} {
		if bytes.Contains(body, []byte(words)) {
			return true
		}
	}
	return false
}

// wireError turns an error of vLLM into ours. What is the caller's fault keeps
// vLLM's words, what is not does not: they name its insides.
func wireError(status int, body []byte, route string) *openai.Error {
	c := readComplaint(body)
	switch {
	case engineDead(body):
		return &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
			Message: "the engine broke off; it is started again, send the request again"}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return openai.Internal("the engine refused the server's own key; set VLLM_API_KEY to the key of that vLLM")
	case status == http.StatusNotFound && (c.kind == "NotFoundError" || c.param == "model"):
		return &openai.Error{Status: status, Type: openai.TypeNotFound, Code: openai.CodeModelNotFound,
			Param: "model", Message: oneLine(c.message)}
	case status == http.StatusNotFound && c.kind == "":
		return &openai.Error{Status: status, Type: openai.TypeNotFound, Code: openai.CodeRouteNotFound,
			Message: "the engine does not serve " + route + " for this model; choose a model made for it"}
	case status == http.StatusMethodNotAllowed:
		return &openai.Error{Status: status, Type: openai.TypeInvalidRequest, Code: openai.CodeMethodNotAllowed,
			Message: "the engine does not answer this method at " + route}
	case status == http.StatusNotImplemented:
		return &openai.Error{Status: http.StatusBadRequest, Type: openai.TypeInvalidRequest, Code: openai.CodeUnsupported,
			Param: c.param, Message: oneLine(c.message)}
	case status == http.StatusServiceUnavailable:
		return &openai.Error{Status: http.StatusTooManyRequests, Type: openai.TypeRateLimit, Code: openai.CodeQueueFull,
			Message: "the engine takes no more requests now; retry after the time in Retry-After"}
	case status >= 500:
		return openai.Internal("the engine failed to answer; the log of the server says why")
	}
	return callersFault(status, c)
}

// callersFault is the error of a request that vLLM refused.
func callersFault(status int, c complaint) *openai.Error {
	e := &openai.Error{Status: status, Type: openai.TypeInvalidRequest, Code: openai.CodeInvalidValue,
		Param: strings.TrimPrefix(c.param, "body."), Message: oneLine(c.message)}
	if status == http.StatusNotFound {
		e.Type, e.Code = openai.TypeNotFound, openai.CodeInvalidValue
	}
	switch {
	case c.param == "input_tokens", strings.Contains(c.message, "maximum context length"):
		e.Code = openai.CodeContextLength
	case strings.Contains(c.message, "'json_invalid'"):
		e.Code, e.Param = openai.CodeInvalidJSON, ""
	case strings.Contains(c.message, "'missing'"):
		e.Code = openai.CodeMissingField
	}
	if m := validation.FindStringSubmatch(c.message); m != nil {
		e.Message = m[2]
		if e.Param != "" {
			e.Message = e.Param + ": " + e.Message
		}
	}
	if e.Message == "" {
		e.Message = "the engine refused the request and did not say why"
	}
	return e
}

// validation finds the place and the words in what Python prints of a faulty
// field. The rest may repeat the caller's text.
var validation = regexp.MustCompile(`'loc': '?([^,']*)'?.*?'msg': ['"]([^'"]*)['"]`)

// oneLine joins lines and bounds them.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 1024 {
		s = strings.ToValidUTF8(s[:1024], "") + "…"
	}
	return s
}
