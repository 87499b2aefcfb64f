package tokenizer

import "unicode/utf8"

const replacement = "\uFFFD"

// validUTF8 returns s with every maximal ill-formed sequence replaced by
// U+FFFD, the way Rust's from_utf8_lossy and WHATWG decoders do. (Go's own
// conversions replace each byte, or each run, and so give other ids.)
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	dst, rest := appendValid(make([]byte, 0, len(s)+8), []byte(s))
	if len(rest) > 0 {
		dst = append(dst, replacement...)
	}
	return string(dst)
}

// appendValid appends src to dst with ill-formed sequences replaced, and
// returns what more bytes could still complete: at most three bytes.
func appendValid(dst, src []byte) (_, incomplete []byte) {
	for len(src) > 0 {
		if src[0] < utf8.RuneSelf {
			dst = append(dst, src[0])
			src = src[1:]
			continue
		}
		if r, n := utf8.DecodeRune(src); r != utf8.RuneError || n > 1 {
			dst = append(dst, src[:n]...)
			src = src[n:]
			continue
		}
		n := illFormed(src)
		if n == len(src) && !utf8.FullRune(src) {
			return dst, src
		}
		dst = append(dst, replacement...)
		src = src[n:]
	}
	return dst, nil
}

// illFormed returns the length of the maximal ill-formed sequence that p
// begins with: the longest prefix of some valid sequence, and at least 1.
func illFormed(p []byte) int {
	n := 1
	for n < len(p) && n < utf8.UTFMax && !utf8.FullRune(p[:n]) {
		// p[:n] can be completed; does p[n] go on with it?
		if utf8.FullRune(p[:n+1]) {
			if _, size := utf8.DecodeRune(p[:n+1]); size == 1 {
				return n
			}
		}
		n++
	}
	return n
}
