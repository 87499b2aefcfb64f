package onnx

import (
	"bytes"
	jsonv1 "encoding/json"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ardanlabs/jinja"

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
// string a client wrote. Arguments of earlier tool calls, which the wire has as
// text, become the object that templates expect.
func (m message) value(text func(string) string) (jinja.Value, error) {
	out := jinja.NewDict()
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v, err := templateValue(m[k], text)
		if err != nil {
			return out, err
		}
		if !v.IsNone() {
			out.AsDict().Set(k, v)
		}
	}
	if role, ok := out.AsDict().Get("role"); ok && role.String() == "developer" {
		out.AsDict().Set("role", jinja.NewString("system"))
	}
	if calls, ok := out.AsDict().Get("tool_calls"); ok && calls.IsList() {
		for _, c := range calls.AsList().Items {
			parseArguments(c, text)
		}
	}
	return out, nil
}

func parseArguments(call jinja.Value, text func(string) string) {
	if !call.IsDict() {
		return
	}
	f, ok := call.AsDict().Get("function")
	if !ok || !f.IsDict() {
		return
	}
	args, ok := f.AsDict().Get("arguments")
	if !ok || !args.IsString() {
		return
	}
	raw := jsontext.Value(args.AsString())
	if raw.IsValid() && raw.Kind() == '{' {
		if v, err := templateValue(raw, text); err == nil {
			f.AsDict().Set("arguments", v)
		}
	}
}

// templateValue converts JSON for a template, with members in their order:
// a model was trained on tools in the order their author wrote.
func templateValue(raw jsontext.Value, text func(string) string) (jinja.Value, error) {
	return decodeValue(jsontext.NewDecoder(bytes.NewReader(raw)), text)
}

func decodeValue(d *jsontext.Decoder, text func(string) string) (jinja.Value, error) {
	t, err := d.ReadToken()
	if err != nil {
		return jinja.None(), err
	}
	switch t.Kind() {
	case 't', 'f':
		return jinja.NewBool(t.Bool()), nil
	case '"':
		return jinja.NewString(text(t.String())), nil
	case '0':
		return jinja.FromGoValue(jsonv1.Number(t.String())), nil
	case '[':
		var items []jinja.Value
		for d.PeekKind() != ']' {
			v, err := decodeValue(d, text)
			if err != nil {
				return v, err
			}
			items = append(items, v)
		}
		_, err = d.ReadToken()
		return jinja.NewList(items), err
	case '{':
		out := jinja.NewDict()
		for d.PeekKind() != '}' {
			k, err := d.ReadToken()
			if err != nil {
				return out, err
			}
			name := text(k.String())
			v, err := decodeValue(d, text)
			if err != nil {
				return out, err
			}
			out.AsDict().Set(name, v)
		}
		_, err = d.ReadToken()
		return out, err
	}
	return jinja.None(), nil
}
