package onnx

import (
	"net/http"

	"infer/internal/openai"
)

// tokenList is the answer of vLLM's /tokenize.
type tokenList struct {
	Count     int       `json:"count"`
	MaxLen    int       `json:"max_model_len"`
	Tokens    []int32   `json:"tokens"`
	TokenStrs *[]string `json:"token_strs"` // null when not asked for
}

// tokenize answers as vLLM's route of that name does.
func (e *Engine) tokenize(w http.ResponseWriter, r *http.Request) {
	l, f, _, ok := e.begin(w, r)
	if !ok {
		return
	}
	ids, fault := l.tokenized(f)
	if fault != nil {
		openai.WriteError(w, fault)
		return
	}
	withText, fault := take(f, "return_token_strs", false, "true or false")
	if fault == nil {
		fault = f.rest()
	}
	if fault != nil {
		openai.WriteError(w, fault)
		return
	}
	list := tokenList{Count: len(ids), MaxLen: l.model.ContextTokens, Tokens: ids}
	if withText {
		texts := make([]string, len(ids))
		for i, id := range ids {
			texts[i] = l.tok.Token(id)
		}
		list.TokenStrs = &texts
	}
	writeJSON(w, list)
}

func (l *live) tokenized(f fields) ([]int32, *openai.Error) {
	if _, chat := f["messages"]; chat {
		messages, fault := f.messages()
		if fault != nil {
			return nil, fault
		}
		delete(f, "messages")
		use, fault := f.toolUse()
		if fault != nil {
			return nil, fault
		}
		with, fault := f.settings(l.chat)
		if fault != nil {
			return nil, fault
		}
		r, err := l.chat.render(l.tok, messages, use.offered(), with)
		if err != nil {
			return nil, openai.Invalid("messages", openai.CodeInvalidValue, "%v", err)
		}
		return r.ids, nil
	}
	text, special, fault := f.plain()
	switch {
	case fault != nil:
		return nil, fault
	case special:
		return l.tok.EncodeWithSpecial(text), nil
	}
	return l.tok.Encode(text), nil
}

// plain takes a text that is no chat, and whether special tokens go around it.
func (f fields) plain() (text string, special bool, fault *openai.Error) {
	if _, ok := f["prompt"]; !ok {
		return "", false, openai.Invalid("prompt", openai.CodeMissingField, "prompt or messages is required")
	}
	if text, fault = take(f, "prompt", "", "a string"); fault != nil {
		return "", false, fault
	}
	special, fault = take(f, "add_special_tokens", true, "true or false")
	return text, special, fault
}

// tokenize answers /tokenize for an encoder, which reads texts only.
func (m *embedder) tokenize(f fields, _ string, _ *http.Request) (any, *openai.Error) {
	if _, chat := f["messages"]; chat {
		return nil, openai.Invalid("messages", openai.CodeUnsupported, "messages are for a model that chats; this one is an encoder, give a prompt")
	}
	text, special, fault := f.plain()
	if fault == nil {
		fault = f.rest()
	}
	if fault != nil {
		return nil, fault
	}
	ids := m.Tokens(text)
	if special {
		ids = m.Frame(ids, 0).IDs
	}
	return tokenList{Count: len(ids), MaxLen: m.MaxTokens(), Tokens: ids}, nil
}

// detokenize answers as vLLM's route of that name does.
func (e *Engine) detokenize(w http.ResponseWriter, r *http.Request) {
	l, f, _, ok := e.begin(w, r)
	if !ok {
		return
	}
	if _, ok := f["tokens"]; !ok {
		openai.WriteError(w, openai.Invalid("tokens", openai.CodeMissingField, "tokens is required: a list of token ids"))
		return
	}
	ids, fault := take[[]int32](f, "tokens", nil, "a list of token ids")
	if fault == nil {
		fault = l.config.knownTokens("tokens", ids)
	}
	if fault == nil {
		fault = f.rest()
	}
	if fault != nil {
		openai.WriteError(w, fault)
		return
	}
	writeJSON(w, struct {
		Prompt string `json:"prompt"`
	}{l.tok.Decode(ids, false)})
}
