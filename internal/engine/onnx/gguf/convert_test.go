package gguf

import (
	"math"
	"testing"

	"infer/internal/engine/onnx/gguf/gguftest"
)

// TestHalf checks all 65536 values against the definition.
func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		sign, exp, frac := 1.0, h>>10&0x1f, float64(h&0x3ff)
		if h>>15 == 1 {
			sign = -1
		}
		want := sign * math.Ldexp(1+frac/1024, exp-15)
		switch {
		case exp == 0:
			want = sign * math.Ldexp(frac, -24)
		case exp == 0x1f && frac == 0:
			want = math.Inf(int(sign))
		case exp == 0x1f:
			want = math.NaN()
		}
		got := float64(half(uint16(h)))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != math.Signbit(want) && !math.IsNaN(want) {
			t.Fatalf("half(%#04x) = %g, want %g", h, got, want)
		}
	}
}

func floatAt(b []byte, i int) float32 { return math.Float32frombits(le.Uint32(b[4*i:])) }

// TestEncodersMatchDecoders evaluates the operators' arithmetic on the encoded
// parts and compares it with the plain dequantised values.
func TestEncodersMatchDecoders(t *testing.T) {
	values := make([]float32, 96)
	for i := range values {
		values[i] = float32(math.Sin(float64(i))) + 0.3
	}
	for _, typ := range []tensorType{typeQ4_0, typeQ4_1, typeQ8_0} {
		row := gguftest.Encode(gguftest.Type(typ), values)
		plain := make([]byte, 4*len(values))
		decoderOf(typ)(row, [][]byte{plain})
		ints, scales, offsets := make([]byte, len(values)), make([]byte, 12), make([]byte, 12)
		encoderOf(typ)(row, [][]byte{ints, scales, offsets})
		for i := range values {
			q := int(ints[i]) - 128
			if typ != typeQ8_0 {
				q = int(ints[i/2]>>(4*(i%2))&0x0f) - 8
			}
			got := float32(q)*floatAt(scales, i/32) + floatAt(offsets, i/32)
			if want := floatAt(plain, i); math.Abs(float64(got-want)) > 1e-6 || math.Abs(float64(want-values[i])) > 0.1 {
				t.Fatalf("%s, weight %d: got %g, want %g, which stands for %g", typ, i, got, want, values[i])
			}
		}
	}
}

// TestRowOrder undoes the permutation as llama.cpp's converter states it:
// reshape(heads, 2, dim/2), swap the last two.
func TestRowOrder(t *testing.T) {
	const heads, dim = 3, 8
	stored := make([]int, heads*dim) // original row of every stored row
	for h := range heads {
		for p := range 2 {
			for i := range dim / 2 {
				stored[h*dim+2*i+p] = h*dim + p*dim/2 + i
			}
		}
	}
	s := source{head: dim}
	for i := range stored {
		if got := stored[s.order(i)]; got != i {
			t.Errorf("row %d is the original row %d", i, got)
		}
	}
}
