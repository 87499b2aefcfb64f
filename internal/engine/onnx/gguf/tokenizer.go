package gguf

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	keyTokens     = "tokenizer.ggml.tokens"
	keyTokenTypes = "tokenizer.ggml.token_type"
	keyMerges     = "tokenizer.ggml.merges"
)

// The token types that tokenizer.json treats apart (llama.h, enum
// llama_token_type).
const (
	tokenControl     = 3
	tokenUserDefined = 4
)

// The splitting patterns as the models' own tokenizer.json files have them.
const (
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// pretokenizer is what a value of tokenizer.ggml.pre stands for.
type pretokenizer struct {
	normalizer   any
	steps        any
	ignoreMerges bool // a word that is a token is taken whole
	addBOS       bool // unless the file says otherwise
}

// object is a JSON object; encoding/json sorts its keys.
type object = map[string]any

func byteLevel(useRegex bool) object {
	return object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": useRegex}
}

func splitThenBytes(pattern string) object {
	return object{"type": "Sequence", "pretokenizers": []any{
		object{"type": "Split", "pattern": object{"Regex": pattern}, "behavior": "Isolated", "invert": false},
		byteLevel(false),
	}}
}

// pretokenizerOf knows the names that llama.cpp's llama-vocab.cpp gives to the
// splitters which are imported.
func pretokenizerOf(pre string) (pretokenizer, bool) {
	switch pre {
	case "smollm":
		return pretokenizer{steps: object{"type": "Sequence", "pretokenizers": []any{
			object{"type": "Digits", "individual_digits": true}, byteLevel(true),
		}}}, true
	case "gpt-2":
		return pretokenizer{steps: byteLevel(true)}, true
	case "llama-bpe", "llama3", "llama-v3":
		return pretokenizer{steps: splitThenBytes(patternLlama3), ignoreMerges: true, addBOS: true}, true
	case "qwen2", "deepseek-r1-qwen":
		return pretokenizer{steps: splitThenBytes(patternQwen2), normalizer: object{"type": "NFC"}}, true
	}
	return pretokenizer{}, false
}

// endNames are control tokens that end a turn or a text whatever the metadata
// says; llama.cpp stops at them too (llama-vocab.cpp, special_eog_ids).
var endNames = []string{"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>"}

// tokenizer is the checked tokenizer.ggml section.
type tokenizer struct {
	tokens   []string
	types    []int32
	merges   []string
	pre      pretokenizer
	bos, pad int
	eos      int
	unknown  int // -1: none
	ends     []int
	addBOS   bool
	addEOS   bool
	template string
}

func newTokenizer(meta metadata, vocab int) (*tokenizer, error) {
	if model := meta.text("tokenizer.ggml.model"); model != "gpt2" {
		return nil, fmt.Errorf("%w: tokenizer model %q; only gpt2 (byte-level BPE) is imported", ErrUnsupported, model)
	}
	name := meta.text("tokenizer.ggml.pre")
	pre, ok := pretokenizerOf(name)
	if !ok {
		return nil, fmt.Errorf("%w: pre-tokenizer %q; smollm, gpt-2, llama-bpe and qwen2 are imported", ErrUnsupported, name)
	}
	t := &tokenizer{pre: pre, template: meta.text("tokenizer.chat_template")}
	t.tokens, _ = meta[keyTokens].([]string)
	t.types, _ = meta[keyTokenTypes].([]int32)
	t.merges, _ = meta[keyMerges].([]string)
	if len(t.tokens) == 0 || len(t.tokens) > vocab {
		return nil, fmt.Errorf("%w: %d tokens for %d rows of the embedding", ErrInvalid, len(t.tokens), vocab)
	}
	if t.types == nil {
		t.types = make([]int32, len(t.tokens))
	}
	if len(t.types) != len(t.tokens) {
		return nil, fmt.Errorf("%w: %d tokens and %d token types", ErrInvalid, len(t.tokens), len(t.types))
	}
	t.addBOS = meta.flag("tokenizer.ggml.add_bos_token", pre.addBOS)
	t.addEOS = meta.flag("tokenizer.ggml.add_eos_token", false)
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, t.readSpecial(meta)
}

// check finds what the JSON files could not hold: text that is not UTF-8, a
// token twice, or a merge that is not two known tokens which make a known one.
func (t *tokenizer) check() error {
	seen := make(map[string]bool, len(t.tokens))
	if !utf8.ValidString(t.template) {
		return fmt.Errorf("%w: the chat template is not UTF-8", ErrInvalid)
	}
	for i, s := range t.tokens {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%w: token %d, %q, is not UTF-8", ErrInvalid, i, s)
		}
		if seen[s] {
			return fmt.Errorf("%w: token %d, %q, is in the vocabulary twice", ErrInvalid, i, s)
		}
		seen[s] = true
	}
	for i, merge := range t.merges {
		a, b, ok := strings.Cut(merge, " ")
		if !ok || !seen[a] || !seen[b] || !seen[a+b] {
			return fmt.Errorf("%w: merge %d, %q, is not of two tokens", ErrInvalid, i, merge)
		}
	}
	return nil
}

// readSpecial reads the ids of the tokens that have a role.
func (t *tokenizer) readSpecial(meta metadata) error {
	ids := map[string]int{}
	for _, role := range []string{"bos", "eos", "eot", "eom", "unknown", "padding"} {
		key := "tokenizer.ggml." + role + "_token_id"
		ids[role] = -1
		if _, given := meta[key]; !given {
			continue
		}
		n, ok := meta.count(key)
		if !ok || n >= uint64(len(t.tokens)) {
			return fmt.Errorf("%w: %s is %v, there are %d tokens", ErrInvalid, key, meta[key], len(t.tokens))
		}
		ids[role] = int(n)
	}
	for _, id := range []int{ids["eos"], ids["eot"], ids["eom"]} {
		if id >= 0 && !slices.Contains(t.ends, id) {
			t.ends = append(t.ends, id)
		}
	}
	for i, s := range t.tokens {
		if t.types[i] == tokenControl && slices.Contains(endNames, s) && !slices.Contains(t.ends, i) {
			t.ends = append(t.ends, i)
		}
	}
	if len(t.ends) == 0 {
		return fmt.Errorf("%w: no token ends the text (tokenizer.ggml.eos_token_id)", ErrInvalid)
	}
	t.eos, t.bos, t.pad, t.unknown = t.ends[0], ids["bos"], ids["padding"], ids["unknown"]
	if t.bos < 0 {
		if t.addBOS {
			return fmt.Errorf("%w: texts begin with a token that is not named (tokenizer.ggml.bos_token_id)", ErrInvalid)
		}
		t.bos = t.eos
	}
	if t.pad < 0 {
		t.pad = t.eos
	}
	return nil
}

// json returns tokenizer.json in the format of Hugging Face's tokenizers.
func (t *tokenizer) json() any {
	vocab := make(map[string]int, len(t.tokens))
	added := []any{}
	for i, s := range t.tokens {
		vocab[s] = i
		if kind := t.types[i]; kind == tokenControl || kind == tokenUserDefined {
			added = append(added, object{
				"id": i, "content": s, "single_word": false, "lstrip": false, "rstrip": false,
				"normalized": false, "special": kind == tokenControl,
			})
		}
	}
	merges := t.merges
	if merges == nil {
		merges = []string{}
	}
	return object{
		"version": "1.0", "truncation": nil, "padding": nil,
		"added_tokens": added, "normalizer": t.pre.normalizer, "pre_tokenizer": t.pre.steps,
		"post_processor": t.postProcessor(),
		"decoder":        object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model": object{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil,
			"end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false,
			"ignore_merges": t.pre.ignoreMerges, "vocab": vocab, "merges": merges,
		},
	}
}

// postProcessor adds the tokens that every text begins or ends with.
func (t *tokenizer) postProcessor() any {
	if !t.addBOS && !t.addEOS {
		return nil
	}
	special := object{}
	mark := func(id, segment int) any {
		s := t.tokens[id]
		special[s] = object{"id": s, "ids": []int{id}, "tokens": []string{s}}
		return object{"SpecialToken": object{"id": s, "type_id": segment}}
	}
	sequence := func(name string, segment int) []any {
		var out []any
		if t.addBOS {
			out = append(out, mark(t.bos, segment))
		}
		out = append(out, object{"Sequence": object{"id": name, "type_id": segment}})
		if t.addEOS {
			out = append(out, mark(t.eos, segment))
		}
		return out
	}
	single := sequence("A", 0)
	return object{
		"type": "TemplateProcessing", "single": single,
		"pair": append(slices.Clone(single), sequence("B", 1)...), "special_tokens": special,
	}
}

// config returns tokenizer_config.json.
func (t *tokenizer) config(context int) any {
	c := object{
		"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
		"bos_token": t.tokens[t.bos], "eos_token": t.tokens[t.eos], "pad_token": t.tokens[t.pad],
		"add_bos_token": t.addBOS, "add_eos_token": t.addEOS, "model_max_length": context,
	}
	if t.unknown >= 0 {
		c["unk_token"] = t.tokens[t.unknown]
	}
	if t.template != "" {
		c["chat_template"] = t.template
	}
	return c
}
