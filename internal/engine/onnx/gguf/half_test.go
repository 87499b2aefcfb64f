package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"infer/internal/engine/onnx/gguf/gguftest"
)

// halfKL bounds the fp16 graph: twenty times what was seen with SmolLM2, and a
// hundredth of what a dropped correction does.
const halfKL = 3e-4

// TestToHalf takes every fp16 number there and back, and the two fp32 numbers
// around every midpoint to the right side.
func TestToHalf(t *testing.T) {
	for h := range uint16(0x7c00) {
		f := half(h)
		if got := toHalf(f); got != h {
			t.Fatalf("toHalf(%g) = %#04x, want %#04x", f, got, h)
		}
		if got := toHalf(-f); got != h|0x8000 {
			t.Fatalf("toHalf(%g) = %#04x, want %#04x", -f, got, h|0x8000)
		}
		middle := (f + half(h+1)) / 2
		if h == 0x7bff {
			middle = 65520 // the next step would be 65536
		}
		even := h + h&1
		if got := toHalf(middle); got != even {
			t.Fatalf("toHalf(%g) = %#04x, want the even %#04x", middle, got, even)
		}
		if down, up := toHalf(math.Nextafter32(middle, 0)), toHalf(math.Nextafter32(middle, 1e6)); down != h || up != h+1 {
			t.Fatalf("around %g: %#04x and %#04x, want %#04x and %#04x", middle, down, up, h, h+1)
		}
	}
	if got := half(toHalf(float32(math.NaN()))); got == got {
		t.Errorf("NaN became %g", got)
	}
}

func TestFloat16RefusesWhatDoesNotFit(t *testing.T) {
	for name, spec := range map[string]gguftest.Spec{"in a matrix": {Type: gguftest.F32}, "in a norm": {Type: gguftest.Q8_0}} {
		f := gguftest.Model(spec)
		tensor := "blk.0.ffn_down.weight"
		if name == "in a norm" {
			tensor = "output_norm.weight"
		}
		binary.LittleEndian.PutUint32(f.Tensor(tensor).Data[4:], math.Float32bits(7e4))
		src := filepath.Join(t.TempDir(), "m.gguf")
		if err := f.Write(src); err != nil {
			t.Fatal(err)
		}
		if err := Import(t.Context(), src, filepath.Join(t.TempDir(), "m"), Options{Float16: true}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("70000 %s: %v, want ErrUnsupported", name, err)
		}
		if err := Import(t.Context(), src, filepath.Join(t.TempDir(), "m"), Options{}); err != nil {
			t.Errorf("70000 %s, as fp32: %v", name, err)
		}
	}
}

// TestFloat16Graph reads the types that the graph declares.
func TestFloat16Graph(t *testing.T) {
	src := tiny(t, gguftest.Spec{Type: gguftest.Q4_1, Bias: true})
	raw, err := os.ReadFile(filepath.Join(imported(t, src, Options{Float16: true}), modelFile))
	if err != nil {
		t.Fatal(err)
	}
	typed := func(name string, elem byte) bool { // ValueInfoProto: name, then type.tensor_type.elem_type
		i := bytes.Index(raw, append([]byte{0x0a, byte(len(name))}, name+"\x12"...))
		return i >= 0 && bytes.Contains(raw[i:][:len(name)+12], []byte{0x08, elem, 0x12})
	}
	if !typed("past_key_values.0.key", elemHalf) || !typed("present.1.value", elemHalf) || !typed("logits", elemFloat) {
		t.Error("want a KV cache of fp16 and logits of fp32")
	}
	half, whole := Options{Float16: true}, Options{}
	a, err := Fingerprint(src, half)
	b, err2 := Fingerprint(src, whole)
	if err != nil || err2 != nil || a == b {
		t.Errorf("fingerprints %s and %s, %v, %v: want two", a, b, err, err2)
	}
}

// TestFloat16StaysClose runs every path of the builder as fp16 on the CPU,
// which computes some of the operators as fp32 between fp16 roundings and is
// slow at it, and the real model. The same graph without its corrections must be seen to differ.
func TestFloat16StaysClose(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tokens := make([]int, 48)
	for i := range tokens {
		tokens[i] = rng.IntN(len(gguftest.Vocabulary()))
	}
	o := Options{Float16: true, AllLogits: true}
	names := sortedKeys(tinySpecs)
	var jobs []comparison
	for _, name := range names {
		src := tiny(t, tinySpecs[name])
		jobs = append(jobs, comparison{src, imported(t, src, o), tokens, 20, 1})
	}
	src := fromMake(t, "INFER_TEST_MODEL_GGUF")
	text := prose(t)[:128]
	names = append(names, "SmolLM2", "without offsets")
	jobs = append(jobs, comparison{src, imported(t, src, o), text, len(text), 1}, comparison{src, withoutOffsets(t, src, o), text[:controlled], controlled, 1})
	got := compare(t, jobs)
	for i, g := range got[:len(got)-1] {
		t.Logf("%s: %+v", names[i], g)
		if g.Positions != len(jobs[i].Tokens) || !(g.MeanKL <= halfKL) {
			t.Errorf("%s: got %+v, want a mean KL of at most %g", names[i], g, halfKL)
		}
	}
	if g := got[len(got)-1]; g.MeanKL <= 10*halfKL {
		t.Errorf("without Q4_1's offsets the mean KL is %g: this check cannot fail", g.MeanKL)
	}
}
