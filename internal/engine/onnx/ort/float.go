package ort

import (
	"fmt"
	"math"
)

// Floats is the content of a host tensor of a floating-point type as fp32: in
// place when it is, otherwise widened into buf, which grows as needed. It is
// valid until Close and until buf is used again.
func (t *Tensor) Floats(buf *[]float32) ([]float32, error) {
	var widen func(uint16) float32
	switch t.Type {
	case Float32:
		return t.Float32s(), nil
	case Float16:
		widen = half
	case BFloat16:
		widen = func(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
	default:
		return nil, fmt.Errorf("element type %d is not fp32, fp16 or bf16", t.Type)
	}
	src := t.Uint16s()
	if cap(*buf) < len(src) {
		*buf = make([]float32, len(src))
	}
	*buf = (*buf)[:len(src)]
	for i, b := range src {
		(*buf)[i] = widen(b)
	}
	return *buf, nil
}

// half widens an IEEE 754 half, subnormals, infinities and NaN included.
func half(b uint16) float32 {
	sign, exp, frac := uint32(b>>15)<<31, uint32(b>>10)&0x1f, uint32(b)&0x3ff
	switch exp {
	case 0x1f:
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	case 0:
		return math.Float32frombits(math.Float32bits(float32(frac)/(1<<24)) | sign)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
