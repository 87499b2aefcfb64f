package tokenizer

import (
	"encoding/json/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tiny is a small tokenizer.json, with its members by name.
func tiny() map[string]string {
	return map[string]string{
		"version":        `"1.0"`,
		"added_tokens":   `[{"id":5,"content":"<s>","special":true}]`,
		"normalizer":     `null`,
		"pre_tokenizer":  `{"type":"ByteLevel","add_prefix_space":false}`,
		"post_processor": `null`,
		"decoder":        `{"type":"ByteLevel"}`,
		"model":          `{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4},"merges":["a b","Ġ ab"]}`,
	}
}

// spell writes a file with one member replaced (or left out, when empty).
func spell(member, value string) string {
	m := tiny()
	m[member] = value
	var parts []string
	// The order of published files, and a stable one.
	for _, name := range []string{"version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "x"} {
		if m[name] != "" {
			parts = append(parts, `"`+name+`":`+m[name])
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestParseAccepts(t *testing.T) {
	tests := []struct {
		name, member, value string
		want                []int32 // ids of "ab ab<s>"
	}{
		{"tiny", "version", `"1.0"`, []int32{2, 4, 5}},
		{"unknown members", "x", `{"y":[1]}`, []int32{2, 4, 5}},
		{"nothing added", "added_tokens", "", []int32{2, 4}},
		{"merges as pairs", "model", `{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4},"merges":[["a","b"],["Ġ","ab"]]}`, []int32{2, 4, 5}},
		{"merges before vocab", "model", `{"merges":["a b","Ġ ab"],"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4}}`, []int32{2, 4, 5}},
		{"a comment in merges", "model", `{"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4},"merges":["#version: 0.2","a b"]}`, []int32{2, 3, 2, 5}},
		{"a rule given twice", "model", `{"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġa":4},"merges":["a b","Ġ a","a b"]}`, []int32{2, 4, 1, 5}},
		{"whole words first", "model", `{"ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4},"merges":[]}`, []int32{2, 4, 5}},
		{"no whole words", "model", `{"ignore_merges":false,"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4},"merges":[]}`, []int32{0, 1, 3, 0, 1, 5}},
		{"nulls and empty affixes", "model", `{"dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":null,"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"x":4},"merges":["a b"]}`, []int32{2, 3, 2, 5}},
		{"an added token of the vocabulary", "added_tokens", `[{"id":2,"content":"ab"}]`, []int32{2, 3, 2}},
		{"an added token without text", "added_tokens", `[{"id":9,"content":""},{"id":5,"content":"<s>"}]`, []int32{2, 4, 5}},
	}
	for _, tt := range tests {
		tok, err := Parse([]byte(spell(tt.member, tt.value)))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := tok.Encode("ab ab<s>"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: Encode = %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	model := func(member string) string {
		return `{"type":"BPE",` + member + `,"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġab":4},"merges":[]}`
	}
	split := func(rest string) string {
		return `{"type":"Sequence","pretokenizers":[{"type":"Split",` + rest + `},{"type":"ByteLevel","use_regex":false}]}`
	}
	tests := []struct{ member, value, want string }{
		{"version", `"2.0"`, `version "2.0"`},
		{"version", `nul`, "the file is damaged"},
		{"model", "", "no model"},
		{"model", `{"type":"WordPiece","vocab":{}}`, `model type "WordPiece"`},
		{"model", `{"type":"Unigram","vocab":[["a",-1.5]]}`, `model type "Unigram"`},
		{"model", `{"type":null}`, `model type ""`},
		{"model", `{"type":"BPE"}`, "vocab and merges are both needed"},
		{"model", `{"type":"BPE","vocab":[],"merges":[]}`, "not the file of a byte-level BPE tokenizer"},
		{"model", `{"type":"BPE","vocab":{"a":0},"merges":["a b"]}`, `"a" + "b"`},
		{"model", `{"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a","b"]]}`, `"a" + "b"`},
		{"model", `{"type":"BPE","vocab":{"a":0},"merges":["a"]}`, `"a" is not two tokens`},
		{"model", `{"type":"BPE","vocab":{"a":0},"merges":["a  a"]}`, "is not two tokens"},
		{"model", `{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}`, "not the file of a byte-level BPE"},
		{"model", `{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}`, `"a" and "b" share the id 0`},
		{"model", `{"type":"BPE","vocab":{"a":1048576},"merges":[]}`, "1048576"},
		{"model", `{"type":"BPE","vocab":{"a":-1},"merges":[]}`, `"a" is not between`},
		{"model", `{"type":"BPE","vocab":{"a":1.5},"merges":[]}`, `"a" is not between`},
		{"model", `{"type":"BPE","vocab":{"a":"0"},"merges":[]}`, `"a" is not a number`},
		{"model", model(`"byte_fallback":true`), "byte_fallback"},
		{"model", model(`"dropout":0.1`), "dropout"},
		{"model", model(`"continuing_subword_prefix":"##"`), "continuing_subword_prefix"},
		{"model", model(`"end_of_word_suffix":"</w>"`), "end_of_word_suffix"},
		{"model", model(`"unk_token":"<unk>"`), `unk_token "<unk>"`},
		{"model", model(`"unk_token":7`), "not the file of a byte-level BPE"},
		{"normalizer", `{"type":"Lowercase"}`, `normalizer "Lowercase"`},
		{"normalizer", `{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace"}]}`, `normalizer "Replace"`},
		{"normalizer", `7`, "normalizer"},
		{"pre_tokenizer", `null`, "does not end in ByteLevel"},
		{"pre_tokenizer", `{"type":"Metaspace"}`, `pre_tokenizer "Metaspace"`},
		{"pre_tokenizer", `{"type":"Digits"}`, "does not end in ByteLevel"},
		{"pre_tokenizer", `{"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]}`, `"Digits" after ByteLevel`},
		{"pre_tokenizer", split(`"pattern":{"Regex":"\\d+"},"behavior":"Isolated"`), `\\d+`},
		{"pre_tokenizer", split(`"pattern":{"String":" "},"behavior":"Isolated"`), "fixed string"},
		{"pre_tokenizer", split(`"pattern":{"Regex":` + quote(gpt2Pattern) + `},"behavior":"Removed"`), `"Removed"`},
		{"pre_tokenizer", split(`"pattern":{"Regex":` + quote(gpt2Pattern) + `},"behavior":"Isolated","invert":true`), "invert true"},
		{"decoder", `null`, "decoder"},
		{"decoder", `{"type":"Metaspace"}`, `decoder "Metaspace"`},
		{"decoder", `{"type":"Sequence","decoders":[` + strings.Repeat(`{"type":"ByteLevel"},`, 20) + `{"type":"ByteLevel"}]}`, "21 parts"},
		{"post_processor", `{"type":"RobertaProcessing"}`, `post_processor "RobertaProcessing"`},
		{"post_processor", `{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{}}`, `"<s>" is not among`},
		{"post_processor", `{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[77]}}}`, "id 77"},
		{"post_processor", `{"type":"TemplateProcessing","single":[]}`, "0 times"},
		{"post_processor", `{"type":"TemplateProcessing","single":[{}]}`, "neither"},
		{"added_tokens", `[{"id":9,"content":"<s>"}]`, `"<s>" has id 9 where 5`},
		{"added_tokens", `[{"id":3,"content":"ab"}]`, `"ab" has id 3 where 2`},
		{"added_tokens", `{}`, "added_tokens"},
		{"x", `1}{`, "more after the JSON object"},
	}
	for _, tt := range tests {
		_, err := Parse([]byte(spell(tt.member, tt.value)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %s: error = %v, want one with %s", tt.member, tt.value, err, tt.want)
		} else if !strings.Contains(err.Error(), ";") && !strings.Contains(err.Error(), "only") && !strings.Contains(err.Error(), "must") {
			t.Errorf("%s: %s: error %v has no remedy", tt.member, tt.value, err)
		}
	}
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestParseReportsAllFaults saves a second round to whoever fixes a file.
func TestParseReportsAllFaults(t *testing.T) {
	m := strings.NewReplacer(`"normalizer":null`, `"normalizer":{"type":"NFKC"}`, `"decoder":{"type":"ByteLevel"}`, `"decoder":{"type":"WordPiece"}`)
	_, err := Parse([]byte(m.Replace(spell("version", `"1.0"`))))
	for _, want := range []string{"NFKC", "WordPiece"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want one with %s", err, want)
		}
	}
}

func TestAddedTokenThatNormalises(t *testing.T) {
	file := strings.Replace(spell("added_tokens", `[{"id":5,"content":"e\u0301","normalized":true}]`), `"normalizer":null`, `"normalizer":{"type":"NFC"}`, 1)
	if _, err := Parse([]byte(file)); err == nil || !strings.Contains(err.Error(), "normalizer changes") {
		t.Errorf("error = %v, want one about the normalizer", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tokenizer.json")
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without a file: error = %v, want one that names %s", err, path)
	}
	for content, want := range map[string]string{"": "damaged", "{}": "no model", spell("decoder", `{"type":"Fuse"}`): `"Fuse"`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error = %v, want one that names %s and says %s", content, err, path, want)
		}
	}
	if err := os.WriteFile(path, []byte(spell("version", `"1.0"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Encode("ab"), []int32{2}; !slices.Equal(got, want) {
		t.Errorf("Encode = %d, want %d", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(spell("version", `"1.0"`)))
	f.Add([]byte(spell("normalizer", `{"type":"NFC"}`)))
	f.Add([]byte(spell("pre_tokenizer", `{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel"}]}`)))
	f.Add([]byte(spell("post_processor", `{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[5]}}}`)))
	f.Add([]byte(spell("model", `{"type":"BPE","vocab":{"a":1048575,"":0,"b":7,"ab":3},"merges":[["a","b"]],"unk_token":"a"}`)))
	f.Add([]byte(strings.Repeat(`{"normalizer":`, 100)))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Parse(data)
		if err != nil {
			return
		}
		if tok.VocabSize() > maxID+len(data) {
			t.Errorf("a file of %d bytes made room for %d tokens", len(data), tok.VocabSize())
		}
		for _, s := range []string{"", " ab  12 <s>\n", string(data)} {
			ids := tok.EncodeWithSpecial(s)
			if slices.ContainsFunc(ids, func(id int32) bool { return id < 0 || int(id) >= tok.VocabSize() }) {
				t.Errorf("Encode(%q) = %d, out of the vocabulary of %d", s, ids, tok.VocabSize())
			}
			tok.Decode(ids, true)
		}
	})
}
