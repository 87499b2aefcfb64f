package tokenizer

import (
	"slices"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// composeNFC returns s in Unicode normalisation form C, as Hugging Face
// tokenizers computes it. golang.org/x/text alone would differ in two ways: it
// inserts U+034F into long runs of marks (the stream-safe format), and it knows
// characters newer than the Unicode 9 tables of that library, to which they
// are inert.
func composeNFC(s string) string {
	if norm.NFC.IsNormalString(s) {
		return s // also by the older tables: they reorder and compose less
	}
	out := make([]byte, 0, len(s))
	var seg []mark
	for _, r := range s {
		if r >= firstNewer && unicode.Is(newerMarks, r) {
			out = appendComposed(out, seg)
			out = utf8.AppendRune(out, r)
			seg = seg[:0]
			continue
		}
		seg = appendDecomposed(seg, r)
	}
	return string(appendComposed(out, seg))
}

// mark is a character and its canonical combining class.
type mark struct {
	r   rune
	ccc uint8
}

func appendDecomposed(seg []mark, r rune) []mark {
	if r < utf8.RuneSelf {
		return append(seg, mark{r: r})
	}
	var in [utf8.UTFMax]byte
	var buf [64]byte
	for p := norm.NFD.Append(buf[:0], utf8.AppendRune(in[:0], r)...); len(p) > 0; {
		d, n := utf8.DecodeRune(p)
		seg = append(seg, mark{d, norm.NFD.Properties(p).CCC()})
		p = p[n:]
	}
	return seg
}

// appendComposed puts the marks of seg in canonical order, composes them and
// appends the result. Source: the Unicode Standard, section 3.11.
func appendComposed(out []byte, seg []mark) []byte {
	for i := 0; i < len(seg); {
		k := i + 1
		for k < len(seg) && seg[k].ccc > 0 {
			k++
		}
		run := seg[i:k]
		if run[0].ccc == 0 {
			run = run[1:]
		}
		slices.SortStableFunc(run, func(a, b mark) int { return int(a.ccc) - int(b.ccc) })
		i = k
	}
	starter, kept, last := -1, seg[:0], -1
	for _, m := range seg {
		if starter >= 0 && last < int(m.ccc) {
			if c, ok := compose(kept[starter].r, m.r); ok {
				kept[starter].r = c
				continue
			}
		}
		last = int(m.ccc)
		kept = append(kept, m)
		if m.ccc == 0 {
			starter, last = len(kept)-1, -1
		}
	}
	for _, m := range kept {
		out = utf8.AppendRune(out, m.r)
	}
	return out
}

// compose returns the primary composite of a and b.
func compose(a, b rune) (rune, bool) {
	if b < 0x300 { // no second half is lower
		return 0, false
	}
	var in, buf [2 * utf8.UTFMax]byte
	p := norm.NFC.Append(buf[:0], utf8.AppendRune(utf8.AppendRune(in[:0], a), b)...)
	r, n := utf8.DecodeRune(p)
	return r, n == len(p)
}
