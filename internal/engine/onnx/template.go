package onnx

import (
	"encoding/json/v2"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"

	"infer/internal/engine"
	"infer/internal/engine/onnx/tokenizer"
)

// chatTemplate turns messages into the token ids that a model was trained on.
type chatTemplate struct {
	tmpl    *jinja.Template   // nil when the model has none
	values  map[string]string // bos_token and the like
	control []string          // texts of the special tokens
	source  string

	knowsTools bool       // the template writes tools into the prompt
	calls      callFormat // how the model writes tool calls
}

// errNoTemplate is returned for a chat with a model that has no template.
var errNoTemplate = errors.New("this model has no chat template; use /v1/completions")

// specialToken is a token's text, or an object that holds it.
type specialToken string

// UnmarshalJSON implements json.Unmarshaler.
func (s *specialToken) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var o struct {
			Content string `json:"content"`
		}
		err := json.Unmarshal(b, &o)
		*s = specialToken(o.Content)
		return err
	}
	return json.Unmarshal(b, (*string)(s))
}

// loadChatTemplate reads chat_template.jinja or tokenizer_config.json of dir.
// A model without either has no template, which is no error here.
func loadChatTemplate(dir string, tok *tokenizer.Tokenizer) (*chatTemplate, error) {
	var cfg struct {
		Template any          `json:"chat_template"` // a text, or a list of named ones
		BOS      specialToken `json:"bos_token"`
		EOS      specialToken `json:"eos_token"`
		PAD      specialToken `json:"pad_token"`
		UNK      specialToken `json:"unk_token"`
	}
	path := filepath.Join(dir, "tokenizer_config.json")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(path, err)
	}
	if err == nil {
		if err := json.Unmarshal(b, &cfg); err != nil {
			return nil, invalidModel(fmt.Errorf("%s: %w", path, err))
		}
	}
	t := &chatTemplate{control: controlTokens(tok), values: map[string]string{"bos_token": string(cfg.BOS), "eos_token": string(cfg.EOS),
		"pad_token": string(cfg.PAD), "unk_token": string(cfg.UNK)}}
	source := defaultTemplate(cfg.Template)
	if own, err := os.ReadFile(filepath.Join(dir, "chat_template.jinja")); err == nil {
		source = string(own)
	}
	if source == "" {
		return t, nil
	}
	if t.tmpl, err = jinja.Compile(source); err != nil {
		return nil, &engine.Failure{Cause: engine.CauseModelUnsupported, Err: err,
			Message: fmt.Sprintf("chat template of %s: %v", dir, err),
			Remedy:  "put a template that compiles into chat_template.jinja of the model folder"}
	}
	t.source = source
	t.knowsTools = strings.Contains(source, "tools")
	t.calls = callFormatOf(source)
	return t, nil
}

// defaultTemplate picks the template out of both forms that exist.
func defaultTemplate(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		for _, e := range v {
			if m, ok := e.(map[string]any); ok && m["name"] == "default" {
				s, _ := m["template"].(string)
				return s
			}
		}
	}
	return ""
}

// fence is put into the text of control tokens that clients write, so that
// they stay text. It is a noncharacter of Unicode, which no text contains.
const fence = "\uFDD1"

// rendered is a chat as the model reads it.
type rendered struct {
	ids      []int32
	thinking bool // the template already opened the model's thoughts
}

// render applies the template and encodes the result. Control tokens come from
// the template alone: what looks like one inside a message or a tool is encoded
// as text.
func (t *chatTemplate) render(tok *tokenizer.Tokenizer, messages []message, tools []tool, with settings) (rendered, error) {
	if t.tmpl == nil {
		return rendered{}, errNoTemplate
	}
	data := map[string]jinja.Value{"add_generation_prompt": jinja.NewBool(true)}
	for k, v := range t.values {
		data[k] = jinja.NewString(v)
	}
	for k, raw := range with {
		v, err := templateValue(raw, t.fenceControl)
		if err != nil {
			return rendered{}, fmt.Errorf("chat_template_kwargs.%s: %w", k, err)
		}
		data[k] = v
	}
	if len(tools) > 0 && !t.knowsTools {
		messages = withToolPrompt(messages, tools)
	}
	list := make([]jinja.Value, len(messages))
	for i, m := range messages {
		v, err := m.value(t.fenceControl)
		if err != nil {
			return rendered{}, fmt.Errorf("messages[%d]: %w", i, err)
		}
		list[i] = v
	}
	data["messages"] = jinja.NewList(list)
	if len(tools) > 0 && t.knowsTools {
		values := make([]jinja.Value, len(tools))
		for i, f := range tools {
			v, err := templateValue(f.raw, t.fenceControl)
			if err != nil {
				return rendered{}, fmt.Errorf("tools[%d]: %w", i, err)
			}
			values[i] = v
		}
		data["tools"] = jinja.NewList(values)
	}
	text, err := t.tmpl.RenderValues(data)
	if err != nil {
		return rendered{}, fmt.Errorf("render the chat template: %w", err)
	}
	r := rendered{thinking: strings.HasSuffix(strings.TrimSpace(text), thinkOpen)}
	for part := range strings.SplitSeq(text, fence) {
		r.ids = append(r.ids, tok.Encode(part)...)
	}
	return r, nil
}

// fenceControl breaks every control token's text in s after its first rune.
func (t *chatTemplate) fenceControl(s string) string {
	s = strings.ReplaceAll(s, fence, "\uFFFD")
	for _, c := range t.control {
		if strings.Contains(s, c) {
			_, first := utf8.DecodeRuneInString(c)
			s = strings.ReplaceAll(s, c, c[:first]+fence+c[first:])
		}
	}
	return s
}

// controlTokens lists the texts of tok's special tokens.
func controlTokens(tok *tokenizer.Tokenizer) []string {
	var list []string
	for id := range int32(tok.VocabSize()) {
		if tok.IsSpecial(id) {
			list = append(list, tok.Token(id))
		}
	}
	return list
}
