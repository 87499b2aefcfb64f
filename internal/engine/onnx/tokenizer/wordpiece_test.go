package tokenizer

import (
	"encoding/hex"
	"encoding/json/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// wordPieceGolden is what test/golden/wordpiece_golden.py writes.
type wordPieceGolden struct {
	Patch map[string]any `json:"patch"`
	Cases []struct {
		Text  string  `json:"text"`
		IDs   []int32 `json:"ids"`
		Words string  `json:"words"`
	} `json:"cases"`
	Bytes []struct {
		Hex string  `json:"hex"`
		IDs []int32 `json:"ids"`
	} `json:"ill_formed"`
	Blocks string `json:"blocks"`
	Framed []struct {
		A      string  `json:"a"`
		B      string  `json:"b"`
		Limit  int     `json:"limit"`
		Single []int32 `json:"single"`
		IDs    []int32 `json:"ids"`
		Types  []int32 `json:"types"`
	} `json:"framed"`
}

// wordPieceJSON is the real tokenizer.json with patch laid over it.
func wordPieceJSON(tb testing.TB, patch map[string]any) []byte {
	tb.Helper()
	var file map[string]any
	if err := json.Unmarshal(readGzip(tb, "testdata/wordpiece/tokenizer.json.gz"), &file); err != nil {
		tb.Fatal(err)
	}
	vocab := map[string]any{}
	for line := range strings.Lines(string(readGzip(tb, "testdata/wordpiece/vocab.txt.gz"))) {
		vocab[strings.TrimSuffix(line, "\n")] = len(vocab)
	}
	file["model"].(map[string]any)["vocab"] = vocab
	for name, value := range patch {
		file[name] = value
	}
	out, err := json.Marshal(file)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func realWordPiece(tb testing.TB) *WordPiece {
	tb.Helper()
	w, err := ParseWordPiece(wordPieceJSON(tb, nil))
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// wordsHash is that of the words which the vocabulary is asked for.
func wordsHash(w *WordPiece, text string) string {
	var chars []int32
	eachWord(w.normalize.apply(text), func(word string) {
		for _, r := range word + "\x00" {
			chars = append(chars, r)
		}
	})
	return shortHash(chars)
}

func TestWordPieceGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/wordpiece/*.golden.json.gz")
	if err != nil || len(paths) != 7 {
		t.Fatalf("found %d golden files, %v; want 7", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".golden.json.gz"), func(t *testing.T) {
			t.Parallel()
			var g wordPieceGolden
			if err := json.Unmarshal(readGzip(t, path), &g); err != nil {
				t.Fatal(err)
			}
			w, err := ParseWordPiece(wordPieceJSON(t, g.Patch))
			if err != nil {
				t.Fatal(err)
			}
			g.compare(t, w)
			g.compareFramed(t, w)
		})
	}
}

func (g *wordPieceGolden) compare(t *testing.T, w *WordPiece) {
	if len(g.Cases) < 320 {
		t.Fatalf("%d cases, want at least 320", len(g.Cases))
	}
	for _, c := range g.Cases {
		if got := w.Encode(c.Text); !slices.Equal(got, c.IDs) {
			t.Errorf("Encode(%.80q) = %d, want %d", c.Text, got, c.IDs)
		}
		if got := wordsHash(w, c.Text); got != c.Words {
			t.Errorf("words of %.80q differ", c.Text)
		}
	}
	for _, c := range g.Bytes {
		raw, err := hex.DecodeString(c.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Encode(string(raw)); !slices.Equal(got, c.IDs) {
			t.Errorf("Encode(%x) = %d, want %d", raw, got, c.IDs)
		}
	}
	if len(g.Blocks) != 8*0x1100 {
		t.Fatalf("%d characters of block hashes", len(g.Blocks))
	}
	for block := range 0x1100 {
		if got, want := wordsHash(w, blockText(block)), g.Blocks[8*block:][:8]; got != want {
			t.Errorf("code points U+%04X to U+%04X: the words differ", block*256, block*256+255)
		}
	}
}

func (g *wordPieceGolden) compareFramed(t *testing.T, w *WordPiece) {
	single, pair := w.Overhead()
	for _, c := range g.Framed {
		a, b := w.Encode(c.A), w.Encode(c.B)
		if c.Limit < max(single, pair) {
			continue // the library gives up there
		}
		if got := w.Frame(a[:min(len(a), c.Limit-single)]); !slices.Equal(got.IDs, c.Single) || len(got.Types) != len(got.IDs) {
			t.Errorf("Frame(%q) within %d = %d, want %d", c.A, c.Limit, got.IDs, c.Single)
		}
		got := w.FramePair(TruncatePair(a, b, c.Limit-pair))
		if !slices.Equal(got.IDs, c.IDs) || !slices.Equal(got.Types, c.Types) {
			t.Errorf("FramePair(%q, %q) within %d = %d of %d, want %d of %d", c.A, c.B, c.Limit, got.IDs, got.Types, c.IDs, c.Types)
		}
	}
}

// folder writes a model folder of the given files.
func folder(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// A folder of vocab.txt is the same tokenizer as its tokenizer.json.
func TestLoadWordPieceFromVocab(t *testing.T) {
	settings, err := os.ReadFile("testdata/wordpiece/tokenizer_config.json")
	if err != nil {
		t.Fatal(err)
	}
	w, err := LoadWordPiece(folder(t, map[string]string{
		"vocab.txt": string(readGzip(t, "testdata/wordpiece/vocab.txt.gz")), "tokenizer_config.json": string(settings)}))
	if err != nil {
		t.Fatal(err)
	}
	want := realWordPiece(t)
	for _, text := range []string{"Hello, Wörld! [MASK] 你好 unaffable", ""} {
		got, want := w.FramePair(w.Encode(text), w.Encode("b")), want.FramePair(want.Encode(text), want.Encode("b"))
		if !slices.Equal(got.IDs, want.IDs) || !slices.Equal(got.Types, want.Types) {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if w.VocabSize() != 30522 {
		t.Errorf("VocabSize() = %d, want 30522", w.VocabSize())
	}
}

func TestVocabSettings(t *testing.T) {
	const vocab = "[PAD]\n[UNK]\n[CLS]\r\n[SEP]\n[MASK]\né\ne\nÉ\nE\n你\n##你\n好\n##好\n"
	for _, tt := range []struct {
		settings string
		want     []int32
	}{
		{`{}`, []int32{6, 9, 11}},
		{`{"do_lower_case":false}`, []int32{7, 9, 11}},
		{`{"strip_accents":false}`, []int32{5, 9, 11}},
		{`{"do_lower_case":false,"strip_accents":true}`, []int32{8, 9, 11}},
		{`{"tokenize_chinese_chars":false}`, []int32{6, 9, 12}},
	} {
		w, err := LoadWordPiece(folder(t, map[string]string{"vocab.txt": vocab, "tokenizer_config.json": tt.settings}))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Encode("É 你好"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %d, want %d", tt.settings, got, tt.want)
		}
	}
}

func TestWordPieceRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":   {nil, "needs a tokenizer.json or a vocab.txt"},
		"vocab":     {map[string]string{"vocab.txt": "a\nb\n"}, "not the vocabulary of a BERT model"},
		"settings":  {map[string]string{"vocab.txt": "[UNK]", "tokenizer_config.json": "{"}, "fetch the file again"},
		"damaged":   {map[string]string{"tokenizer.json": "{"}, "damaged"},
		"bpe":       {map[string]string{"tokenizer.json": `{"model":{"type":"BPE"}}`}, `model type "BPE"`},
		"normalize": {map[string]string{"tokenizer.json": `{"normalizer":{"type":"NFKC"},"model":{"type":"WordPiece"}}`}, "BertNormalizer"},
		"split":     {map[string]string{"tokenizer.json": `{"pre_tokenizer":null,"model":{"type":"WordPiece"}}`}, "BertPreTokenizer"},
		"unknown":   {map[string]string{"tokenizer.json": `{"pre_tokenizer":{"type":"BertPreTokenizer"},"model":{"type":"WordPiece","vocab":{"a":0},"unk_token":"?"}}`}, "unk_token"},
		"id":        {map[string]string{"tokenizer.json": `{"pre_tokenizer":{"type":"BertPreTokenizer"},"model":{"type":"WordPiece","vocab":{"a":-1},"unk_token":"a"}}`}, "impossible id"},
		"template":  {map[string]string{"tokenizer.json": `{"post_processor":{"type":"TemplateProcessing","single":[],"pair":[]},"model":{"type":"WordPiece"}}`}, "hold each once"},
		"special":   {map[string]string{"tokenizer.json": `{"post_processor":{"type":"BertProcessing","cls":["a",7],"sep":["a",7]},"pre_tokenizer":{"type":"BertPreTokenizer"},"model":{"type":"WordPiece","vocab":{"a":0},"unk_token":"a"}}`}, "is not a token"},
		"added":     {map[string]string{"tokenizer.json": `{"added_tokens":[{"id":3,"content":"a"}],"pre_tokenizer":{"type":"BertPreTokenizer"},"model":{"type":"WordPiece","vocab":{"a":0},"unk_token":"a"}}`}, "added_tokens"},
	} {
		if _, err := LoadWordPiece(folder(t, tt.files)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// FuzzWordPiece looks for text that breaks Encode or gives ids out of range.
func FuzzWordPiece(f *testing.F) {
	w := realWordPiece(f)
	f.Add("Hello, Wörld! [MASK] 你好\xff")
	f.Fuzz(func(t *testing.T, s string) {
		ids := w.Encode(s)
		if limit := 2*utf8.RuneCountInString(s) + 2; len(ids) > 3*limit {
			t.Errorf("%d ids of %d characters", len(ids), limit)
		}
		for _, id := range ids {
			if id < 0 || int(id) >= w.VocabSize() {
				t.Errorf("id %d", id)
			}
		}
	})
}

// FuzzParseWordPiece looks for a file that breaks the loader or, once loaded,
// the tokenizer.
func FuzzParseWordPiece(f *testing.F) {
	f.Add([]byte(`{"added_tokens":[{"id":1,"content":"b"}],"normalizer":{"type":"BertNormalizer","lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},
		"post_processor":{"type":"BertProcessing","cls":["a",0],"sep":["a",0]},"model":{"type":"WordPiece","vocab":{"a":0,"##a":1},"unk_token":"a"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := ParseWordPiece(data)
		if err == nil {
			w.FramePair(w.Encode("ab É 你[MASK]"), w.Encode(""))
		}
	})
}

func BenchmarkWordPiece(b *testing.B) {
	w := realWordPiece(b)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog; embeddings are unaffable. ", 20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		w.Encode(text)
	}
}
