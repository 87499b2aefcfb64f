package policy

import (
	"fmt"
	"strings"

	"infer/internal/openai"
)

// rule judges one value; param is where it stands. Null is as good as absent.
type rule func(p *Policy, c *call, param string, v openai.Value) *openai.Error

// call is what the rules know of one request.
type call struct {
	limits Limits
	media  []medium
	parts  int
}

func wrongKind(param, want string, v openai.Value) *openai.Error {
	return openai.Invalid(param, openai.CodeInvalidValue, "%s must be %s, got %s", param, want, v.KindName())
}

// raise says how a limit is raised, which only those with a flag are.
func raise(flag string) string {
	if flag == "" {
		return "this limit is fixed"
	}
	return "raise it with --" + flag
}

func tooMany(param string, got, limit int, flag string) *openai.Error {
	return openai.Invalid(param, openai.CodeLimit, "%s has %d entries, more than the %d allowed; send fewer (%s)", param, got, limit, raise(flag))
}

func tooLong(param string, got, limit int, flag string) *openai.Error {
	return openai.Invalid(param, openai.CodeLimit, "%s has %d bytes, more than the %d allowed; shorten it (%s)", param, got, limit, raise(flag))
}

// clip bounds a client's name within a param.
func clip(name []byte) string {
	if len(name) > 64 {
		return strings.ToValidUTF8(string(name[:64]), "") + "…"
	}
	return string(name)
}

// whole bounds an integer. Engines read "5" and true as integers too, past any
// limit that looks at numbers only: these are refused.
func whole(low, high int, flag string) rule {
	return func(_ *Policy, _ *call, param string, v openai.Value) *openai.Error {
		return within(param, v, low, high, flag)
	}
}

func within(param string, v openai.Value, low, high int, flag string) *openai.Error {
	if v.Absent() {
		return nil
	}
	n, ok := v.Whole()
	switch {
	case v.Kind() != '0':
		return wrongKind(param, "an integer", v)
	case !ok:
		return openai.Invalid(param, openai.CodeInvalidValue, "%s must be an integer of sensible size", param)
	case n < low:
		return openai.Invalid(param, openai.CodeInvalidValue, "%s must be at least %d, got %d", param, low, n)
	case n > high:
		return openai.Invalid(param, openai.CodeLimit, "%s is %d, more than the %d allowed; ask for less (%s)", param, n, high, raise(flag))
	}
	return nil
}

// answers bounds how many are asked for to one prompt.
func answers(low int) rule {
	return func(p *Policy, _ *call, param string, v openai.Value) *openai.Error {
		return within(param, v, low, p.cfg.MaxN, "max-n")
	}
}

// tokens bounds what is asked for by the model's context, when it is known.
func tokens(low int) rule {
	return func(_ *Policy, c *call, param string, v openai.Value) *openai.Error {
		const most = 1 << 30
		if e := within(param, v, low, most, ""); e != nil || v.Absent() {
			return e
		}
		n, _ := v.Whole()
		if limit := c.limits.ContextTokens; limit > 0 && n > limit {
			return openai.Invalid(param, openai.CodeContextLength,
				"%s is %d, but the model's context holds %d tokens, prompt included; ask for fewer", param, n, limit)
		}
		return nil
	}
}

// logprobs of a chat are a boolean, those of completions a number.
func logprobs(p *Policy, c *call, param string, v openai.Value) *openai.Error {
	if k := v.Kind(); k == 't' || k == 'f' {
		return nil
	}
	return within(param, v, 0, maxLogprobs, "")
}

// list bounds an array.
func list(limit int) rule {
	return func(_ *Policy, _ *call, param string, v openai.Value) *openai.Error {
		return listOf(param, v, limit, "")
	}
}

func listOf(param string, v openai.Value, limit int, flag string) *openai.Error {
	if v.Absent() {
		return nil
	}
	if v.Kind() != '[' {
		return wrongKind(param, "an array", v)
	}
	if n := v.Len(); n > limit {
		return tooMany(param, n, limit, flag)
	}
	return nil
}

// texts bounds a string, or an array of strings.
func texts(limit, bytes int) rule {
	return func(_ *Policy, _ *call, param string, v openai.Value) *openai.Error {
		switch v.Kind() {
		case 'n':
			return nil
		case '"':
			return text(bytes)(nil, nil, param, v)
		}
		if e := listOf(param, v, limit, ""); e != nil {
			return e
		}
		for i, s := range v.Elements() {
			if e := text(bytes)(nil, nil, fmt.Sprintf("%s[%d]", param, i), s); e != nil {
				return e
			}
		}
		return nil
	}
}

// text bounds a string.
func text(bytes int) rule {
	return func(_ *Policy, _ *call, param string, v openai.Value) *openai.Error {
		switch {
		case v.Absent():
			return nil
		case v.Kind() != '"':
			return wrongKind(param, "a string", v)
		case v.StringBytes() > bytes:
			return tooLong(param, v.StringBytes(), bytes, "")
		}
		return nil
	}
}

// prompts bounds the number of prompts, texts or documents. One text, one list
// of ids and an object are one.
func prompts(p *Policy, _ *call, param string, v openai.Value) *openai.Error {
	if v.Kind() != '[' {
		return nil
	}
	for _, first := range v.Elements() {
		if first.Kind() == '0' {
			return nil
		}
		break
	}
	return listOf(param, v, p.cfg.MaxPrompts, "max-prompts")
}

func biases(_ *Policy, _ *call, param string, v openai.Value) *openai.Error {
	switch {
	case v.Absent():
		return nil
	case v.Kind() != '{':
		return wrongKind(param, "an object", v)
	}
	if n := v.Len(); n > maxBiases {
		return tooMany(param, n, maxBiases, "")
	}
	return nil
}

// metadata is bounded as OpenAI does: 16 pairs, names of 64 and values of 512.
func metadata(_ *Policy, _ *call, param string, v openai.Value) *openai.Error {
	switch {
	case v.Absent():
		return nil
	case v.Kind() != '{':
		return wrongKind(param, "an object", v)
	}
	if n := v.Len(); n > maxMetadata {
		return tooMany(param, n, maxMetadata, "")
	}
	for name, value := range v.Members() {
		if n := len(name); n > 64 {
			return tooLong(param+"."+clip(name), n, 64, "")
		}
		if n := len(value.Text); n > maxIDBytes+2 {
			return tooLong(param+"."+clip(name), n-2, maxIDBytes, "")
		}
	}
	return nil
}
