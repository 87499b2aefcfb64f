package onnx

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"slices"
	"strings"

	"infer/internal/openai"
)

// message is one message of a chat.
type message map[string]jsontext.Value

// roles that a chat may hold; developer is the newer name of system.
var roles = []string{"system", "developer", "user", "assistant", "tool", "function"}

// messages takes and checks the messages of a chat.
func (f fields) messages() ([]message, *openai.Error) {
	if _, ok := f["messages"]; !ok {
		return nil, openai.Invalid("messages", openai.CodeMissingField, "messages is required: a list of objects with role and content")
	}
	list, e := take[[]message](f, "messages", nil, "a list of objects")
	if e != nil {
		return nil, e
	}
	if len(list) == 0 {
		return nil, openai.Invalid("messages", openai.CodeInvalidValue, "messages is empty; give at least one message")
	}
	for i, m := range list {
		if e := m.check(fmt.Sprintf("messages[%d]", i)); e != nil {
			return nil, e
		}
	}
	return list, nil
}

func (m message) check(at string) *openai.Error {
	var role string
	if err := json.Unmarshal(m["role"], &role); err != nil || !slices.Contains(roles, role) {
		return openai.Invalid(at+".role", openai.CodeInvalidValue, "%s.role must be one of %s", at, strings.Join(roles, ", "))
	}
	content, ok := m["content"]
	switch {
	case ok && content.Kind() == '"':
		return nil
	case ok && content.Kind() == '[':
		return m.joinParts(at + ".content")
	case role == "assistant" && (!ok || content.Kind() == 'n'):
		m["content"] = jsontext.Value(`""`)
		return nil
	case !ok:
		return openai.Invalid(at+".content", openai.CodeMissingField, "%s.content is required", at)
	}
	return openai.Invalid(at+".content", openai.CodeInvalidValue, "%s.content must be a string or a list of text parts", at)
}

// joinParts turns a list of text parts into one string.
func (m message) joinParts(at string) *openai.Error {
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if err := json.Unmarshal(m["content"], &parts); err != nil {
		return openai.Invalid(at, openai.CodeInvalidValue, "%s must be a list of objects with type and text", at)
	}
	var texts []string
	for i, p := range parts {
		if p.Type != "text" || p.Text == nil {
			return openai.Invalid(fmt.Sprintf("%s[%d].type", at, i), openai.CodeUnsupported,
				"%s[%d] is of type %q; this model takes text parts only", at, i, p.Type)
		}
		texts = append(texts, *p.Text)
	}
	b, err := json.Marshal(strings.Join(texts, "\n"))
	if err != nil {
		return openai.Invalid(at, openai.CodeInvalidValue, "%s is not valid text", at)
	}
	m["content"] = b
	return nil
}

// value is the message as a chat template sees it, with text applied to every
// string a client wrote.
func (m message) value(text func(string) string) map[string]any {
	out := map[string]any{}
	for k, raw := range m {
		var v any
		if json.Unmarshal(raw, &v) == nil && v != nil {
			out[k] = mapStrings(v, text)
		}
	}
	if out["role"] == "developer" {
		out["role"] = "system"
	}
	return out
}

func mapStrings(v any, f func(string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		for i := range v {
			v[i] = mapStrings(v[i], f)
		}
	case map[string]any:
		for k := range v {
			v[k] = mapStrings(v[k], f)
		}
	}
	return v
}
