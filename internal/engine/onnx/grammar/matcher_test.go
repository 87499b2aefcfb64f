package grammar

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func has(bits []uint64, id int32) bool { return bits[id>>6]>>(id&63)&1 != 0 }

// A panic in one output leaves the grammar to the others.
func TestPanicUnlocksTheGrammar(t *testing.T) {
	v := byteVocabulary()
	g := mustSchema(t, `{"type":"boolean"}`)
	m := NewMatcher(g, v)
	bits := make([]uint64, 5)
	for name, use := range map[string]func(){
		"Mask": func() { _ = m.Mask(bits) }, "Advance": func() { _ = m.Advance('t') }, "Forced": func() { m.Forced() },
	} {
		m.at = &set{items: []item{{edge: 1 << 20}}} // a leaf that is not there
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s with an impossible state: no panic", name)
				}
			}()
			use()
		}()
		if !g.m.mu.TryLock() {
			t.Fatalf("%s left the grammar locked", name)
		}
		g.m.mu.Unlock()
		if m := NewMatcher(g, v); m.Mask(bits) != nil || !has(bits, 't') || has(bits, 'x') {
			t.Errorf("after the panic of %s another output has a wrong mask", name)
		}
	}
}

func TestMatcherEnds(t *testing.T) {
	v := byteVocabulary("true", "tr", "ue,", "")
	m := NewMatcher(mustSchema(t, `{"type":"boolean"}`), v)
	bits := make([]uint64, 7)
	bits[5], bits[6] = 1, ^uint64(0)
	if err := m.Mask(bits); err != nil {
		t.Fatal(err)
	}
	for id := range int32(7 * 64) {
		if want := id == 't' || id == 'f' || id == 257 || id == 258; has(bits, id) != want {
			t.Errorf("at the start token %d is allowed: %v", id, !want)
		}
	}
	for _, id := range []int32{256, 259, 260, -1, 261, 1 << 30, 'x'} {
		if m.Advance(id) == nil {
			t.Errorf("Advance(%d) at the start: no error", id)
		}
	}
	if err := m.Advance(258); err != nil {
		t.Fatal(err)
	}
	if m.Complete() || m.Finished() || string(m.Forced()) != "ue" {
		t.Errorf(`after "tr": Complete %v, Finished %v, Forced %q`, m.Complete(), m.Finished(), m.Forced())
	}
	for _, b := range "ue" {
		if err := m.Advance(b); err != nil {
			t.Fatal(err)
		}
	}
	if !m.Complete() || !m.Finished() || m.Forced() != nil {
		t.Errorf(`after "true": Complete %v, Finished %v, Forced %q`, m.Complete(), m.Finished(), m.Forced())
	}
	if err := m.Mask(bits); err != nil || !has(bits, 256) {
		t.Errorf("the end is not allowed, Mask() = %v", err)
	}
	if err := m.Advance(256); err != nil {
		t.Error(err)
	}
	if m.Advance(256) == nil || !m.Finished() {
		t.Error("more than one end is allowed")
	}
	if err := m.Mask(bits[:4]); err == nil {
		t.Error("Mask() of too few bits: no error")
	}
}

func TestCompleteButNotFinished(t *testing.T) {
	m := NewMatcher(mustSchema(t, `{"type":"integer","maximum":12}`), bytesOnly())
	if err := m.Advance('1'); err != nil {
		t.Fatal(err)
	}
	if !m.Complete() || m.Finished() || m.Forced() != nil {
		t.Errorf(`after "1": Complete %v, Finished %v, Forced %q`, m.Complete(), m.Finished(), m.Forced())
	}
}

func TestForced(t *testing.T) {
	g := mustSchema(t, `{"type":"object","properties":{"name":{"const":"x"}},"required":["name"],"additionalProperties":false}`)
	m := NewMatcher(Seq(Literal("<call>\n"), Literal(strings.Repeat("y", 300)), g), bytesOnly())
	if got, want := string(m.Forced()), "<call>\n"+strings.Repeat("y", maxForced-7); got != want {
		t.Errorf("Forced() = %q, want %q", got, want)
	}
}

func TestDeadEnd(t *testing.T) {
	v := NewVocabulary([][]byte{[]byte("a"), []byte("b"), nil}, []int32{2})
	g, err := Choice([]string{"ac", "b"})
	if err != nil {
		t.Fatal(err)
	}
	m := NewMatcher(g, v)
	if err := m.Mask(make([]uint64, 1)); err != nil {
		t.Fatal(err)
	}
	if err := m.Advance(0); err != nil {
		t.Fatal(err)
	}
	if err := m.Mask(make([]uint64, 1)); !errors.Is(err, ErrDeadEnd) {
		t.Errorf("Mask() = %v, want ErrDeadEnd", err)
	}
	if err := NewMatcher(Literal(""), NewVocabulary([][]byte{[]byte("a")}, nil)).Mask(make([]uint64, 1)); !errors.Is(err, ErrDeadEnd) {
		t.Errorf("Mask() of a complete output without an end token = %v, want ErrDeadEnd", err)
	}
}

// TestNoDeadEnds walks byte by byte: with every byte a token there is always a
// next one.
func TestNoDeadEnds(t *testing.T) {
	s := &sampler{Rand: rand.New(rand.NewPCG(13, 14))}
	for range 300 {
		top := s.root()
		g, err := JSONSchema(t.Context(), []byte(top.schema))
		if err != nil {
			continue
		}
		reference := validator(t, top.schema)
		if text, ok := walk(t, s, g, bytesOnly()); ok {
			if err := validate(reference, text); err != nil {
				t.Fatalf("%s\nallowed %q\n%v", top.schema, text, err)
			}
		}
	}
}

// TestMatchersShareAGrammar runs with the race detector.
func TestMatchersShareAGrammar(t *testing.T) {
	v := realVocabulary(t)
	g := mustSchema(t, benchSchemas["tree"])
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s := &sampler{Rand: rand.New(rand.NewPCG(uint64(i), 1))}
			for range 4 {
				walk(t, s, g, v)
			}
		})
	}
	wg.Wait()
}

// TestCachesAreBounded drives one grammar through more states than it keeps,
// and expects the same masks as a fresh one gives.
func TestCachesAreBounded(t *testing.T) {
	v := byteVocabulary("ab", `","`, `"}`)
	schema := `{"type":"array","items":{"type":"object","properties":{"a":{"type":"string","maxLength":4000},"b":{"$ref":"#"}}}}`
	g := mustSchema(t, schema)
	m := NewMatcher(g, v)
	s := &sampler{Rand: rand.New(rand.NewPCG(15, 16))}
	bits, want := make([]uint64, v.words()), make([]uint64, v.words())
	text := []byte{}
	for _, part := range []string{`[{"a":"`, strings.Repeat("x", 3000), `","b":[{"a":"`, strings.Repeat("é", 2000), `","b":[`} {
		for _, b := range []byte(part) {
			if s.chance(3) {
				if err := m.Mask(bits); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Advance(int32(b)); err != nil {
				t.Fatal(err)
			}
			if len(g.m.kept) > maxSets || g.m.masks > maxMaskBytes {
				t.Fatalf("keeps %d sets and %d bytes of masks", len(g.m.kept), g.m.masks)
			}
		}
		text = append(text, part...)
		if err := m.Mask(bits); err != nil {
			t.Fatal(err)
		}
		fresh := NewMatcher(mustSchema(t, schema), v)
		for _, b := range text {
			if err := fresh.Advance(int32(b)); err != nil {
				t.Fatal(err)
			}
		}
		if err := fresh.Mask(want); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(bits) != fmt.Sprint(want) {
			t.Errorf("after %d bytes: mask %x, want %x", len(text), bits, want)
		}
	}
}

func TestVocabularyCacheIsBounded(t *testing.T) {
	v := realVocabulary(t)
	for lo := range int32(3000) {
		v.textMask(&text{quoted: true, min: lo % 70, max: lo}, state{})
		if v.bytes > maxTextBytes {
			t.Fatalf("holds %d bytes", v.bytes)
		}
	}
}

func TestTooManyWays(t *testing.T) {
	var variants []*Grammar
	for i := range maxWidth/textWidth + 1 {
		g, err := Regex(t.Context(), fmt.Sprintf("a{%d}", i+1))
		if err != nil {
			t.Fatal(err)
		}
		variants = append(variants, g)
	}
	var large *TooLargeError
	if err := Alt(variants...).Err(); !errors.As(err, &large) {
		t.Errorf("Alt: %v, want a TooLargeError", err)
	}
	// Beyond the start, what leads there is masked.
	g := Alt(Literal("b"), Seq(Literal("a"), variants[0]), Seq(Literal("a"), Alt(variants[1:]...)))
	m := NewMatcher(g, bytesOnly())
	if m.Advance('a') == nil || m.Advance('b') != nil {
		t.Error("the wide way was not masked")
	}
}

// FuzzJSONSchema compiles anything, and walks what compiles.
func FuzzJSONSchema(f *testing.F) {
	for _, schema := range benchSchemas {
		f.Add([]byte(schema))
	}
	s := &sampler{Rand: rand.New(rand.NewPCG(17, 18))}
	for range 40 {
		f.Add([]byte(s.root().schema))
	}
	f.Fuzz(func(t *testing.T, schema []byte) {
		g, err := JSONSchema(t.Context(), schema)
		if err != nil {
			return
		}
		s := &sampler{Rand: rand.New(rand.NewPCG(19, uint64(len(schema))))}
		walk(t, s, g, bytesOnly())
	})
}

// FuzzRegex compiles anything, and walks what compiles.
func FuzzRegex(f *testing.F) {
	for _, p := range samplePatterns {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		g, err := Regex(t.Context(), pattern)
		if err != nil {
			return
		}
		s := &sampler{Rand: rand.New(rand.NewPCG(21, uint64(len(pattern))))}
		text, ok := walk(t, s, g, bytesOnly())
		want, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if ok && err == nil && (!utf8.ValidString(text) || !want.MatchString(text)) {
			t.Errorf("%q allowed %q", pattern, text)
		}
	})
}
