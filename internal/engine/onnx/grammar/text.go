package grammar

import "unicode/utf8"

// text is a run of characters: raw UTF-8, or a JSON string with its quotes and
// escapes. Partial characters and escapes are states too, entered only when a
// character that may follow can complete them.
//
// A state's q is that of the automaton, n counts characters, and p holds what
// of a character has been read: its kind in the upper bits, then as below.
type text struct {
	dfa      *dfa // nil: any characters
	quoted   bool // a JSON string
	min, max int32
	// min and max bound the characters of a string without automaton; a
	// negative max is no bound.
}

const (
	inBody   = iota << 28 // between characters
	inUTF8                // total bytes <<26, bytes missing <<24, bits so far
	inEscape              // after a backslash
	inHex                 // after \u: digits <<24, value so far
	inPair                // a high surrogate was read: what of \u was read <<24, its low ten bits
	inLow                 // after the second \u: digits <<24, high bits <<12, value so far
	isOpen                // before the opening quote
	isDone                // after the closing quote
)

const kindMask = uint32(15) << 28

func (t *text) start() state {
	if t.quoted {
		return state{p: isOpen}
	}
	return state{}
}

func (t *text) accepts(s state) bool {
	if t.quoted {
		return s.p == isDone
	}
	return s.p == inBody && t.mayEnd(s)
}

func (t *text) extends(s state) bool {
	if t.quoted {
		return s.p != isDone
	}
	return s.p != inBody || t.more(s) && t.any(s.q, 0, utf8.MaxRune)
}

// mayEnd reports whether the characters so far are enough.
func (t *text) mayEnd(s state) bool {
	return s.n >= t.min && (t.dfa == nil || t.dfa.accept[s.q])
}

// more reports whether the count allows another character.
func (t *text) more(s state) bool { return t.max < 0 || s.n < t.max }

// any reports whether some character in [lo, hi] may follow.
func (t *text) any(q int32, lo, hi rune) bool {
	if lo > hi {
		return false
	}
	if t.dfa != nil {
		return t.dfa.any(q, lo, hi)
	}
	return lo < surrogateMin || hi > surrogateMax
}

func (t *text) step(s state, b byte) (state, bool) {
	switch s.p & kindMask {
	case inBody:
		return t.body(s, b)
	case inUTF8:
		return t.utf8(s, b)
	case inEscape:
		return t.escape(s, b)
	case inHex:
		return t.hex(s, b)
	case inPair:
		return t.pair(s, b)
	case inLow:
		return t.low(s, b)
	case isOpen:
		return state{}, b == '"'
	}
	return s, false
}

// char takes a whole character.
func (t *text) char(s state, r rune) (state, bool) {
	s.p = inBody
	if t.dfa != nil {
		s.q = t.dfa.next(s.q, r)
		return s, s.q >= 0
	}
	if t.max >= 0 || s.n < t.min {
		s.n++ // else no state depends on it
	}
	return s, true
}

func (t *text) body(s state, b byte) (state, bool) {
	if t.quoted && b == '"' {
		return state{p: isDone}, t.mayEnd(s)
	}
	if !t.more(s) {
		return s, false
	}
	switch {
	case t.quoted && b == '\\':
		s.p = inEscape
		return s, t.any(s.q, 0, utf8.MaxRune)
	case t.quoted && b < ' ':
		return s, false
	case b < utf8.RuneSelf:
		return t.char(s, rune(b))
	case b < 0xC2 || b > 0xF4:
		return s, false
	case b < 0xE0:
		return t.partial(s, 2, 1, uint32(b&0x1F))
	case b < 0xF0:
		return t.partial(s, 3, 2, uint32(b&0x0F))
	}
	return t.partial(s, 4, 3, uint32(b&0x07))
}

// partial records the bits of a character of total bytes that misses some.
func (t *text) partial(s state, total, missing, bits uint32) (state, bool) {
	lo := rune(bits << (6 * missing))
	hi := lo + 1<<(6*missing) - 1
	switch total {
	case 2:
		lo = max(lo, 0x80)
	case 3:
		lo = max(lo, 0x800)
	default:
		lo, hi = max(lo, 0x10000), min(hi, utf8.MaxRune)
	}
	s.p = inUTF8 | total&3<<26 | missing<<24 | bits
	return s, t.any(s.q, lo, hi)
}

func (t *text) utf8(s state, b byte) (state, bool) {
	if b&0xC0 != 0x80 {
		return s, false
	}
	total, missing := s.p>>26&3, s.p>>24&3-1
	if total == 0 {
		total = 4
	}
	bits := s.p&(1<<24-1)<<6 | uint32(b&0x3F)
	if missing == 0 {
		return t.char(s, rune(bits))
	}
	return t.partial(s, total, missing, bits)
}

// escaped are the characters that a backslash and a letter stand for.
var escaped = [256]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (t *text) escape(s state, b byte) (state, bool) {
	if b == 'u' {
		s.p = inHex
		return s, true
	}
	r := escaped[b]
	if r == 0 {
		return s, false
	}
	return t.char(s, r)
}

func hexDigit(b byte) (uint32, bool) {
	switch {
	case '0' <= b && b <= '9':
		return uint32(b - '0'), true
	case 'a' <= b && b <= 'f':
		return uint32(b - 'a' + 10), true
	case 'A' <= b && b <= 'F':
		return uint32(b - 'A' + 10), true
	}
	return 0, false
}

func (t *text) hex(s state, b byte) (state, bool) {
	digit, ok := hexDigit(b)
	if !ok {
		return s, false
	}
	digits, v := s.p>>24&15+1, s.p&0xFFFF<<4|digit
	missing := 4 * (4 - digits)
	lo := rune(v << missing)
	hi := lo + 1<<missing - 1
	// A high surrogate stands for 1024 characters beyond U+FFFF.
	first, last := max(lo, surrogateMin), min(hi, 0xDBFF)
	pair := first <= last && t.any(s.q, highBase(first), highBase(last)+0x3FF)
	switch {
	case digits < 4:
		s.p = inHex | digits<<24 | v
		return s, pair || t.any(s.q, lo, hi)
	case lo >= surrogateMin && lo <= surrogateMax:
		s.p = inPair | v&0x3FF
		return s, pair
	}
	return t.char(s, lo)
}

// highBase is the first character that the high surrogate r begins.
func highBase(r rune) rune { return 0x10000 + (r-surrogateMin)<<10 }

func (t *text) pair(s state, b byte) (state, bool) {
	if s.p>>24&1 == 0 {
		s.p |= 1 << 24
		return s, b == '\\'
	}
	s.p = inLow | s.p&0x3FF<<12
	return s, b == 'u'
}

func (t *text) low(s state, b byte) (state, bool) {
	digit, ok := hexDigit(b)
	if !ok {
		return s, false
	}
	digits, high, v := s.p>>24&3+1, s.p>>12&0x3FF, s.p&0xFFF<<4|digit
	missing := 4 * (4 - digits)
	lo, hi := max(v<<missing, 0xDC00), min(v<<missing+1<<missing-1, surrogateMax)
	if lo > hi {
		return s, false
	}
	base := rune(0x10000 + high<<10)
	if digits == 4 {
		return t.char(s, base+rune(lo-0xDC00))
	}
	s.p = inLow | digits<<24 | high<<12 | v
	return s, t.any(s.q, base+rune(lo-0xDC00), base+rune(hi-0xDC00))
}
