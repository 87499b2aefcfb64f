package gguf

import "fmt"

// tensorType is a ggml tensor type (ggml.h, enum ggml_type).
type tensorType uint32

const (
	typeF32  tensorType = 0
	typeF16  tensorType = 1
	typeQ4_0 tensorType = 2
	typeQ4_1 tensorType = 3
	typeQ8_0 tensorType = 8
	typeBF16 tensorType = 30
)

// blockLen is the number of weights in a quantised block of the types that are
// imported, and the block size of the ONNX operators that take them.
const blockLen = 32

var typeNames = map[tensorType]string{
	typeF32: "F32", typeF16: "F16", typeQ4_0: "Q4_0", typeQ4_1: "Q4_1", 6: "Q5_0", 7: "Q5_1",
	typeQ8_0: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
	15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
	21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64",
	28: "F64", 29: "IQ1_M", typeBF16: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}

// String returns ggml's name of the type.
func (t tensorType) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// block returns how many weights a block holds and how many bytes it takes;
// ok is false for a type that is not imported.
func (t tensorType) block() (weights, bytes uint64, ok bool) {
	switch t {
	case typeF32:
		return 1, 4, true
	case typeF16, typeBF16:
		return 1, 2, true
	case typeQ4_0: // half d; 16 bytes of nibbles
		return blockLen, 18, true
	case typeQ4_1: // half d, half m; 16 bytes of nibbles
		return blockLen, 20, true
	case typeQ8_0: // half d; 32 signed bytes
		return blockLen, 34, true
	}
	return 0, 0, false
}

func (t tensorType) quantised() bool { return t == typeQ4_0 || t == typeQ4_1 || t == typeQ8_0 }

// tensor is one entry of the tensor directory. Its extent has been checked
// against the file for every type that is imported.
type tensor struct {
	name   string
	typ    tensorType
	dims   []uint64 // dims[0] is the fastest: the inputs of a linear layer
	offset int64    // from the start of the file
	bytes  int64
}

func (t *tensor) cols() int { return int(t.dims[0]) }

func (t *tensor) rows() int {
	n := 1
	for _, d := range t.dims[1:] {
		n *= int(d)
	}
	return n
}

func (t *tensor) rowBytes() int { return int(t.bytes) / t.rows() }
