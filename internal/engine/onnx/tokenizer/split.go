package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A cutter returns the length of the first piece of s, which is not empty. No
// pattern looks behind, so cutting the rest again and again splits a text.
type cutter func(s string) int

// Patterns that Split may carry, as their files spell them. Each alternative
// is tried in order at every position; together they cover every character.
const (
	gpt2Pattern   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// cutterFor returns the hand-written equivalent of pattern, or nil.
func cutterFor(pattern string) cutter {
	switch pattern {
	case gpt2Pattern:
		return newGPT2()
	case llama3Pattern:
		return newCL100K(3)
	case qwen2Pattern:
		return newCL100K(1)
	}
	return nil
}

// newGPT2 cuts by gpt2Pattern.
func newGPT2() cutter {
	t := classes()
	return func(s string) int {
		if n := contraction(s, false); n > 0 {
			return n
		}
		lead := 0
		if s[0] == ' ' {
			lead = 1
		}
		switch c, _ := t.at(s[lead:]); {
		case lead == len(s) || c == space || c == newline:
			return t.spaces(s)
		default:
			return lead + t.run(s[lead:], c)
		}
	}
}

// newCL100K cuts by the pattern family of OpenAI's cl100k_base, in which a
// number is at most digits long.
func newCL100K(digits int) cutter {
	t := classes()
	return func(s string) int {
		if n := contraction(s, true); n > 0 {
			return n
		}
		c, n := t.at(s)
		switch c {
		case letter:
			return t.run(s, letter)
		case number:
			return t.atMost(s, number, digits)
		case newline:
			return t.blank(s)
		}
		// One character of any other class may lead a word.
		next, _ := t.at(s[n:])
		if next == letter {
			return n + t.run(s[n:], letter)
		}
		if c == other {
			return t.symbols(s, 0)
		}
		if s[0] == ' ' && len(s) > 1 && next == other {
			return t.symbols(s, 1)
		}
		return t.blank(s)
	}
}

// run returns the length of the characters of class c that s begins with.
func (t *classTable) run(s string, c class) int {
	i := 0
	for i < len(s) {
		d, n := t.at(s[i:])
		if d != c {
			break
		}
		i += n
	}
	return i
}

// atMost is run, for no more than limit characters.
func (t *classTable) atMost(s string, c class, limit int) int {
	i := 0
	for range limit {
		d, n := t.at(s[i:])
		if n == 0 || d != c {
			break
		}
		i += n
	}
	return i
}

// symbols matches ` ?[^\s\p{L}\p{N}]+[\r\n]*` with lead spaces.
func (t *classTable) symbols(s string, lead int) int {
	i := lead + t.run(s[lead:], other)
	return i + t.run(s[i:], newline)
}

// white measures the white space that s begins with: its length, the start of
// its last character, and the end of its last newline (0: it has none).
func (t *classTable) white(s string) (end, last, broken int) {
	for end < len(s) {
		c, n := t.at(s[end:])
		if c != space && c != newline {
			break
		}
		last = end
		end += n
		if c == newline {
			broken = end
		}
	}
	return end, last, broken
}

// spaces matches `\s+(?!\S)|\s+`: white space before a word leaves its last
// character to it.
func (t *classTable) spaces(s string) int {
	end, last, _ := t.white(s)
	if end < len(s) && last > 0 {
		return last
	}
	return end
}

// blank matches `\s*[\r\n]+|\s+(?!\S)|\s+`.
func (t *classTable) blank(s string) int {
	end, last, broken := t.white(s)
	switch {
	case broken > 0:
		return broken
	case end < len(s) && last > 0:
		return last
	}
	return end
}

// contraction matches 's|'t|'re|'ve|'m|'ll|'d, and returns 0 when s does not
// begin so. The case-insensitive form also takes U+017F, which folds to s.
func contraction(s string, fold bool) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	one, two := s[1], byte(0)
	if len(s) > 2 {
		two = s[2]
	}
	if fold {
		if strings.HasPrefix(s[1:], "\u017F") {
			return 1 + len("\u017F")
		}
		one, two = lower(one), lower(two)
	}
	switch one {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if two == 'e' {
			return 3
		}
	case 'l':
		if two == 'l' {
			return 3
		}
	}
	return 0
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// cutDigits cuts between numbers and the rest; with each set, every digit
// stands alone. What counts is Rust's char::is_numeric, which is newer here
// than the \p{N} of the patterns.
func cutDigits(each bool) cutter {
	return func(s string) int {
		r, n := utf8.DecodeRuneInString(s)
		numeric := unicode.IsNumber(r)
		if numeric && each {
			return n
		}
		end := strings.IndexFunc(s, func(r rune) bool { return unicode.IsNumber(r) != numeric })
		if end < 0 {
			return len(s)
		}
		return end
	}
}
