package tokenizer

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// class is what the split patterns ask of a character.
type class uint8

const (
	other   class = iota // neither \p{L}, \p{N} nor \s
	letter               // \p{L}
	number               // \p{N}
	space                // \s without the next
	newline              // \r and \n
)

// newerLetters and newerNumbers are the characters that Go's Unicode 17 tables
// call letters and numbers and the regular expression engine inside Hugging
// Face tokenizers 0.23.3 (Oniguruma, Unicode 16) does not yet. A test compares
// all code points with that library's ids.
var (
	newerLetters = &unicode.RangeTable{
		R16: []unicode.Range16{
			{Lo: 0x088f, Hi: 0x088f, Stride: 1}, {Lo: 0x0c5c, Hi: 0x0c5c, Stride: 1},
			{Lo: 0x0cdc, Hi: 0x0cdc, Stride: 1}, {Lo: 0xa7ce, Hi: 0xa7cf, Stride: 1},
			{Lo: 0xa7d2, Hi: 0xa7d4, Stride: 2}, {Lo: 0xa7f1, Hi: 0xa7f1, Stride: 1},
		},
		R32: []unicode.Range32{
			{Lo: 0x10940, Hi: 0x10959, Stride: 1}, {Lo: 0x10ec5, Hi: 0x10ec7, Stride: 1},
			{Lo: 0x11db0, Hi: 0x11ddb, Stride: 1}, {Lo: 0x16ea0, Hi: 0x16eb8, Stride: 1},
			{Lo: 0x16ebb, Hi: 0x16ed3, Stride: 1}, {Lo: 0x16ff2, Hi: 0x16ff3, Stride: 1},
			{Lo: 0x187f8, Hi: 0x187ff, Stride: 1}, {Lo: 0x18d09, Hi: 0x18d1e, Stride: 1},
			{Lo: 0x18d80, Hi: 0x18df2, Stride: 1}, {Lo: 0x1e6c0, Hi: 0x1e6de, Stride: 1},
			{Lo: 0x1e6e0, Hi: 0x1e6e2, Stride: 1}, {Lo: 0x1e6e4, Hi: 0x1e6e5, Stride: 1},
			{Lo: 0x1e6e7, Hi: 0x1e6ed, Stride: 1}, {Lo: 0x1e6f0, Hi: 0x1e6f4, Stride: 1},
			{Lo: 0x1e6fe, Hi: 0x1e6ff, Stride: 1}, {Lo: 0x2b73a, Hi: 0x2b73f, Stride: 1},
			{Lo: 0x2cea2, Hi: 0x2cead, Stride: 1}, {Lo: 0x323b0, Hi: 0x33479, Stride: 1},
		},
	}
	newerNumbers = &unicode.RangeTable{
		R32: []unicode.Range32{
			{Lo: 0x11de0, Hi: 0x11de9, Stride: 1}, {Lo: 0x16ff4, Hi: 0x16ff6, Stride: 1},
		},
	}
)

// classTable is indexed by code point: one load instead of a search per
// character. Its pages cost memory only where a script is assigned.
type classTable [unicode.MaxRune + 1]class

var classes = sync.OnceValue(func() *classTable {
	t := new(classTable)
	t.set(unicode.L, letter)
	t.set(unicode.N, number)
	t.set(unicode.White_Space, space)
	t.set(newerLetters, other)
	t.set(newerNumbers, other)
	t['\r'], t['\n'] = newline, newline
	return t
})

func (t *classTable) set(rt *unicode.RangeTable, c class) {
	for _, r := range rt.R16 {
		for i := uint32(r.Lo); i <= uint32(r.Hi); i += uint32(r.Stride) {
			t[i] = c
		}
	}
	for _, r := range rt.R32 {
		for i := r.Lo; i <= r.Hi; i += r.Stride {
			t[i] = c
		}
	}
}

// at returns the class of the first character of s and its length; a
// length of 0 means that s is empty.
func (t *classTable) at(s string) (class, int) {
	if s == "" {
		return other, 0
	}
	if s[0] < utf8.RuneSelf {
		return t[s[0]], 1
	}
	r, n := utf8.DecodeRuneInString(s)
	return t[r], n
}
