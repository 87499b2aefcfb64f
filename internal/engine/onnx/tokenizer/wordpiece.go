package tokenizer

import (
	"unicode/utf8"
)

// WordPiece is the tokenizer of BERT and its descendants, the usual embedding
// and classification models. Its ids are those of Hugging Face tokenizers. It
// never changes, and all its methods may be called concurrently.
type WordPiece struct {
	vocab     map[string]int32 // tokens that begin a word
	inside    map[string]int32 // tokens that go on with one, without their prefix
	longest   int              // bytes of the longest token
	size      int              // highest id plus one
	unknown   int32
	maxChars  int // longer words are unknown
	normalize bertNormalizer

	raw        matcher // added tokens to find in the text as it is
	normalized matcher // added tokens to find in the normalised text

	single, pair []templatePart
}

// templatePart is one part of what a model reads: a special token or the place
// of a text.
type templatePart struct {
	ids  []int32 // of a special token
	text int     // 1 or 2: the place of that text; 0: a special token
	kind int32   // the token type of this part
}

// Framed is what a model reads: ids, and for each the type of its part, which
// tells the two texts of a pair apart.
type Framed struct {
	IDs, Types []int32
}

// Encode returns the ids of s without the tokens that a model wants around
// them. Added tokens that s spells out, such as [MASK], become their own ids,
// like encode(add_special_tokens=False) of the Hugging Face library.
func (w *WordPiece) Encode(s string) []int32 {
	var dst []int32
	token := func(id int32) { dst = append(dst, id) }
	words := func(text string) {
		eachWord(text, func(word string) { dst = w.word(dst, word) })
	}
	w.raw.each(validUTF8(s), false, func(text string) {
		w.normalized.each(w.normalize.apply(text), false, words, token)
	}, token)
	return dst
}

// word appends the ids of one word: the longest token that it begins with,
// then the longest that goes on with the rest, to its end. One rest without a
// token makes the whole word unknown.
func (w *WordPiece) word(dst []int32, word string) []int32 {
	if len(word) > w.maxChars && utf8.RuneCountInString(word) > w.maxChars {
		return append(dst, w.unknown)
	}
	begin := len(dst)
	for vocab, rest := w.vocab, word; rest != ""; vocab = w.inside {
		id, n := w.prefix(vocab, rest)
		if n == 0 {
			return append(dst[:begin], w.unknown)
		}
		dst = append(dst, id)
		rest = rest[n:]
	}
	return dst
}

// prefix finds the longest token that s begins with, and its length.
func (w *WordPiece) prefix(vocab map[string]int32, s string) (int32, int) {
	for n := min(len(s), w.longest); n > 0; n-- {
		if n < len(s) && !utf8.RuneStart(s[n]) {
			continue
		}
		if id, ok := vocab[s[:n]]; ok {
			return id, n
		}
	}
	return 0, 0
}

// Frame puts the model's special tokens around one text.
func (w *WordPiece) Frame(a []int32) Framed { return frame(w.single, a, nil) }

// FramePair puts the model's special tokens around two texts and between them.
func (w *WordPiece) FramePair(a, b []int32) Framed { return frame(w.pair, a, b) }

func frame(parts []templatePart, a, b []int32) Framed {
	var f Framed
	for _, p := range parts {
		ids := p.ids
		switch p.text {
		case 1:
			ids = a
		case 2:
			ids = b
		}
		f.IDs = append(f.IDs, ids...)
		for range ids {
			f.Types = append(f.Types, p.kind)
		}
	}
	return f
}

// Overhead is how many tokens Frame adds to a text, and FramePair to two.
func (w *WordPiece) Overhead() (single, pair int) {
	return len(frame(w.single, nil, nil).IDs), len(frame(w.pair, nil, nil).IDs)
}

// VocabSize returns the highest id plus one.
func (w *WordPiece) VocabSize() int { return w.size }

// TruncatePair shortens the longer of two texts, then both, until together
// they have at most limit ids, as the strategy longest_first of the Hugging
// Face library does.
func TruncatePair(a, b []int32, limit int) ([]int32, []int32) {
	limit = max(limit, 0)
	if len(a)+len(b) <= limit {
		return a, b
	}
	short := min(len(a), len(b))
	long := limit - short
	if short > long { // both are too long
		short = limit / 2
		long = limit - short
	}
	if len(a) > len(b) {
		short, long = long, short
	}
	return a[:short], b[:long]
}
