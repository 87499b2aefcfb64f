package tokenizer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json/v2"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// golden is what test/golden/tokenizer_golden.py writes for one tokenizer: the
// ids and texts of Hugging Face tokenizers.
type golden struct {
	Base  string         `json:"base"` // of a variant: the file it changes
	Patch map[string]any `json:"patch"`
	Cases []goldenCase   `json:"cases"`
	Bytes []struct {
		Hex string  `json:"hex"`
		IDs []int32 `json:"ids"`
	} `json:"ill_formed"`
	Decode []struct {
		IDs     []int32 `json:"ids"`
		Text    string  `json:"text"`
		Skipped string  `json:"skipped"`
	} `json:"decode"`
	Blocks    string `json:"blocks"`
	BlockCuts string `json:"block_cuts"`
}

// goldenCase leaves out what equals ids or text.
type goldenCase struct {
	Text    string   `json:"text"`
	IDs     []int32  `json:"ids"`
	Cuts    string   `json:"cuts"`
	Plain   *[]int32 `json:"plain"`
	Framed  *[]int32 `json:"framed"`
	Decoded *string  `json:"decoded"`
	Skipped *string  `json:"skipped"`
}

func readGzip(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func fileOf(t testing.TB, name string) []byte {
	return readGzip(t, filepath.Join("testdata", name+".tokenizer.json.gz"))
}

func parse(t testing.TB, data []byte) *Tokenizer {
	t.Helper()
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// patched lays patch over the file of base, like the script.
func patched(t testing.TB, base string, patch map[string]any) []byte {
	t.Helper()
	var file map[string]any
	if err := json.Unmarshal(fileOf(t, base), &file); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(overlay(file, patch))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func overlay(base, patch map[string]any) map[string]any {
	out := maps.Clone(base)
	for key, value := range patch {
		under, _ := base[key].(map[string]any)
		over, ok := value.(map[string]any)
		switch _, whole := over["type"]; {
		case ok && under != nil && !whole:
			out[key] = overlay(under, over)
		case key == "merges":
			out[key] = base[key].([]any)[:int(value.(float64))]
		default:
			out[key] = value
		}
	}
	return out
}

// TestGolden compares with the other library in every way that its files hold.
func TestGolden(t *testing.T) {
	const suffix = ".golden.json.gz"
	paths, err := filepath.Glob("testdata/*" + suffix)
	if err != nil || len(paths) != 13 {
		t.Fatalf("found %d golden files, %v; want 13", len(paths), err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), suffix)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := new(golden)
			if err := json.Unmarshal(readGzip(t, path), g); err != nil {
				t.Fatal(err)
			}
			var tok *Tokenizer
			if g.Base == "" {
				tok = load(t, name)
			} else {
				tok = parse(t, patched(t, g.Base, g.Patch))
			}
			g.testCases(t, tok)
			g.testIllFormed(t, tok)
			g.testDecode(t, tok)
			switch name { // one for each pattern
			case "smollm2", "qwen2":
				g.testBlocks(t, tok, true)
			case "gpt2", "llama3":
				g.testBlocks(t, tok, false)
			}
		})
	}
}

func orElse[T any](v *T, otherwise T) T {
	if v == nil {
		return otherwise
	}
	return *v
}

func (g *golden) testCases(t *testing.T, tok *Tokenizer) {
	if len(g.Cases) < 320 {
		t.Fatalf("%d cases, want at least 320", len(g.Cases))
	}
	wrong := 0
	prefixed := slices.ContainsFunc(tok.stages, func(st stage) bool { return st.prefixSpace })
	for _, c := range g.Cases {
		faults := []string{
			differ("Encode", tok.Encode(c.Text), c.IDs),
			differ("EncodePlain", tok.EncodePlain(c.Text), orElse(c.Plain, c.IDs)),
			differ("EncodeWithSpecial", tok.EncodeWithSpecial(c.Text), orElse(c.Framed, c.IDs)),
		}
		if got := shortHash(cuts(tok, c.Text)); got != c.Cuts && !prefixed {
			faults = append(faults, fmt.Sprintf("words end at %d, hash %s, want hash %s", cuts(tok, c.Text), got, c.Cuts))
		}
		if got, want := tok.Decode(c.IDs, false), orElse(c.Decoded, c.Text); got != want {
			faults = append(faults, fmt.Sprintf("Decode = %+q, want %+q", got, want))
		}
		if got, want := tok.Decode(c.IDs, true), orElse(c.Skipped, c.Text); got != want {
			faults = append(faults, fmt.Sprintf("Decode without special tokens = %+q, want %+q", got, want))
		}
		if bad := strings.TrimSpace(strings.Join(faults, "\n")); bad != "" {
			if wrong++; wrong <= 10 {
				t.Errorf("%+q:\n%s", c.Text, bad)
			}
		}
	}
	t.Logf("%d of %d cases wrong", wrong, len(g.Cases))
}

// differ says how got differs from want, or nothing.
func differ(what string, got, want []int32) string {
	if slices.Equal(got, want) {
		return ""
	}
	return fmt.Sprintf("%s = %d, want %d\n", what, got, want)
}

func (g *golden) testIllFormed(t *testing.T, tok *Tokenizer) {
	if len(g.Bytes) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range g.Bytes {
		text, err := hex.DecodeString(c.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if bad := differ("Encode", tok.Encode(string(text)), c.IDs); bad != "" {
			t.Errorf("%s: %s", c.Hex, bad)
		}
	}
}

func (g *golden) testDecode(t *testing.T, tok *Tokenizer) {
	if len(g.Decode) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range g.Decode {
		if got := tok.Decode(c.IDs, false); got != c.Text {
			t.Errorf("Decode(%d) = %+q, want %+q", c.IDs, got, c.Text)
		}
		if got := tok.Decode(c.IDs, true); got != c.Skipped {
			t.Errorf("Decode(%d) without special tokens = %+q, want %+q", c.IDs, got, c.Skipped)
		}
	}
}

// testBlocks compares hashes of the ids of all of Unicode, in places where the
// class and the normalisation of a character make a difference. The ids take
// most of the time of a test run under the race detector, so they are optional.
func (g *golden) testBlocks(t *testing.T, tok *Tokenizer, withIDs bool) {
	const blocks = 0x110000 / 256
	if len(g.Blocks) != blocks*8 || len(g.BlockCuts) != blocks*8 {
		t.Fatalf("%d and %d hex digits, want %d", len(g.Blocks), len(g.BlockCuts), blocks*8)
	}
	for b := range blocks {
		text := blockText(b)
		if withIDs {
			if got, want := shortHash(tok.Encode(text)), g.Blocks[b*8:b*8+8]; got != want {
				t.Errorf("U+%04X to U+%04X: hash of the ids = %s, want %s", b*256, b*256+255, got, want)
			}
		}
		if got, want := shortHash(cuts(tok, text)), g.BlockCuts[b*8:b*8+8]; got != want {
			t.Errorf("U+%04X to U+%04X: hash of the cuts = %s, want %s", b*256, b*256+255, got, want)
		}
	}
}

// blockText is block_text of the script.
func blockText(block int) string {
	var text strings.Builder
	for c := rune(block * 256); c < rune(block*256+256); c++ {
		if 0xD800 <= c && c < 0xE000 {
			continue
		}
		fmt.Fprintf(&text, "a%cb 1", c)
		if c < 0x40000 || 0xE0000 <= c && c < 0xF0000 {
			fmt.Fprintf(&text, " %[1]c%[1]c '%[1]ce%[1]c's\r\na\u0345%[1]c\u0334b%[1]c1234", c)
		}
	}
	return text.String()
}

// cuts returns where the words of s end, in characters. It knows nothing of
// prefixSpace, which the ids show.
func cuts(tok *Tokenizer, s string) []int32 {
	words := []string{s}
	for _, st := range tok.stages {
		var next []string
		for _, w := range words {
			for st.cut != nil && w != "" {
				n := st.cut(w)
				next = append(next, w[:n])
				w = w[n:]
			}
			if w != "" {
				next = append(next, w)
			}
		}
		words = next
	}
	var ends []int32
	for _, w := range words {
		last := int32(0)
		if len(ends) > 0 {
			last = ends[len(ends)-1]
		}
		ends = append(ends, last+int32(utf8.RuneCountInString(w)))
	}
	return ends
}

// shortHash is short_hash of the script.
func shortHash(numbers []int32) string {
	var data []byte
	for _, n := range numbers {
		data = binary.LittleEndian.AppendUint32(data, uint32(n))
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:4])
}
