package grammar

import (
	"bytes"
	"testing"
)

// walk draws tokens from the masks until the end. It turns to closing what is
// open after some tokens, and gives up after many.
func walk(t *testing.T, s *sampler, g *Grammar, v *Vocabulary) (string, bool) {
	t.Helper()
	m := NewMatcher(g, v)
	bits := make([]uint64, v.words())
	var text []byte
	patience := s.IntN(60)
	for n := range 1500 {
		if err := m.Mask(bits); err != nil {
			t.Fatalf("Mask() after %q: %v", text, err)
		}
		end := v.eos[0]
		if allowed := bits[end>>6]>>(end&63)&1 != 0; allowed != m.Complete() {
			t.Fatalf("after %q the mask has the end: %v, Complete: %v", text, allowed, m.Complete())
		}
		forced := m.Forced()
		id := draw(s, v, bits, n > patience)
		if err := m.Advance(id); err != nil {
			t.Fatalf("Advance(%d %q) after %q: %v", id, v.tokens[id], text, err)
		}
		if id == end {
			return string(text), true
		}
		token := v.tokens[id]
		if n := min(len(token), len(forced)); !bytes.Equal(token[:n], forced[:n]) {
			t.Fatalf("after %q came %q, but %q was forced", text, token, forced)
		}
		text = append(text, token...)
	}
	return string(text), false
}

// draw returns a token of the mask: any, or when closing one that leads on.
func draw(s *sampler, v *Vocabulary, bits []uint64, closing bool) int32 {
	if end := v.eos[0]; closing && bits[end>>6]>>(end&63)&1 != 0 {
		return end
	}
	if closing || s.chance(40) {
		for _, c := range []byte(`}]",:`) {
			if id, ok := single(v, bits, c); ok && s.chance(80) {
				return id
			}
		}
	}
	if !closing && s.chance(30) {
		if id, ok := single(v, bits, byte(s.IntN(256))); ok { // odd bytes as well
			return id
		}
	}
	for from := s.IntN(v.size); ; from++ {
		id := int32(from % v.size)
		if bits[id>>6]>>(id&63)&1 != 0 && (!closing || len(v.tokens[id]) < 3 || s.chance(1)) {
			return id
		}
	}
}

// single returns the token of one byte, if the mask has it.
func single(v *Vocabulary, bits []uint64, b byte) (int32, bool) {
	for n := int32(1); n < v.skip[0]; n = v.skip[n] {
		if v.byteOf[n] == b && v.first[n] < v.first[n+1] {
			id := v.ids[v.first[n]]
			return id, bits[id>>6]>>(id&63)&1 != 0
		}
	}
	return 0, false
}

// spell feeds text in random tokens and expects each in the mask.
func spell(t *testing.T, s *sampler, g *Grammar, v *Vocabulary, text, schema string) {
	t.Helper()
	m := NewMatcher(g, v)
	bits := make([]uint64, v.words())
	for at := 0; at < len(text); {
		var ids []int32
		for n, end := int32(1), v.skip[0]; n < end; {
			d := int(v.depth[n]) - 1
			if at+d >= len(text) || v.byteOf[n] != text[at+d] {
				n = v.skip[n]
				if d > 0 && v.depth[min(n, end-1)] <= int32(d) {
					break
				}
				continue
			}
			ids = append(ids, v.ids[v.first[n]:v.first[n+1]]...)
			n++
		}
		id := ids[s.IntN(len(ids))]
		if s.chance(60) {
			id = ids[len(ids)-1] // the longest
		}
		if err := m.Mask(bits); err != nil {
			t.Fatalf("%s\nMask() after %q: %v", schema, text[:at], err)
		}
		if bits[id>>6]>>(id&63)&1 == 0 {
			t.Fatalf("%s\nrefuses %q after %q of %q", schema, v.tokens[id], text[:at], text)
		}
		if err := m.Advance(id); err != nil {
			t.Fatalf("%s\nAdvance after %q: %v", schema, text[:at], err)
		}
		at += len(v.tokens[id])
	}
	if !m.Complete() {
		t.Fatalf("%s\n%q is not complete", schema, text)
	}
}
