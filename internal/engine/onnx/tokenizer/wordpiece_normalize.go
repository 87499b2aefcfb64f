package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bertNormalizer is the BertNormalizer of a tokenizer.json: what is done to
// text before it is cut into words, in the order of the fields.
type bertNormalizer struct {
	clean     bool // drop control characters, make all white space a space
	chinese   bool // make every Chinese character a word of its own
	strip     bool // drop accents
	lowercase bool
}

func (n bertNormalizer) apply(s string) string {
	if n.clean {
		s = strings.Map(cleaned, s)
	}
	if isASCII(s) { // has neither accents nor Chinese characters
		if n.lowercase {
			s = strings.ToLower(s)
		}
		return s
	}
	if n.chinese {
		s = padChinese(s)
	}
	if n.strip {
		s = stripAccents(s)
	}
	if n.lowercase {
		s = lowered(s)
	}
	return s
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// cleaned is what becomes of a character; -1 drops it.
func cleaned(r rune) rune {
	switch {
	case r > ' ' && r < 0x7f:
		return r
	case r == '\t', r == '\n', r == '\r':
		return ' '
	case r == utf8.RuneError, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co) && !unicode.Is(newerControls, r):
		return -1
	case unicode.IsSpace(r):
		return ' '
	}
	return r
}

// chinese are the blocks that BERT calls Chinese. The sixth begins at U+2B920
// where the Unicode block begins at U+2B820: a slip of the original.
var chinese = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x3400, Hi: 0x4dbf, Stride: 1}, {Lo: 0x4e00, Hi: 0x9fff, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x20000, Hi: 0x2a6df, Stride: 1}, {Lo: 0x2a700, Hi: 0x2b73f, Stride: 1}, {Lo: 0x2b740, Hi: 0x2b81f, Stride: 1},
		{Lo: 0x2b920, Hi: 0x2ceaf, Stride: 1}, {Lo: 0x2f800, Hi: 0x2fa1f, Stride: 1},
	},
}

func padChinese(s string) string {
	if strings.IndexFunc(s, isChinese) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isChinese(r) {
			b.WriteByte(' ')
			b.WriteRune(r)
			b.WriteByte(' ')
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isChinese(r rune) bool { return r >= 0x3400 && unicode.Is(chinese, r) }

// stripAccents decomposes s and drops its non-spacing marks.
func stripAccents(s string) string {
	out := make([]byte, 0, len(s))
	var seg []mark
	flush := func() {
		out = appendStripped(out, seg)
		seg = seg[:0]
	}
	for _, r := range s {
		if r >= firstNewer && unicode.Is(newerMarks, r) { // inert in the older tables
			flush()
			if !isNonspacing(r) {
				out = utf8.AppendRune(out, r)
			}
			continue
		}
		seg = appendDecomposed(seg, r)
	}
	flush()
	return string(out)
}

// appendStripped puts the marks of seg in canonical order and appends those
// that take space.
func appendStripped(out []byte, seg []mark) []byte {
	for i := 0; i < len(seg); {
		k := i
		for k < len(seg) && seg[k].ccc > 0 {
			k++
		}
		slices.SortStableFunc(seg[i:k], func(a, b mark) int { return int(a.ccc) - int(b.ccc) })
		i = k + 1
	}
	for _, m := range seg {
		if !isNonspacing(m.r) {
			out = utf8.AppendRune(out, m.r)
		}
	}
	return out
}

// isNonspacing tells the marks of Mn. Two became spacing marks later.
func isNonspacing(r rune) bool {
	if r < 0x300 {
		return false
	}
	return r == 0x1734 || r == 0x1171e || unicode.Is(unicode.Mn, r) && !unicode.Is(newerNonspacing, r)
}

// lowered makes every character lower case by itself, without regard to its
// neighbours. One of them becomes two.
func lowered(s string) string {
	return strings.ReplaceAll(strings.Map(func(r rune) rune {
		if r == 'İ' {
			return r
		}
		return unicode.ToLower(r)
	}, s), "İ", "i\u0307")
}

// eachWord cuts s at white space, and around every punctuation mark.
func eachWord(s string, word func(string)) {
	begin := 0
	for i, r := range s {
		space := unicode.IsSpace(r)
		if !space && !isPunctuation(r) {
			continue
		}
		if begin < i {
			word(s[begin:i])
		}
		begin = i + utf8.RuneLen(r)
		if !space {
			word(s[i:begin])
		}
	}
	if begin < len(s) {
		word(s[begin:])
	}
}

// isPunctuation tells the marks of P and, of ASCII, the symbols. Two are no
// punctuation any more.
func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r < 0x7f && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
	}
	return r == 0x166d || r == 0x111c9 || unicode.Is(unicode.P, r) && !unicode.Is(newerPunctuation, r)
}
