package tokenizer

import "unicode"

// The tables below are what Go's Unicode 17 has in a category and the older
// tables of the crate unicode_categories, with which Hugging Face tokenizers
// 0.23.3 cleans and splits text for BERT, have not. A test compares all code
// points with that library.

// newerControls are in Cc, Cf or Co.
var newerControls = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x0890, Hi: 0x0891, Stride: 1}, {Lo: 0x08e2, Hi: 0x08e2, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x110cd, Hi: 0x110cd, Stride: 1}, {Lo: 0x13430, Hi: 0x1343f, Stride: 1},
	},
}

// newerNonspacing are in Mn.
var newerNonspacing = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x07fd, Hi: 0x07fd, Stride: 1}, {Lo: 0x0897, Hi: 0x089f, Stride: 1}, {Lo: 0x08ca, Hi: 0x08e1, Stride: 1},
		{Lo: 0x09fe, Hi: 0x09fe, Stride: 1}, {Lo: 0x0afa, Hi: 0x0aff, Stride: 1}, {Lo: 0x0b55, Hi: 0x0b55, Stride: 1},
		{Lo: 0x0c04, Hi: 0x0c04, Stride: 1}, {Lo: 0x0c3c, Hi: 0x0c3c, Stride: 1}, {Lo: 0x0d00, Hi: 0x0d00, Stride: 1},
		{Lo: 0x0d3b, Hi: 0x0d3c, Stride: 1}, {Lo: 0x0d81, Hi: 0x0d81, Stride: 1}, {Lo: 0x0eba, Hi: 0x0eba, Stride: 1},
		{Lo: 0x0ece, Hi: 0x0ece, Stride: 1}, {Lo: 0x180f, Hi: 0x180f, Stride: 1}, {Lo: 0x1885, Hi: 0x1886, Stride: 1},
		{Lo: 0x1abf, Hi: 0x1add, Stride: 1}, {Lo: 0x1ae0, Hi: 0x1aeb, Stride: 1}, {Lo: 0x1df6, Hi: 0x1dfb, Stride: 1},
		{Lo: 0xa82c, Hi: 0xa82c, Stride: 1}, {Lo: 0xa8c5, Hi: 0xa8c5, Stride: 1}, {Lo: 0xa8ff, Hi: 0xa8ff, Stride: 1},
		{Lo: 0xa9bd, Hi: 0xa9bd, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x10d24, Hi: 0x10d27, Stride: 1}, {Lo: 0x10d69, Hi: 0x10d6d, Stride: 1}, {Lo: 0x10eab, Hi: 0x10eac, Stride: 1},
		{Lo: 0x10efa, Hi: 0x10eff, Stride: 1}, {Lo: 0x10f46, Hi: 0x10f50, Stride: 1}, {Lo: 0x10f82, Hi: 0x10f85, Stride: 1},
		{Lo: 0x11070, Hi: 0x11070, Stride: 1}, {Lo: 0x11073, Hi: 0x11074, Stride: 1}, {Lo: 0x110c2, Hi: 0x110c2, Stride: 1},
		{Lo: 0x111c9, Hi: 0x111c9, Stride: 1}, {Lo: 0x111cf, Hi: 0x111cf, Stride: 1}, {Lo: 0x1123e, Hi: 0x1123e, Stride: 1},
		{Lo: 0x11241, Hi: 0x11241, Stride: 1}, {Lo: 0x1133b, Hi: 0x1133b, Stride: 1}, {Lo: 0x113bb, Hi: 0x113c0, Stride: 1},
		{Lo: 0x113ce, Hi: 0x113ce, Stride: 1}, {Lo: 0x113d0, Hi: 0x113d0, Stride: 1}, {Lo: 0x113d2, Hi: 0x113d2, Stride: 1},
		{Lo: 0x113e1, Hi: 0x113e2, Stride: 1}, {Lo: 0x11438, Hi: 0x1143f, Stride: 1}, {Lo: 0x11442, Hi: 0x11444, Stride: 1},
		{Lo: 0x11446, Hi: 0x11446, Stride: 1}, {Lo: 0x1145e, Hi: 0x1145e, Stride: 1}, {Lo: 0x1182f, Hi: 0x11837, Stride: 1},
		{Lo: 0x11839, Hi: 0x1183a, Stride: 1}, {Lo: 0x1193b, Hi: 0x1193c, Stride: 1}, {Lo: 0x1193e, Hi: 0x1193e, Stride: 1},
		{Lo: 0x11943, Hi: 0x11943, Stride: 1}, {Lo: 0x119d4, Hi: 0x119d7, Stride: 1}, {Lo: 0x119da, Hi: 0x119db, Stride: 1},
		{Lo: 0x119e0, Hi: 0x119e0, Stride: 1}, {Lo: 0x11a01, Hi: 0x11a0a, Stride: 1}, {Lo: 0x11a33, Hi: 0x11a38, Stride: 1},
		{Lo: 0x11a3b, Hi: 0x11a3e, Stride: 1}, {Lo: 0x11a47, Hi: 0x11a47, Stride: 1}, {Lo: 0x11a51, Hi: 0x11a56, Stride: 1},
		{Lo: 0x11a59, Hi: 0x11a5b, Stride: 1}, {Lo: 0x11a8a, Hi: 0x11a96, Stride: 1}, {Lo: 0x11a98, Hi: 0x11a99, Stride: 1},
		{Lo: 0x11b60, Hi: 0x11b60, Stride: 1}, {Lo: 0x11b62, Hi: 0x11b64, Stride: 1}, {Lo: 0x11b66, Hi: 0x11b66, Stride: 1},
		{Lo: 0x11c30, Hi: 0x11c36, Stride: 1}, {Lo: 0x11c38, Hi: 0x11c3d, Stride: 1}, {Lo: 0x11c3f, Hi: 0x11c3f, Stride: 1},
		{Lo: 0x11c92, Hi: 0x11ca7, Stride: 1}, {Lo: 0x11caa, Hi: 0x11cb0, Stride: 1}, {Lo: 0x11cb2, Hi: 0x11cb3, Stride: 1},
		{Lo: 0x11cb5, Hi: 0x11cb6, Stride: 1}, {Lo: 0x11d31, Hi: 0x11d36, Stride: 1}, {Lo: 0x11d3a, Hi: 0x11d3a, Stride: 1},
		{Lo: 0x11d3c, Hi: 0x11d3d, Stride: 1}, {Lo: 0x11d3f, Hi: 0x11d45, Stride: 1}, {Lo: 0x11d47, Hi: 0x11d47, Stride: 1},
		{Lo: 0x11d90, Hi: 0x11d91, Stride: 1}, {Lo: 0x11d95, Hi: 0x11d95, Stride: 1}, {Lo: 0x11d97, Hi: 0x11d97, Stride: 1},
		{Lo: 0x11ef3, Hi: 0x11ef4, Stride: 1}, {Lo: 0x11f00, Hi: 0x11f01, Stride: 1}, {Lo: 0x11f36, Hi: 0x11f3a, Stride: 1},
		{Lo: 0x11f40, Hi: 0x11f40, Stride: 1}, {Lo: 0x11f42, Hi: 0x11f42, Stride: 1}, {Lo: 0x11f5a, Hi: 0x11f5a, Stride: 1},
		{Lo: 0x13440, Hi: 0x13440, Stride: 1}, {Lo: 0x13447, Hi: 0x13455, Stride: 1}, {Lo: 0x1611e, Hi: 0x16129, Stride: 1},
		{Lo: 0x1612d, Hi: 0x1612f, Stride: 1}, {Lo: 0x16f4f, Hi: 0x16f4f, Stride: 1}, {Lo: 0x16fe4, Hi: 0x16fe4, Stride: 1},
		{Lo: 0x1cf00, Hi: 0x1cf2d, Stride: 1}, {Lo: 0x1cf30, Hi: 0x1cf46, Stride: 1}, {Lo: 0x1e000, Hi: 0x1e006, Stride: 1},
		{Lo: 0x1e008, Hi: 0x1e018, Stride: 1}, {Lo: 0x1e01b, Hi: 0x1e021, Stride: 1}, {Lo: 0x1e023, Hi: 0x1e024, Stride: 1},
		{Lo: 0x1e026, Hi: 0x1e02a, Stride: 1}, {Lo: 0x1e08f, Hi: 0x1e08f, Stride: 1}, {Lo: 0x1e130, Hi: 0x1e136, Stride: 1},
		{Lo: 0x1e2ae, Hi: 0x1e2ae, Stride: 1}, {Lo: 0x1e2ec, Hi: 0x1e2ef, Stride: 1}, {Lo: 0x1e4ec, Hi: 0x1e4ef, Stride: 1},
		{Lo: 0x1e5ee, Hi: 0x1e5ef, Stride: 1}, {Lo: 0x1e6e3, Hi: 0x1e6e3, Stride: 1}, {Lo: 0x1e6e6, Hi: 0x1e6e6, Stride: 1},
		{Lo: 0x1e6ee, Hi: 0x1e6ef, Stride: 1}, {Lo: 0x1e6f5, Hi: 0x1e6f5, Stride: 1}, {Lo: 0x1e944, Hi: 0x1e94a, Stride: 1},
	},
}

// newerPunctuation are in P.
var newerPunctuation = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x061d, Hi: 0x061d, Stride: 1}, {Lo: 0x09fd, Hi: 0x09fd, Stride: 1}, {Lo: 0x0a76, Hi: 0x0a76, Stride: 1},
		{Lo: 0x0c77, Hi: 0x0c77, Stride: 1}, {Lo: 0x0c84, Hi: 0x0c84, Stride: 1}, {Lo: 0x1b4e, Hi: 0x1b4f, Stride: 1},
		{Lo: 0x1b7d, Hi: 0x1b7f, Stride: 1}, {Lo: 0x2e43, Hi: 0x2e4f, Stride: 1}, {Lo: 0x2e52, Hi: 0x2e5d, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x10d6e, Hi: 0x10d6e, Stride: 1}, {Lo: 0x10ead, Hi: 0x10ead, Stride: 1}, {Lo: 0x10ed0, Hi: 0x10ed0, Stride: 1},
		{Lo: 0x10f55, Hi: 0x10f59, Stride: 1}, {Lo: 0x10f86, Hi: 0x10f89, Stride: 1}, {Lo: 0x113d4, Hi: 0x113d5, Stride: 1},
		{Lo: 0x113d7, Hi: 0x113d8, Stride: 1}, {Lo: 0x1144b, Hi: 0x1144f, Stride: 1}, {Lo: 0x1145a, Hi: 0x1145b, Stride: 1},
		{Lo: 0x1145d, Hi: 0x1145d, Stride: 1}, {Lo: 0x11660, Hi: 0x1166c, Stride: 1}, {Lo: 0x116b9, Hi: 0x116b9, Stride: 1},
		{Lo: 0x1183b, Hi: 0x1183b, Stride: 1}, {Lo: 0x11944, Hi: 0x11946, Stride: 1}, {Lo: 0x119e2, Hi: 0x119e2, Stride: 1},
		{Lo: 0x11a3f, Hi: 0x11a46, Stride: 1}, {Lo: 0x11a9a, Hi: 0x11a9c, Stride: 1}, {Lo: 0x11a9e, Hi: 0x11aa2, Stride: 1},
		{Lo: 0x11b00, Hi: 0x11b09, Stride: 1}, {Lo: 0x11be1, Hi: 0x11be1, Stride: 1}, {Lo: 0x11c41, Hi: 0x11c45, Stride: 1},
		{Lo: 0x11c70, Hi: 0x11c71, Stride: 1}, {Lo: 0x11ef7, Hi: 0x11ef8, Stride: 1}, {Lo: 0x11f43, Hi: 0x11f4f, Stride: 1},
		{Lo: 0x11fff, Hi: 0x11fff, Stride: 1}, {Lo: 0x12ff1, Hi: 0x12ff2, Stride: 1}, {Lo: 0x16d6d, Hi: 0x16d6f, Stride: 1},
		{Lo: 0x16e97, Hi: 0x16e9a, Stride: 1}, {Lo: 0x16fe2, Hi: 0x16fe2, Stride: 1}, {Lo: 0x1e5ff, Hi: 0x1e5ff, Stride: 1},
		{Lo: 0x1e95e, Hi: 0x1e95f, Stride: 1},
	},
}
