package onnx

import (
	"fmt"
	"math"
	"unsafe"

	"infer/internal/engine/onnx/ort"
)

// bytesAs views page-aligned memory as a slice of T.
func bytesAs[T any](b []byte) []T {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(zero)))
}

// floats returns a host tensor's content as fp32, in place when it is.
func (m *model) floats(t *ort.Tensor) ([]float32, error) {
	var conv func(uint16) float32
	switch t.Type {
	case ort.Float32:
		return t.Float32s(), nil
	case ort.Float16:
		conv = fp16
	case ort.BFloat16:
		conv = func(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
	default:
		return nil, fmt.Errorf("logits have element type %d", t.Type)
	}
	src := t.Uint16s()
	if cap(m.widened) < len(src) {
		m.widened = make([]float32, len(src))
	}
	m.widened = m.widened[:len(src)]
	for i, b := range src {
		m.widened[i] = conv(b)
	}
	return m.widened, nil
}

// fp16 widens an IEEE 754 half, subnormals, infinities and NaN included.
func fp16(b uint16) float32 {
	sign := uint32(b>>15) << 31
	exp, frac := uint32(b>>10)&0x1f, uint32(b)&0x3ff
	switch {
	case exp == 0x1f:
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	case exp != 0:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
	f := float32(frac) / (1 << 24)
	return math.Float32frombits(math.Float32bits(f) | sign)
}
