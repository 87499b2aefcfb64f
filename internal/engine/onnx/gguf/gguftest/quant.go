package gguftest

import "math"

// Type is a ggml tensor type.
type Type uint32

// The types that Tiny can write (ggml.h, enum ggml_type).
const (
	F32  Type = 0
	F16  Type = 1
	Q4_0 Type = 2
	Q4_1 Type = 3
	Q8_0 Type = 8
	BF16 Type = 30
)

// Encode stores values as the type does; a quantised type takes them in blocks
// of 32 (ggml-quants.c, the reference quantisers). It panics on another type.
func Encode(t Type, values []float32) []byte {
	var out []byte
	switch t {
	case F32:
		for _, v := range values {
			out = appendFloat(out, v)
		}
	case F16:
		for _, v := range values {
			out = le.AppendUint16(out, half(v))
		}
	case BF16:
		for _, v := range values {
			out = le.AppendUint16(out, uint16(math.Float32bits(v)>>16))
		}
	case Q4_0, Q4_1, Q8_0:
		for ; len(values) > 0; values = values[32:] {
			out = block(out, t, values[:32])
		}
	default:
		panic("gguftest: this type cannot be written")
	}
	return out
}

func block(out []byte, t Type, v []float32) []byte {
	low, high, peak := v[0], v[0], float32(0)
	for _, x := range v {
		low, high = min(low, x), max(high, x)
		if abs(x) > abs(peak) {
			peak = x
		}
	}
	switch t {
	case Q8_0:
		d := abs(peak) / 127
		out = le.AppendUint16(out, half(d))
		for _, x := range v {
			out = append(out, byte(int8(step(x, d))))
		}
		return out
	case Q4_0:
		d := peak / -8
		out = le.AppendUint16(out, half(d))
		return nibbles(out, v, func(x float32) float64 { return step(x, d) + 8 })
	default:
		d := (high - low) / 15
		out = le.AppendUint16(le.AppendUint16(out, half(d)), half(low))
		return nibbles(out, v, func(x float32) float64 { return step(x-low, d) })
	}
}

// nibbles puts value i of a block beside value i+16.
func nibbles(out []byte, v []float32, q func(float32) float64) []byte {
	clip := func(x float32) byte { return byte(max(0, min(15, q(x)))) }
	for i := range 16 {
		out = append(out, clip(v[i])|clip(v[i+16])<<4)
	}
	return out
}

func step(x, d float32) float64 {
	if d == 0 {
		return 0
	}
	return math.Round(float64(x / d))
}

func abs(x float32) float32 { return max(x, -x) }

func appendFloat(b []byte, v float32) []byte { return le.AppendUint32(b, math.Float32bits(v)) }

// half rounds to binary16; what is too small for a normal number becomes zero,
// what is too large becomes infinite.
func half(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	bits = bits&0x7fffffff + 0xfff + bits>>13&1 // to nearest, ties to even
	exp := int(bits>>23) - 112
	switch {
	case exp <= 0:
		return sign
	case exp >= 31:
		return sign | 0x7c00
	}
	return sign | uint16(exp)<<10 | uint16(bits>>13&0x3ff)
}
