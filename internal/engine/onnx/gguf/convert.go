package gguf

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

var le = binary.LittleEndian

// half converts IEEE 754 binary16 to float32, NaN and infinities included.
func half(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0: // zero or subnormal: frac * 2^-24
		f := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// narrow converts little-endian fp32 to fp16, rounding to nearest even. A
// number that fp16 cannot hold is ErrUnsupported: it would become infinite.
func narrow(wide []byte) ([]byte, error) {
	out := make([]byte, len(wide)/2)
	for i := 0; i < len(out); i += 2 {
		f := math.Float32frombits(le.Uint32(wide[2*i:]))
		h := toHalf(f)
		if h&0x7c00 == 0x7c00 {
			return nil, fmt.Errorf("%w: weight %g is beyond the range of fp16", ErrUnsupported, f)
		}
		le.PutUint16(out[i:], h)
	}
	return out, nil
}

// toHalf rounds to nearest, ties to even; what is too large becomes infinite.
func toHalf(f float32) uint16 {
	b := math.Float32bits(f)
	sign, abs := uint16(b>>16&0x8000), b&0x7fffffff
	switch {
	case abs >= 0x7f800000: // infinite or NaN
		return sign | 0x7c00 | uint16(min(abs&0x7fffff, 1)<<9)
	case abs < 0x38800000: // below 2^-14: subnormal, in steps of 2^-24
		steps := math.RoundToEven(float64(math.Float32frombits(abs)) * (1 << 24))
		return sign | uint16(steps)
	}
	rounded := abs + 0xfff + abs>>13&1 // a carry moves into the exponent, as it should
	return sign | uint16(min((rounded-0x38000000)>>13, 0x7c00))
}

func putFloat(b []byte, f float32) { le.PutUint32(b, math.Float32bits(f)) }

// encoder turns one row of a tensor into its parts in the ONNX layout. parts
// has as many slices as partsOf returned, each of the row's length.
type encoder func(row []byte, parts [][]byte)

// encoderOf returns the encoder of a type that is kept quantised: the parts
// are integers, scales and, for Q4_1, the correction m+8d.
func encoderOf(t tensorType) encoder {
	switch t {
	case typeQ4_0:
		return encodeQ4_0
	case typeQ4_1:
		return encodeQ4_1
	case typeQ8_0:
		return encodeQ8_0
	}
	return decoderOf(t)
}

// decoderOf returns the encoder that writes a row as fp32, in one part.
func decoderOf(t tensorType) encoder {
	return map[tensorType]encoder{
		typeF32: decodeF32, typeF16: decodeF16, typeBF16: decodeBF16,
		typeQ4_0: decodeQ4_0, typeQ4_1: decodeQ4_1, typeQ8_0: decodeQ8_0,
	}[t]
}

// repack reorders a block's nibbles. ggml puts weight i beside weight i+16 in
// a byte, MatMulNBits puts weight 2i beside weight 2i+1, the lower first.
func repack(dst, src []byte) {
	_, _ = dst[15], src[15]
	for i := 0; i < 8; i++ {
		a, b := src[2*i], src[2*i+1]
		dst[i] = a&0x0f | b<<4
		dst[i+8] = a>>4 | b&0xf0
	}
}

func encodeQ4_0(row []byte, parts [][]byte) {
	for b := 0; len(row) > 0; b, row = b+1, row[18:] {
		putFloat(parts[1][4*b:], half(le.Uint16(row)))
		repack(parts[0][16*b:16*b+16], row[2:18])
	}
}

func encodeQ4_1(row []byte, parts [][]byte) {
	for b := 0; len(row) > 0; b, row = b+1, row[20:] {
		d, m := half(le.Uint16(row)), half(le.Uint16(row[2:]))
		putFloat(parts[1][4*b:], d)
		putFloat(parts[2][4*b:], m+8*d)
		repack(parts[0][16*b:16*b+16], row[4:20])
	}
}

// encodeQ8_0 moves signed bytes to the unsigned ones with zero point 128.
func encodeQ8_0(row []byte, parts [][]byte) {
	for b := 0; len(row) > 0; b, row = b+1, row[34:] {
		putFloat(parts[1][4*b:], half(le.Uint16(row)))
		for i, q := range row[2:34] {
			parts[0][32*b+i] = q ^ 0x80
		}
	}
}

func decodeF32(row []byte, parts [][]byte) { copy(parts[0], row) }

func decodeF16(row []byte, parts [][]byte) {
	for i := 0; i < len(row)/2; i++ {
		putFloat(parts[0][4*i:], half(le.Uint16(row[2*i:])))
	}
}

func decodeBF16(row []byte, parts [][]byte) {
	for i := 0; i < len(row)/2; i++ {
		le.PutUint32(parts[0][4*i:], uint32(le.Uint16(row[2*i:]))<<16)
	}
}

func decodeQ4_0(row []byte, parts [][]byte) {
	for out := parts[0]; len(row) > 0; row, out = row[18:], out[128:] {
		d := half(le.Uint16(row))
		for i, q := range row[2:18] {
			putFloat(out[4*i:], d*float32(int(q&0x0f)-8))
			putFloat(out[4*(i+16):], d*float32(int(q>>4)-8))
		}
	}
}

func decodeQ4_1(row []byte, parts [][]byte) {
	for out := parts[0]; len(row) > 0; row, out = row[20:], out[128:] {
		d, m := half(le.Uint16(row)), half(le.Uint16(row[2:]))
		for i, q := range row[4:20] {
			putFloat(out[4*i:], d*float32(q&0x0f)+m)
			putFloat(out[4*(i+16):], d*float32(q>>4)+m)
		}
	}
}

func decodeQ8_0(row []byte, parts [][]byte) {
	for out := parts[0]; len(row) > 0; row, out = row[34:], out[128:] {
		d := half(le.Uint16(row))
		for i, q := range row[2:34] {
			putFloat(out[4*i:], d*float32(int8(q)))
		}
	}
}

// floatBytes reads a whole floating point tensor as little-endian fp32; it is
// meant for vectors.
func (f *file) floatBytes(t *tensor) ([]byte, error) {
	raw := make([]byte, t.bytes)
	if _, err := f.r.ReadAt(raw, t.offset); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read tensor %s: %w", t.name, err)
	}
	out := make([]byte, 4*t.cols()*t.rows())
	decoderOf(t.typ)(raw, [][]byte{out})
	return out, nil
}

func (f *file) floats(t *tensor) ([]float32, error) {
	raw, err := f.floatBytes(t)
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(le.Uint32(raw[4*i:]))
	}
	return out, err
}
