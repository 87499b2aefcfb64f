package grammar

import (
	"sync"
	"testing"
)

// byteVocabulary has each byte as a token of the same id, and 256 as the end.
func byteVocabulary(more ...string) *Vocabulary {
	tokens := make([][]byte, 257)
	for b := range 256 {
		tokens[b] = []byte{byte(b)}
	}
	for _, t := range more {
		tokens = append(tokens, []byte(t))
	}
	return NewVocabulary(tokens, []int32{256})
}

var bytesOnly = sync.OnceValue(func() *Vocabulary { return byteVocabulary() })

// accepts feeds text byte by byte and reports whether it is a whole match.
func accepts(t *testing.T, g *Grammar, text string) bool {
	t.Helper()
	m := NewMatcher(g, bytesOnly())
	mask := make([]uint64, 5)
	for i := range len(text) {
		if err := m.Mask(mask); err != nil {
			t.Fatalf("Mask() after %q: %v", text[:i], err)
		}
		allowed := mask[text[i]>>6]>>(text[i]&63)&1 != 0
		err := m.Advance(int32(text[i]))
		if allowed != (err == nil) {
			t.Fatalf("after %q the mask says %v about %q, Advance says %v", text[:i], allowed, text[i], err)
		}
		if err != nil {
			return false
		}
	}
	return m.Complete()
}

func check(t *testing.T, g *Grammar, yes, no []string) {
	t.Helper()
	for _, s := range yes {
		if !accepts(t, g, s) {
			t.Errorf("refuses %q", s)
		}
	}
	for _, s := range no {
		if accepts(t, g, s) {
			t.Errorf("accepts %q", s)
		}
	}
}

func TestJSONObject(t *testing.T) {
	check(t, JSONObject(),
		[]string{`{}`, `{"a":1}`, `{"a": [1, 2.5e-3, "x\u00e9\n", {"b": null}], "c": true}`, "{\n  \"a\": {}\n}",
			`{"é€😀":"\ud83d\ude00\/"}`, `{"":-0}`, `{ "a":[ ] }`},
		[]string{``, `[]`, `{`, `{"a"}`, `{"a":01}`, `{"a":1,}`, `{"a":"` + "\n" + `"}`, `{"a":"\ud83d"}`,
			`{"a":"\ud83d\u0041"}`, `{"a":"\udc00"}`, `{"a":"` + "\xff" + `"}`, `{"a":"` + "\xed\xa0\x80" + `"}`,
			`{"a":"` + "\xc0\x80" + `"}`, `{"a":1}}`, ` {}`, "{\n\n}", `{"a":  1}`, `{"a":.5}`, `{"a":1e1234}`})
}
