package translate

import (
	"bytes"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"infer/internal/openai"
)

// lenient lets text from a model that is not UTF-8 through, as U+FFFD.
var lenient = jsontext.AllowInvalidUTF8(true)

// maxNullable bounds in how many objects of one value unknown fields may be null.
const maxNullable = 16

// decode parses a value of a request strictly, but for a field that is null,
// which is as good as none. at is where the value stands in the request; the
// error names the field at fault from there.
func decode[T any](raw []byte, at string) (T, *openai.Error) {
	for range maxNullable {
		var v T
		err := json.Unmarshal(raw, &v, json.RejectUnknownMembers(true))
		if err == nil {
			return v, nil
		}
		var semantic *json.SemanticError
		if !errors.As(err, &semantic) || !errors.Is(err, json.ErrUnknownName) {
			return v, fault(err, at)
		}
		var dropped bool
		if raw, dropped = withoutNulls(raw, semantic.JSONPointer.Parent()); !dropped {
			return v, fault(err, at)
		}
	}
	var none T
	return none, invalid(at, "has unknown fields in too many of its objects; leave them out")
}

// withoutNulls returns valid JSON without those members of one of its objects
// that are null, and whether there were any.
func withoutNulls(raw []byte, object jsontext.Pointer) (less []byte, dropped bool) {
	var out bytes.Buffer
	d, e := jsontext.NewDecoder(bytes.NewReader(raw)), jsontext.NewEncoder(&out)
	for {
		token, err := d.ReadToken()
		if err != nil { // the end, for it was parsed before
			return out.Bytes(), dropped
		}
		token = token.Clone()
		kind, n := d.StackIndex(d.StackDepth())
		isName := kind == '{' && n%2 == 1
		if isName && d.StackPointer().Parent() == object && d.PeekKind() == 'n' {
			dropped = true
			_ = d.SkipValue()
			continue
		}
		_ = e.WriteToken(token) // to a buffer, in a valid order
	}
}

// fault says what the parser found, without repeating the client's values.
func fault(err error, at string) *openai.Error {
	var semantic *json.SemanticError
	if !errors.As(err, &semantic) {
		return openai.Invalid(at, openai.CodeInvalidJSON, "the body is not valid JSON; send one JSON object")
	}
	param := join(at, semantic.JSONPointer)
	if errors.Is(err, json.ErrUnknownName) {
		return openai.Invalid(param, openai.CodeUnsupported, "%s is not supported here; leave it out", param)
	}
	if param == "" {
		return openai.Invalid("", openai.CodeInvalidJSON, "the body is JSON but not an object; send one JSON object")
	}
	return invalid(param, "must be "+typeName(semantic.GoType))
}

// invalid returns a 400 that begins with the field's name.
func invalid(param, what string) *openai.Error {
	return openai.Invalid(param, openai.CodeInvalidValue, "%s %s", param, what)
}

// unsupported returns a 400 about something that this surface does not offer.
func unsupported(param, what string) *openai.Error {
	return openai.Invalid(param, openai.CodeUnsupported, "%s %s", param, what)
}

// missing returns a 400 about a field that must be there.
func missing(param, want string) *openai.Error {
	return openai.Invalid(param, openai.CodeMissingField, "%s is required: %s", param, want)
}

// maxName bounds what an error repeats of a name that the client made up.
const maxName = 64

// join writes a JSON pointer below at as clients know it: messages[0].content.
func join(at string, pointer jsontext.Pointer) string {
	var b strings.Builder
	b.WriteString(at)
	for name := range pointer.Tokens() {
		if len(name) > maxName {
			name = name[:maxName] + "…"
		}
		switch {
		case strings.Trim(name, "0123456789") == "" && b.Len() > 0:
			b.WriteString("[" + name + "]")
		case b.Len() == 0:
			b.WriteString(name)
		default:
			b.WriteString("." + name)
		}
	}
	return strings.ToValidUTF8(b.String(), "\ufffd")
}

func typeName(t reflect.Type) string {
	if t == nil {
		return "of another type"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	}
	return "an object"
}

// absent says that a value was not given or is null.
func absent(raw jsontext.Value) bool { return len(raw) == 0 || raw.Kind() == 'n' }

// kindOf peeks at the type of a tagged object. Everything else of it is parsed
// by the caller, who knows then what may be there.
func kindOf(raw jsontext.Value, at string) (string, *openai.Error) {
	if raw.Kind() != '{' {
		return "", invalid(at, "must be an object")
	}
	var tag struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &tag); err != nil {
		return "", fault(err, at)
	}
	return tag.Type, nil
}

// elements splits a list; want says what else it might have been.
func elements(raw jsontext.Value, at, want string) ([]jsontext.Value, *openai.Error) {
	if raw.Kind() != '[' {
		return nil, invalid(at, "must be "+want)
	}
	return decode[[]jsontext.Value](raw, at)
}

// textsOf reads what is a string, or a list of objects that text reads by their
// type; want says both.
func textsOf(raw jsontext.Value, at, want string, text func(raw jsontext.Value, at, kind string) (string, *openai.Error)) ([]string, *openai.Error) {
	switch {
	case absent(raw):
		return nil, missing(at, want)
	case raw.Kind() == '"':
		text, e := decode[string](raw, at)
		return []string{text}, e
	}
	list, e := elements(raw, at, want)
	if e != nil {
		return nil, e
	}
	var texts []string
	for i, raw := range list {
		at := fmt.Sprintf("%s[%d]", at, i)
		kind, e := kindOf(raw, at)
		if e != nil {
			return nil, e
		}
		t, e := text(raw, at, kind)
		if e != nil {
			return nil, e
		}
		texts = append(texts, t)
	}
	return texts, nil
}

// given is the text of an optional string.
func given(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// orElse is what p points to, or def.
func orElse[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// brokeOff is the engine's fault in a shape that clients of either protocol
// may try again on.
func brokeOff(what string) *openai.Error {
	return &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
		Message: what + "; send the request again, and see the server's log when it repeats"}
}
