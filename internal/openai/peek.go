package openai

import (
	"bytes"
	"encoding/json/jsontext"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Request is what the server needs to know of a request's body. All else is
// the engine's business.
type Request struct {
	Model        string // empty when absent or null: the canonical model is meant
	Stream       bool
	IncludeUsage bool // stream_options.include_usage
}

// maxDepth bounds the nesting of a body. Tool schemas are the deepest of real
// requests and stay below 20.
const maxDepth = 64

// Peek parses body strictly as one JSON object and returns the fields that the
// server needs. Its error is a 400: invalid_json for a body that is not one
// well-formed object, invalid_value for a field of the wrong type.
func Peek(body []byte) (Request, *Error) {
	var req Request
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	if d.PeekKind() != '{' {
		if _, err := d.ReadToken(); err != nil {
			return req, invalidJSON(err)
		}
		return req, Invalid("", CodeInvalidJSON, "the body is JSON but not an object; send one JSON object")
	}
	if _, err := d.ReadToken(); err != nil {
		return req, invalidJSON(err)
	}
	var wrong *Error // the first wrong type; broken syntax further on weighs more
	for d.PeekKind() == '"' {
		e, err := req.member(d)
		if err != nil {
			return req, invalidJSON(err)
		}
		if wrong == nil {
			wrong = e
		}
	}
	if _, err := d.ReadToken(); err != nil { // the closing brace
		return req, invalidJSON(err)
	}
	end := d.InputOffset()
	switch _, err := d.ReadToken(); {
	case err == nil:
		return req, Invalid("", CodeInvalidJSON, "the body goes on after its JSON object at offset %d; send one JSON object", end)
	case err != io.EOF:
		return req, invalidJSON(err)
	}
	if at, deep := tooDeep(body); deep {
		return req, Invalid("", CodeInvalidJSON, "the body nests deeper than %d levels at offset %d; flatten it", maxDepth, at)
	}
	return req, wrong
}

// member reads one name and its value.
func (r *Request) member(d *jsontext.Decoder) (*Error, error) {
	name, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch name.String() {
	case "model":
		return readString(d, "model", &r.Model)
	case "stream":
		return readBool(d, "stream", &r.Stream)
	case "stream_options":
		return r.streamOptions(d)
	}
	_, err = d.ReadValue()
	return nil, err
}

func (r *Request) streamOptions(d *jsontext.Decoder) (*Error, error) {
	if d.PeekKind() != '{' {
		return readNull(d, "stream_options", "an object")
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	var wrong *Error
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		if name.String() != "include_usage" {
			if _, err := d.ReadValue(); err != nil {
				return nil, err
			}
			continue
		}
		if wrong, err = readBool(d, "stream_options.include_usage", &r.IncludeUsage); err != nil {
			return nil, err
		}
	}
	_, err := d.ReadToken()
	return wrong, err
}

func readString(d *jsontext.Decoder, param string, to *string) (*Error, error) {
	if d.PeekKind() != '"' {
		return readNull(d, param, "a string")
	}
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if *to = t.String(); *to == "" {
		return Invalid(param, CodeInvalidValue, "%s must not be empty", param), nil
	}
	return nil, nil
}

func readBool(d *jsontext.Decoder, param string, to *bool) (*Error, error) {
	if k := d.PeekKind(); k != 't' && k != 'f' {
		return readNull(d, param, "true or false")
	}
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	*to = t.Bool()
	return nil, nil
}

// readNull skips a value that is null, as absent, or of a wrong type.
func readNull(d *jsontext.Decoder, param, want string) (*Error, error) {
	v, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	if v.Kind() == 'n' {
		return nil, nil
	}
	return Invalid(param, CodeInvalidValue, "%s must be %s, got %s", param, want, kindName(v.Kind())), nil
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "an array"
	}
	return "a boolean"
}

// invalidJSON says what is wrong and where, without repeating the body: the
// parser's own words may hold a part of it.
func invalidJSON(err error) *Error {
	what, where := "malformed", ""
	var syntax *jsontext.SyntacticError
	switch {
	case !errors.As(err, &syntax):
		if err == io.EOF {
			what = "empty"
		}
	case errors.Is(err, jsontext.ErrDuplicateName):
		what, where = "repeats a member name", fmt.Sprintf(" at offset %d", syntax.ByteOffset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		what, where = "ends too early", fmt.Sprintf(" at offset %d", syntax.ByteOffset)
	case syntax.Err != nil:
		what, where = syntax.Err.Error(), fmt.Sprintf(" at offset %d", syntax.ByteOffset)
	}
	return &Error{Status: http.StatusBadRequest, Type: TypeInvalidRequest, Code: CodeInvalidJSON,
		Message: fmt.Sprintf("the body is not valid JSON: %s%s; send one JSON object", what, where)}
}

// tooDeep finds nesting beyond maxDepth in well-formed JSON. Most bodies have
// too few brackets to be deep, which costs two fast counts to know.
func tooDeep(body []byte) (at int, deep bool) {
	if bytes.Count(body, []byte{'['})+bytes.Count(body, []byte{'{'}) <= maxDepth {
		return 0, false
	}
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			i = stringEnd(body, i)
		case '[', '{':
			if depth++; depth > maxDepth {
				return i, true
			}
		case ']', '}':
			depth--
		}
	}
	return 0, false
}

// stringEnd returns the index of the quote that closes the one at i.
func stringEnd(body []byte, i int) int {
	for {
		next := bytes.IndexByte(body[i+1:], '"')
		if next < 0 {
			return len(body)
		}
		end := i + 1 + next
		backslashes := 0
		for end-1-backslashes > i && body[end-1-backslashes] == '\\' {
			backslashes++
		}
		if backslashes%2 == 0 {
			return end
		}
		i = end
	}
}
