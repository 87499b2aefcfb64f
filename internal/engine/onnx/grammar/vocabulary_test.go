package grammar

import (
	"bytes"
	"compress/gzip"
	"encoding/json/v2"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
)

// realTokens are the tokens of SmolLM2, with the few bytes that have none, as
// bytes. Id 0 is its end of text.
var realTokens = sync.OnceValues(func() ([][]byte, error) {
	f, err := os.Open("../tokenizer/testdata/smollm2.tokenizer.json.gz")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	var file struct {
		Model struct {
			Vocab map[string]int `json:"vocab"`
		} `json:"model"`
		Added []struct {
			ID int `json:"id"`
		} `json:"added_tokens"`
	}
	if err := json.UnmarshalRead(z, &file); err != nil {
		return nil, err
	}
	tokens := make([][]byte, len(file.Model.Vocab))
	for spelling, id := range file.Model.Vocab {
		for _, r := range spelling {
			tokens[id] = append(tokens[id], alphabetByte(r))
		}
	}
	for _, a := range file.Added {
		tokens[a.ID] = nil
	}
	for b := range 256 {
		if !slices.ContainsFunc(tokens, func(t []byte) bool { return len(t) == 1 && t[0] == byte(b) }) {
			tokens = append(tokens, []byte{byte(b)})
		}
	}
	return tokens, nil
})

// alphabetByte is the byte that a character of a byte-level BPE stands for.
func alphabetByte(r rune) byte {
	next := rune(256)
	for b := range rune(256) {
		visible := b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE
		if visible && b == r || !visible && next == r {
			return byte(b)
		}
		if !visible {
			next++
		}
	}
	return 0
}

func realVocabulary(t testing.TB) *Vocabulary {
	t.Helper()
	tokens, err := realTokens()
	if err != nil {
		t.Fatal(err)
	}
	return NewVocabulary(tokens, []int32{0})
}

// wideVocabulary joins tokens of the real one to 152,000.
func wideVocabulary(t testing.TB) *Vocabulary {
	t.Helper()
	tokens, err := realTokens()
	if err != nil {
		t.Fatal(err)
	}
	tokens = slices.Clone(tokens)
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := len(tokens); len(tokens) < 152_000; {
		a, b := tokens[rnd.IntN(n)], tokens[rnd.IntN(n)]
		if len(a)+len(b) <= 14 {
			tokens = append(tokens, slices.Concat(a, b))
		}
	}
	return NewVocabulary(tokens, []int32{0})
}

func TestVocabularyTree(t *testing.T) {
	v := realVocabulary(t)
	seen := make([]bool, v.size)
	for n := range v.byteOf {
		for _, id := range v.ids[v.first[n]:v.first[n+1]] {
			seen[id] = true
			text := []byte{}
			for at := int32(0); at != int32(n); { // down from the root
				for c := at + 1; ; c = v.skip[c] {
					if v.skip[c] > int32(n) {
						text, at = append(text, v.byteOf[c]), c
						break
					}
				}
			}
			if !bytes.Equal(text, v.tokens[id]) {
				t.Fatalf("token %d lies at %q, want %q", id, text, v.tokens[id])
			}
		}
	}
	for id, text := range v.tokens {
		if seen[id] != (len(text) > 0 && id != 0) {
			t.Errorf("token %d (%q) in the tree: %v", id, text, seen[id])
		}
	}
}

// TestMaskIsExact compares masks with what Advance says about every token.
func TestMaskIsExact(t *testing.T) {
	v := realVocabulary(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, schema := range []string{
		`{"type":"object","properties":{"a":{"type":"string","maxLength":9,"minLength":3},"b":{"type":"array","items":{"type":"number"}}},"required":["a"]}`,
		`{"type":"array","items":{"type":"string","pattern":"^[a-zé]+[0-9]{2}"}}`,
		`{"anyOf":[{"type":"object"},{"type":"string","format":"date-time"}]}`,
	} {
		g := mustSchema(t, schema)
		m := NewMatcher(g, v)
		bits := make([]uint64, v.words())
		for range 25 {
			if err := m.Mask(bits); err != nil {
				t.Fatal(err)
			}
			var allowed []int32
			for id := range int32(v.size) {
				probe := *m
				if got, want := bits[id>>6]>>(id&63)&1 != 0, probe.Advance(id) == nil; got != want {
					t.Fatalf("%s: mask says %v about token %d %q, Advance says %v", schema, got, id, v.tokens[id], want)
				} else if got {
					allowed = append(allowed, id)
				}
			}
			if err := m.Advance(allowed[rnd.IntN(len(allowed))]); err != nil || m.ended {
				break
			}
		}
	}
}
