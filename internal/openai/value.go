package openai

import (
	"bytes"
	"encoding/json/jsontext"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Value is one JSON value of a body that Peek has accepted. Its methods do not
// check syntax again, which makes them many times faster than a parser: a
// string is passed over as fast as memory is read.
type Value struct {
	Text []byte // as it stands in the body, without space around it
	At   int    // its offset in the body
}

// Kind is the first byte: one of { [ " t f n, or 0 for every number.
func (v Value) Kind() byte {
	if len(v.Text) == 0 {
		return 'n'
	}
	switch c := v.Text[0]; c {
	case '{', '[', '"', 't', 'f', 'n':
		return c
	}
	return '0'
}

// Absent says that there is no value, or null, which means the same.
func (v Value) Absent() bool { return v.Kind() == 'n' }

// KindName is the kind in words, for messages.
func (v Value) KindName() string {
	switch v.Kind() {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 'n':
		return "null"
	}
	return "a boolean"
}

// Members yields the names, unquoted, and values of an object; nothing for
// another kind. A name is valid until the next one.
func (v Value) Members() iter.Seq2[[]byte, Value] {
	return func(yield func([]byte, Value) bool) {
		if v.Kind() != '{' {
			return
		}
		for i := skipSpace(v.Text, 1); i < len(v.Text) && v.Text[i] == '"'; {
			end := stringEnd(v.Text, i) + 1
			name := unquote(v.Text[i:end])
			from := skipSpace(v.Text, skipSpace(v.Text, end)+1) // behind the colon
			to := valueEnd(v.Text, from)
			if !yield(name, Value{v.Text[from:to], v.At + from}) {
				return
			}
			i = skipSpace(v.Text, skipSpace(v.Text, to)+1) // behind the comma
		}
	}
}

// Member returns the value of one name; it is absent when there is none.
func (v Value) Member(name string) Value {
	for n, m := range v.Members() {
		if string(n) == name {
			return m
		}
	}
	return Value{}
}

// Elements yields the index and value of each element of an array; nothing for
// another kind.
func (v Value) Elements() iter.Seq2[int, Value] {
	return func(yield func(int, Value) bool) {
		if v.Kind() != '[' {
			return
		}
		from := skipSpace(v.Text, 1)
		for i := 0; from < len(v.Text) && v.Text[from] != ']'; i++ {
			to := valueEnd(v.Text, from)
			if !yield(i, Value{v.Text[from:to], v.At + from}) {
				return
			}
			from = skipSpace(v.Text, skipSpace(v.Text, to)+1)
		}
	}
}

// Len is the number of elements of an array or members of an object.
func (v Value) Len() int {
	n := 0
	for range v.Elements() {
		n++
	}
	for range v.Members() {
		n++
	}
	return n
}

// Find calls found for the members that are wanted at any depth within v, in one
// pass, until it returns false; only to learn where one ends is looked ahead. It
// counts the objects, and the values right in v.
func (v Value) Find(wanted func(name []byte, at Path) bool, found func(m Member, at Path) bool) (objects, length int) {
	at := make(Path, 0, maxDepth)
	for i := 0; i < len(v.Text); i++ {
		switch v.Text[i] {
		case '{':
			objects++
			at = append(at, step{})
		case '[':
			at = append(at, step{array: true})
		case '}', ']':
			if i < len(v.Text)-1 {
				at = at[:len(at)-1]
			}
		case ',':
			at[len(at)-1].index++
		case '"':
			from := i
			i = stringEnd(v.Text, i)
			colon := skipSpace(v.Text, i+1)
			if colon >= len(v.Text) || v.Text[colon] != ':' {
				continue
			}
			top := &at[len(at)-1]
			top.name = unquote(v.Text[from : i+1])
			if wanted(top.name, at) {
				value := skipSpace(v.Text, colon+1)
				m := Member{string(top.name), Value{v.Text[value:valueEnd(v.Text, value)], v.At + value}}
				if !found(m, at) {
					return objects, 0
				}
			}
		}
	}
	if len(v.Text) > 2 && skipSpace(v.Text, 1) < len(v.Text)-1 {
		length = at[0].index + 1
	}
	return objects, length
}

// Path is the way from a value to one within it. It is valid while Find calls.
type Path []step

type step struct {
	array bool
	index int    // of the element, or how many members were before
	name  []byte // of the member
}

// String is the path as clients know it: [0].content[1].image_url.
func (p Path) String() string {
	var b strings.Builder
	for _, s := range p {
		if s.array {
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
			continue
		}
		b.WriteString(".")
		if len(s.name) > 64 {
			b.WriteString(strings.ToValidUTF8(string(s.name[:64]), "") + "…")
		} else {
			b.Write(s.name)
		}
	}
	return b.String()
}

// Below counts the members of these names that the path leads through.
func (p Path) Below(names ...string) int {
	n := 0
	for _, s := range p[:len(p)-1] {
		if !s.array && slices.Contains(names, string(s.name)) {
			n++
		}
	}
	return n
}

// Bytes is the text of a string, unescaped; nil for another kind. It may be a
// part of the body: do not change it.
func (v Value) Bytes() []byte {
	if v.Kind() != '"' {
		return nil
	}
	return unquote(v.Text)
}

// String is the text of a string, unescaped; empty for another kind.
func (v Value) String() string { return string(v.Bytes()) }

// StringBytes is the length of a string's text as it stands in the body, which
// is never less than its unescaped length.
func (v Value) StringBytes() int {
	if v.Kind() != '"' {
		return 0
	}
	return len(v.Text) - 2
}

// Whole is a number without a fraction, also when it is written as 1e2 or 2.0,
// as the engines read it. ok is false for every other value.
func (v Value) Whole() (n int, ok bool) {
	if v.Kind() != '0' {
		return 0, false
	}
	if n, err := strconv.Atoi(string(v.Text)); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(v.Text), 64)
	if err != nil || f != float64(int64(f)) || f > 1<<53 || f < -1<<53 {
		return 0, false
	}
	return int(f), true
}

// unquote returns the text of a valid JSON string, a part of it unless there
// is something to unescape.
func unquote(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	plain, err := jsontext.AppendUnquote(nil, quoted)
	if err != nil { // Peek has refused such strings
		return inner
	}
	return plain
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return i
}

// valueEnd returns the index behind the value that begins at i.
func valueEnd(text []byte, i int) int {
	depth := 0
	for ; i < len(text); i++ {
		switch text[i] {
		case '"':
			if i = stringEnd(text, i); depth == 0 {
				return min(i+1, len(text))
			}
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
	}
	return i
}
