package tokenizer

import "unicode"

// firstNewer is the lowest character of newerMarks.
const firstNewer = 0x07fd

// newerMarks are the characters that matter to normalisation (they have a
// combining class, or take part in a composition) and were assigned after the
// Unicode 9 tables of the crate unicode-normalization-alignments 0.1.12, with
// which Hugging Face tokenizers 0.23.3 is built. Found by comparing NFC of all
// code points in context with golang.org/x/text 0.44.0 (Unicode 17).
var newerMarks = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x07fd, Hi: 0x07fd, Stride: 1}, {Lo: 0x0897, Hi: 0x089f, Stride: 1},
		{Lo: 0x08ca, Hi: 0x08d3, Stride: 1}, {Lo: 0x09fe, Hi: 0x09fe, Stride: 1},
		{Lo: 0x0c3c, Hi: 0x0c3c, Stride: 1}, {Lo: 0x0d3b, Hi: 0x0d3c, Stride: 1},
		{Lo: 0x0eba, Hi: 0x0eba, Stride: 1}, {Lo: 0x1715, Hi: 0x1715, Stride: 1},
		{Lo: 0x1abf, Hi: 0x1add, Stride: 1}, {Lo: 0x1ae0, Hi: 0x1aeb, Stride: 1},
		{Lo: 0x1df6, Hi: 0x1dfa, Stride: 1}, {Lo: 0xa82c, Hi: 0xa82c, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x105c9, Hi: 0x105c9, Stride: 1}, {Lo: 0x105d2, Hi: 0x105d2, Stride: 1},
		{Lo: 0x105da, Hi: 0x105da, Stride: 1}, {Lo: 0x105e4, Hi: 0x105e4, Stride: 1},
		{Lo: 0x10d24, Hi: 0x10d27, Stride: 1}, {Lo: 0x10d69, Hi: 0x10d6d, Stride: 1},
		{Lo: 0x10eab, Hi: 0x10eac, Stride: 1}, {Lo: 0x10efa, Hi: 0x10efb, Stride: 1},
		{Lo: 0x10efd, Hi: 0x10eff, Stride: 1}, {Lo: 0x10f46, Hi: 0x10f50, Stride: 1},
		{Lo: 0x10f82, Hi: 0x10f85, Stride: 1}, {Lo: 0x11070, Hi: 0x11070, Stride: 1},
		{Lo: 0x1133b, Hi: 0x1133b, Stride: 1}, {Lo: 0x11383, Hi: 0x11383, Stride: 1},
		{Lo: 0x11385, Hi: 0x11385, Stride: 1}, {Lo: 0x1138e, Hi: 0x1138e, Stride: 1},
		{Lo: 0x11391, Hi: 0x11391, Stride: 1}, {Lo: 0x113b8, Hi: 0x113b8, Stride: 1},
		{Lo: 0x113bb, Hi: 0x113bb, Stride: 1}, {Lo: 0x113c2, Hi: 0x113c2, Stride: 1},
		{Lo: 0x113c5, Hi: 0x113c5, Stride: 1}, {Lo: 0x113c7, Hi: 0x113c9, Stride: 1},
		{Lo: 0x113ce, Hi: 0x113d0, Stride: 1}, {Lo: 0x1145e, Hi: 0x1145e, Stride: 1},
		{Lo: 0x11839, Hi: 0x1183a, Stride: 1}, {Lo: 0x11930, Hi: 0x11930, Stride: 1},
		{Lo: 0x11938, Hi: 0x11938, Stride: 1}, {Lo: 0x1193d, Hi: 0x1193e, Stride: 1},
		{Lo: 0x11943, Hi: 0x11943, Stride: 1}, {Lo: 0x119e0, Hi: 0x119e0, Stride: 1},
		{Lo: 0x11a34, Hi: 0x11a34, Stride: 1}, {Lo: 0x11a47, Hi: 0x11a47, Stride: 1},
		{Lo: 0x11a99, Hi: 0x11a99, Stride: 1}, {Lo: 0x11d42, Hi: 0x11d42, Stride: 1},
		{Lo: 0x11d44, Hi: 0x11d45, Stride: 1}, {Lo: 0x11d97, Hi: 0x11d97, Stride: 1},
		{Lo: 0x11f41, Hi: 0x11f42, Stride: 1}, {Lo: 0x1611e, Hi: 0x16129, Stride: 1},
		{Lo: 0x1612f, Hi: 0x1612f, Stride: 1}, {Lo: 0x16d67, Hi: 0x16d6a, Stride: 1},
		{Lo: 0x16ff0, Hi: 0x16ff1, Stride: 1}, {Lo: 0x1e08f, Hi: 0x1e08f, Stride: 1},
		{Lo: 0x1e130, Hi: 0x1e136, Stride: 1}, {Lo: 0x1e2ae, Hi: 0x1e2ae, Stride: 1},
		{Lo: 0x1e2ec, Hi: 0x1e2ef, Stride: 1}, {Lo: 0x1e4ec, Hi: 0x1e4ef, Stride: 1},
		{Lo: 0x1e5ee, Hi: 0x1e5ef, Stride: 1}, {Lo: 0x1e6e3, Hi: 0x1e6e3, Stride: 1},
		{Lo: 0x1e6e6, Hi: 0x1e6e6, Stride: 1}, {Lo: 0x1e6ee, Hi: 0x1e6ef, Stride: 1},
		{Lo: 0x1e6f5, Hi: 0x1e6f5, Stride: 1},
	},
}
