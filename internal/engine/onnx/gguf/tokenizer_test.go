package gguf

import (
	"strings"
	"testing"

	"infer/internal/engine/onnx/gguf/gguftest"
)

// tokenizerFile is the part of tokenizer.json that the tests look at.
type tokenizerFile struct {
	AddedTokens []struct {
		ID      int
		Content string
		Special bool
	} `json:"added_tokens"`
	Normalizer   *struct{ Type string }
	PreTokenizer struct {
		Type          string
		UseRegex      bool `json:"use_regex"`
		Pretokenizers []struct {
			Type             string
			Behavior         string
			IndividualDigits bool `json:"individual_digits"`
			UseRegex         bool `json:"use_regex"`
			Pattern          struct{ Regex string }
		}
	} `json:"pre_tokenizer"`
	PostProcessor *struct {
		Type   string
		Single []map[string]struct{ ID string }
	} `json:"post_processor"`
	Model struct {
		Type         string
		IgnoreMerges bool `json:"ignore_merges"`
		Vocab        map[string]int
		Merges       []string
	}
}

func tokenizerOf(t *testing.T, s gguftest.Spec, keys ...gguftest.Key) (tokenizerFile, map[string]any) {
	t.Helper()
	f := gguftest.Model(s)
	for _, k := range keys {
		f.Set(k.Name, k.Value)
	}
	src := t.TempDir() + "/m.gguf"
	if err := f.Write(src); err != nil {
		t.Fatal(err)
	}
	dir := imported(t, src, Options{})
	var file tokenizerFile
	config := map[string]any{}
	readJSON(t, &file, dir, "tokenizer.json")
	readJSON(t, &config, dir, "tokenizer_config.json")
	return file, config
}

func TestTokenizerFiles(t *testing.T) {
	got, config := tokenizerOf(t, gguftest.Spec{})
	if got.Model.Type != "BPE" || len(got.Model.Vocab) != len(gguftest.Vocabulary()) || got.Model.Vocab["Ġthe"] == 0 || got.Model.Merges[0] != "h e" {
		t.Errorf("model: %d tokens, merges %q", len(got.Model.Vocab), got.Model.Merges)
	}
	last := got.AddedTokens[len(got.AddedTokens)-1]
	if len(got.AddedTokens) != 4 || !got.AddedTokens[1].Special || got.AddedTokens[1].Content != "<|im_start|>" || last.Special || last.Content != "<tool>" {
		t.Errorf("added tokens: %+v", got.AddedTokens)
	}
	steps := got.PreTokenizer.Pretokenizers
	if len(steps) != 2 || steps[0].Type != "Digits" || !steps[0].IndividualDigits || steps[1].Type != "ByteLevel" || !steps[1].UseRegex {
		t.Errorf("smollm's steps: %+v", steps)
	}
	if got.PostProcessor != nil || got.Normalizer != nil {
		t.Errorf("post-processor %+v, normalizer %+v, want neither", got.PostProcessor, got.Normalizer)
	}
	for key, want := range map[string]any{
		"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
		"add_bos_token": false, "add_eos_token": false, "model_max_length": 256.0,
	} {
		if config[key] != want {
			t.Errorf("tokenizer_config.json: %s is %v, want %v", key, config[key], want)
		}
	}
	if s, _ := config["chat_template"].(string); !strings.Contains(s, "<|im_start|>assistant\n") {
		t.Errorf("chat_template is %q", s)
	}
}

func TestPretokenizers(t *testing.T) {
	for _, c := range []struct {
		pre, first, pattern, normalizer string
		ignoreMerges, regex, bos        bool
	}{
		{pre: "gpt-2", regex: true},
		{pre: "llama-bpe", first: "Split", pattern: patternLlama3, ignoreMerges: true, bos: true},
		{pre: "qwen2", first: "Split", pattern: patternQwen2, normalizer: "NFC"},
	} {
		got, _ := tokenizerOf(t, gguftest.Spec{Pre: c.pre}, gguftest.Key{Name: "tokenizer.ggml.add_bos_token"})
		if got.Model.IgnoreMerges != c.ignoreMerges || (got.PostProcessor != nil) != c.bos {
			t.Errorf("%s: ignore_merges %t, post-processor %+v", c.pre, got.Model.IgnoreMerges, got.PostProcessor)
		}
		if n := got.Normalizer; (n == nil) != (c.normalizer == "") || n != nil && n.Type != c.normalizer {
			t.Errorf("%s: normalizer %+v, want %q", c.pre, n, c.normalizer)
		}
		p := got.PreTokenizer
		if c.first == "" {
			if p.Type != "ByteLevel" || p.UseRegex != c.regex {
				t.Errorf("%s: %+v", c.pre, p)
			}
			continue
		}
		if s := p.Pretokenizers; len(s) != 2 || s[0].Type != c.first || s[0].Behavior != "Isolated" || s[0].Pattern.Regex != c.pattern || s[1].UseRegex {
			t.Errorf("%s: %+v", c.pre, s)
		}
	}
}

func TestBeginAndEndAreAdded(t *testing.T) {
	got, config := tokenizerOf(t, gguftest.Spec{},
		gguftest.Key{Name: "tokenizer.ggml.add_bos_token", Value: true}, gguftest.Key{Name: "tokenizer.ggml.add_eos_token", Value: true})
	if got.PostProcessor == nil || got.PostProcessor.Type != "TemplateProcessing" {
		t.Fatalf("post-processor %+v", got.PostProcessor)
	}
	s := got.PostProcessor.Single
	if len(s) != 3 || s[0]["SpecialToken"].ID != "<|im_start|>" || s[1]["Sequence"].ID != "A" || s[2]["SpecialToken"].ID != "<|im_end|>" {
		t.Errorf("template %+v", s)
	}
	if config["add_bos_token"] != true || config["add_eos_token"] != true {
		t.Errorf("tokenizer_config.json: %v, %v", config["add_bos_token"], config["add_eos_token"])
	}
}
