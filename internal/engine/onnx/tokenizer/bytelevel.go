package tokenizer

import (
	"sync"
	"unicode/utf8"
)

// The byte-level alphabet gives each byte a printable character, so that a
// vocabulary can be a list of strings. Printable bytes stand for themselves;
// the other 68 become U+0100 and up, in order.
// Source: bytes_to_unicode in github.com/openai/gpt-2, src/encoder.py.
const alphabetEnd = 0x144

type alphabet struct {
	char [256]rune
	byte [alphabetEnd]int16 // -1: not in the alphabet
}

var byteAlphabet = sync.OnceValue(func() *alphabet {
	a := new(alphabet)
	for i := range a.byte {
		a.byte[i] = -1
	}
	next := rune(0x100)
	for b := range 256 {
		c := rune(b)
		if b < '!' || b > '~' && b < 0xA1 || b == 0xAD {
			c = next
			next++
		}
		a.char[b] = c
		a.byte[c] = int16(b)
	}
	return a
})

// appendChars appends the alphabet's spelling of the bytes of s.
func (a *alphabet) appendChars(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = utf8.AppendRune(dst, a.char[s[i]])
	}
	return dst
}

// appendBytes appends the bytes that token spells. A token with a character
// outside the alphabet (some added tokens) stands for its own text.
// Source: ByteLevel's decode_chain in Hugging Face tokenizers.
func (a *alphabet) appendBytes(dst []byte, token string) []byte {
	start := len(dst)
	for _, r := range token {
		if r >= alphabetEnd || a.byte[r] < 0 {
			return append(dst[:start], token...)
		}
		dst = append(dst, byte(a.byte[r]))
	}
	return dst
}
