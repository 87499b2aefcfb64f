package vllm

import (
	"bytes"
	"encoding/json/jsontext"
)

// span is a member of a JSON object: text[at:end] is `"name":value` and
// text[value:end] its value. It is absent when at is negative.
type span struct{ at, value, end int }

var absent = span{at: -1}

func (s span) ok() bool { return s.at >= 0 }

// of returns the value's text, nil when it is absent.
func (s span) of(text []byte) []byte {
	if !s.ok() {
		return nil
	}
	return text[s.value:s.end]
}

// member finds a member of the object that text begins with. It does not
// check syntax: it is for text that was checked, or that is only passed on. A
// chunk of a stream is scanned in a fraction of a microsecond, where a parser
// would take several.
func member(text []byte, name string) span {
	for i := skipSpace(text, 0); ; {
		m, nameEnd := nextMember(text, i)
		if !m.ok() {
			return absent
		}
		if isName(text[m.at:nameEnd], name) {
			return m
		}
		i = m.end
	}
}

// nextMember finds the member that begins after i, which is where the object
// does or where the member before ends.
func nextMember(text []byte, i int) (m span, nameEnd int) {
	if i = skipSpace(text, i); i >= len(text) || (text[i] != ',' && text[i] != '{') {
		return absent, 0
	}
	if i = skipSpace(text, i+1); i >= len(text) || text[i] != '"' {
		return absent, 0
	}
	at, nameEnd := i, skipString(text, i)
	if i = skipSpace(text, nameEnd); i >= len(text) || text[i] != ':' {
		return absent, 0
	}
	value := skipSpace(text, i+1)
	if i = skipValue(text, value); i <= value {
		return absent, 0
	}
	return span{at, value, i}, nameEnd
}

// lastMember finds a member that stands near the end of an object without
// scanning what is before. Its name must not be escaped. What follows it tells whether it is the object's
// own: then one brace is left to close.
func lastMember(text []byte, quoted string) span {
	at := bytes.LastIndex(text, []byte(quoted)) // a quote inside a string is escaped
	if at < 0 {
		return absent
	}
	if value := at + len(quoted) + 1; value < len(text) && text[value-1] == ':' {
		if end := skipValue(text, value); end > value && closes(text[end:]) == 1 {
			return span{at, value, end}
		}
	}
	return member(text, quoted[1:len(quoted)-1])
}

// closes is how many more brackets text closes than it opens.
func closes(text []byte) int {
	n := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = skipString(text, i) - 1
		case '{', '[':
			n--
		case '}', ']':
			n++
		}
	}
	return n
}

// isName compares a quoted name, which may be escaped, with a plain one.
func isName(quoted []byte, name string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return len(quoted) == len(name)+2 && string(quoted[1:len(quoted)-1]) == name
	}
	plain, err := jsontext.AppendUnquote(nil, quoted)
	return err == nil && string(plain) == name
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return i
}

// skipString returns the index after the string that begins at i.
func skipString(text []byte, i int) int {
	for i++; i < len(text); i++ {
		q := bytes.IndexByte(text[i:], '"')
		if q < 0 {
			return len(text)
		}
		i += q
		backslashes := 0
		for text[i-1-backslashes] == '\\' { // the opening quote ends this
			backslashes++
		}
		if backslashes%2 == 0 {
			return i + 1
		}
	}
	return len(text)
}

// skipValue returns the index after the value that begins at i.
func skipValue(text []byte, i int) int {
	depth := 0
	for i < len(text) {
		switch text[i] {
		case '"':
			i = skipString(text, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// appendWithout appends text less a member of it, and one comma beside it.
func appendWithout(dst, text []byte, m span) []byte {
	before, after := text[:m.at], text[m.end:]
	if trimmed := bytes.TrimRight(before, " \n\r\t"); bytes.HasSuffix(trimmed, []byte(",")) {
		before = trimmed[:len(trimmed)-1]
	} else if trimmed := bytes.TrimLeft(after, " \n\r\t"); bytes.HasPrefix(trimmed, []byte(",")) {
		after = trimmed[1:]
	}
	return append(append(dst, before...), after...)
}

// number reads a JSON number that is a count; anything else is 0.
func number(text []byte) int {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > 1<<40 {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	return n
}
