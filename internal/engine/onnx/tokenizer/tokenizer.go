package tokenizer

import (
	"slices"
	"sync"
)

// Tokenizer is a loaded tokenizer.json. It never changes, and all its methods
// may be called concurrently.
type Tokenizer struct {
	vocab   map[string]int32 // the model's own tokens, in alphabet spelling
	tokens  []string         // by id, added tokens too; "" when there is none
	special map[int32]bool
	added   map[string]int32

	raw        matcher // added tokens to find in the text as it is
	normalized matcher // added tokens to find in the normalised text
	normalize  func(string) string
	stages     []stage
	before     []int32 // what EncodeWithSpecial puts around the text
	after      []int32

	byteIDs      [256]int32 // -1: the byte has no token
	unknown      int32      // -1: such bytes vanish
	fuseUnknown  bool
	ignoreMerges bool
	rules        *pairTable

	mergers sync.Pool
}

// stage cuts each piece of the stage before it into smaller ones.
type stage struct {
	prefixSpace bool   // begin each piece with a space
	cut         cutter // nil: leave it whole
}

// Encode returns the ids of s. Added tokens that s spells out, special ones
// among them, become their own ids, like encode(add_special_tokens=False) of
// the Hugging Face library: use it for text that a template has built.
func (t *Tokenizer) Encode(s string) []int32 { return t.encode(nil, s, false) }

// EncodePlain returns the ids of s with special tokens read as ordinary text,
// so that a user cannot write one. Added tokens that are not special are still
// found, like with the library's encode_special_tokens option.
func (t *Tokenizer) EncodePlain(s string) []int32 { return t.encode(nil, s, true) }

// EncodeWithSpecial is Encode with the tokens around it that the file's
// TemplateProcessing asks for (often a beginning-of-text token), like
// encode(add_special_tokens=True).
func (t *Tokenizer) EncodeWithSpecial(s string) []int32 {
	return append(t.encode(append([]int32(nil), t.before...), s, false), t.after...)
}

// ID returns the id of a token, given as the file spells it.
func (t *Tokenizer) ID(token string) (int32, bool) {
	if id, ok := t.added[token]; ok {
		return id, true
	}
	id, ok := t.vocab[token]
	return id, ok
}

// Token returns the token of id as the file spells it, or "" if there is none.
func (t *Tokenizer) Token(id int32) string {
	if id < 0 || int(id) >= len(t.tokens) {
		return ""
	}
	return t.tokens[id]
}

// TokenBytes returns the bytes that id decodes to, which need not be UTF-8 by
// themselves.
func (t *Tokenizer) TokenBytes(id int32) []byte { return t.appendToken(nil, id) }

func (t *Tokenizer) appendToken(dst []byte, id int32) []byte {
	return byteAlphabet().appendBytes(dst, t.Token(id))
}

// IsSpecial reports whether id is a special token, which text for people
// leaves out.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.special[id] }

// VocabSize returns the highest id plus one. A model's output layer may be
// wider.
func (t *Tokenizer) VocabSize() int { return len(t.tokens) }

// encode appends the ids of s to dst.
func (t *Tokenizer) encode(dst []int32, s string, plain bool) []int32 {
	m := t.mergers.Get().(*merger)
	defer func() {
		m.trim()
		t.mergers.Put(m)
	}()
	token := func(id int32) { dst = append(dst, id) }
	words := func(text string) { dst = t.cut(dst, m, t.stages, text) }
	t.raw.each(validUTF8(s), plain, func(text string) {
		if t.normalize != nil {
			text = t.normalize(text)
		}
		t.normalized.each(text, plain, words, token)
	}, token)
	return dst
}

// cut splits s by the stages and appends the ids of the resulting words.
func (t *Tokenizer) cut(dst []int32, m *merger, stages []stage, s string) []int32 {
	if len(stages) == 0 {
		return t.word(dst, m, s)
	}
	st := stages[0]
	if st.prefixSpace && s[0] != ' ' {
		s = " " + s
	}
	if st.cut == nil {
		return t.cut(dst, m, stages[1:], s)
	}
	for s != "" {
		n := st.cut(s)
		dst = t.cut(dst, m, stages[1:], s[:n])
		s = s[n:]
	}
	return dst
}

// word appends the ids of one word.
func (t *Tokenizer) word(dst []int32, m *merger, s string) []int32 {
	if t.ignoreMerges {
		m.text = byteAlphabet().appendChars(m.text[:0], s)
		if id, ok := t.vocab[string(m.text)]; ok {
			return append(dst, id)
		}
	}
	m.symbols = slices.Grow(m.symbols[:0], len(s))
	known := true
	for i := range len(s) {
		id := t.byteIDs[s[i]]
		switch {
		case id >= 0:
			m.add(id)
		case t.unknown >= 0 && (known || !t.fuseUnknown):
			m.add(t.unknown)
		}
		known = id >= 0
	}
	m.merge(t.rules)
	for _, sym := range m.symbols {
		if sym.id >= 0 {
			dst = append(dst, sym.id)
		}
	}
	return dst
}
