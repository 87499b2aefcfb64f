package tokenizer

import (
	"os"
	"strings"
	"testing"
)

func BenchmarkParse(b *testing.B) {
	data := fileOf(b, "smollm2")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncode encodes prose, code and mixed scripts.
func BenchmarkEncode(b *testing.B) {
	code, err := os.ReadFile("config.go")
	if err != nil {
		b.Fatal(err)
	}
	prose := "The tokens a model was trained on are the only ones that it understands well, so don't guess them. "
	texts := []struct{ name, text string }{
		{"prose", strings.Repeat(prose, 100)},
		{"code", string(code)},
		{"scripts", strings.Repeat("Привет, мир! 今日は良い天気ですね。 नमस्ते दुनिया 12345 😀 ", 100)},
		{"word", strings.Repeat("a", 1<<20)},
	}
	for _, model := range []string{"smollm2", "gpt2", "qwen2"} {
		tok := parse(b, fileOf(b, model))
		for _, c := range texts {
			b.Run(model+"/"+c.name, func(b *testing.B) {
				b.SetBytes(int64(len(c.text)))
				b.ReportAllocs()
				for b.Loop() {
					tok.Encode(c.text)
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	tok := parse(b, fileOf(b, "smollm2"))
	text := strings.Repeat("The tokens a model was trained on. ", 100)
	ids := tok.Encode(text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Decode(ids, true)
	}
}
