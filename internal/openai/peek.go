package openai

import (
	"bytes"
	"encoding/binary"
	"encoding/json/jsontext"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/http"
)

// Request is what the server needs to know of a request's body. All else is
// the engine's business.
type Request struct {
	Model        string // empty when absent or null: the canonical model is meant
	Stream       bool
	IncludeUsage bool // stream_options.include_usage

	PromptTokens int // estimate of all prompts together; see estimate
	MaxTokens    int // asked by max_completion_tokens, max_output_tokens or max_tokens; 0 when not asked
	N            int // answers to one prompt, n or best_of; at least 1
	Prompts      int // prompts, texts or documents in one body; at least 1

	Members []Member // all that the body says
}

// Member is one name of a body and what stands there.
type Member struct {
	Name  string
	Value Value
}

// Member returns the value of one name; it is absent when there is none.
func (r *Request) Member(name string) Value {
	for _, m := range r.Members {
		if m.Name == name {
			return m.Value
		}
	}
	return Value{}
}

// maxDepth bounds the nesting of a body. Tool schemas are the deepest of real
// requests and stay below 20.
const maxDepth = 64

// Peek parses body strictly as one JSON object and returns the fields that the
// server needs. Its error is a 400: invalid_json for a body that is not one
// well-formed object, invalid_value for a field of the wrong type.
func Peek(body []byte) (Request, *Error) {
	req := Request{N: 1, Prompts: 1, Members: make([]Member, 0, 16)}
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
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return req, invalidJSON(err)
		}
		m := Member{Name: name.String()}
		v, err := d.ReadValue()
		if err != nil {
			return req, invalidJSON(err)
		}
		end := int(d.InputOffset())
		m.Value = Value{body[end-len(v) : end], end - len(v)}
		req.Members = append(req.Members, m)
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
	var wrong *Error
	for _, m := range req.Members { // broken syntax, also further on, weighs more
		if e := req.take(m.Name, m.Value); wrong == nil {
			wrong = e
		}
	}
	return req, wrong
}

// maxCount bounds what a request says of itself, so that no product of two such
// numbers overflows. It is more than any engine grants.
const maxCount = 1 << 30

// take reads one member of the body. Numbers of the wrong type are left to
// those who bound or use them.
func (r *Request) take(name string, v Value) *Error {
	switch name {
	case "model":
		return readString("model", v, &r.Model)
	case "stream":
		return readBool("stream", v, &r.Stream)
	case "stream_options":
		switch v.Kind() {
		case 'n':
		case '{':
			return readBool("stream_options.include_usage", v.Member("include_usage"), &r.IncludeUsage)
		default:
			return wrongKind("stream_options", "an object", v)
		}
	case "n", "best_of":
		n, _ := v.Whole()
		r.N = max(r.N, min(n, maxCount))
	case "max_tokens", "max_completion_tokens", "max_output_tokens":
		n, _ := v.Whole()
		r.MaxTokens = max(r.MaxTokens, min(n, maxCount))
	default:
		tokens, texts := estimate(name, v)
		r.PromptTokens += tokens
		r.Prompts = max(r.Prompts, texts)
	}
	return nil
}

func readString(param string, v Value, to *string) *Error {
	switch v.Kind() {
	case 'n':
		return nil
	case '"':
		if *to = v.String(); *to == "" {
			return Invalid(param, CodeInvalidValue, "%s must not be empty", param)
		}
		return nil
	}
	return wrongKind(param, "a string", v)
}

func readBool(param string, v Value, to *bool) *Error {
	switch v.Kind() {
	case 'n':
		return nil
	case 't', 'f':
		*to = v.Kind() == 't'
		return nil
	}
	return wrongKind(param, "true or false", v)
}

func wrongKind(param, want string, v Value) *Error {
	return Invalid(param, CodeInvalidValue, "%s must be %s, got %s", param, want, v.KindName())
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
		if next < 64 { // JSON or code within the string, full of quotes
			return denseEnd(body, end+1)
		}
		i = end
	}
}

// denseEnd is stringEnd from within a string, for one with many escapes: it
// looks at eight bytes at a time, each of which may be a quote or a backslash.
func denseEnd(body []byte, i int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for i+8 <= len(body) {
		w := binary.LittleEndian.Uint64(body[i:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		// The lowest bit set is at the first byte that is zero in either.
		hit := ((quote-ones)&^quote | (slash-ones)&^slash) & tops
		if hit == 0 {
			i += 8
			continue
		}
		if i += bits.TrailingZeros64(hit) / 8; body[i] == '"' {
			return i
		}
		i += 2
	}
	for ; i < len(body); i++ {
		switch body[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return len(body)
}
