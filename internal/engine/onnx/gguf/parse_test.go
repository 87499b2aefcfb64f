package gguf

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"infer/internal/engine/onnx/gguf/gguftest"
)

func ptr(v uint64) *uint64 { return &v }

// arrayHead is an array's element type and count, with no elements.
func arrayHead(kind uint32, n uint64) gguftest.Raw {
	return gguftest.Raw{Kind: kindArray, Data: le.AppendUint64(le.AppendUint32(nil, kind), n)}
}

// refusal is a file with one fault, and what Import must say about it.
type refusal struct {
	name string
	harm func(*gguftest.File)
	want error
	says string
}

func set(key string, v any) func(*gguftest.File) { return func(f *gguftest.File) { f.Set(key, v) } }

func onTensor(name string, change func(*gguftest.Tensor)) func(*gguftest.File) {
	return func(f *gguftest.File) { change(f.Tensor(name)) }
}

func dropTensor(name string) func(*gguftest.File) {
	return onTensor(name, func(t *gguftest.Tensor) { t.Name = "general.nothing" })
}

// damaged are files that lie about themselves.
var damaged = []refusal{
	{"wrong magic", func(f *gguftest.File) { f.Magic = "GGML" }, ErrInvalid, `begins with "GGML"`},
	{"2^60 keys", func(f *gguftest.File) { f.NKeys = ptr(1 << 60) }, ErrInvalid, "keys"},
	{"2^60 tensors", func(f *gguftest.File) { f.NTensors = ptr(1 << 60) }, ErrInvalid, "tensors"},
	{"one key too many", func(f *gguftest.File) { f.NKeys = ptr(uint64(len(f.Keys) + 1)) }, ErrInvalid, ""},
	{"one tensor too many", func(f *gguftest.File) { f.NTensors = ptr(uint64(len(f.Tensors) + 1)) }, ErrInvalid, ""},
	{"string beyond the file", set("x", gguftest.Raw{Kind: kindString, Data: le.AppendUint64(nil, 1<<40)}), ErrInvalid, "string of"},
	{"string of 2^28", set("x", gguftest.Raw{Kind: kindString, Data: le.AppendUint64(nil, 1<<28)}), ErrInvalid, "string of"},
	{"string of 2^64-1", set("x", gguftest.Raw{Kind: kindString, Data: le.AppendUint64(nil, math.MaxUint64)}), ErrInvalid, "string of"},
	{"skipped array beyond the file", set("x", arrayHead(kindU64, 1<<61)), ErrInvalid, "array of"},
	{"kept array beyond the file", set(keyTokens, arrayHead(kindString, 1<<60)), ErrInvalid, "array of"},
	{"array of arrays", set("x", arrayHead(kindArray, 1)), ErrInvalid, "array of arrays"},
	{"array of nothing known", set("x", arrayHead(77, 1)), ErrInvalid, "unknown type"},
	{"value of nothing known", set("x", gguftest.Raw{Kind: 77}), ErrInvalid, "unknown value type"},
	{"key twice", func(f *gguftest.File) { f.Keys = append(f.Keys, f.Keys[0]) }, ErrInvalid, "twice"},
	{"alignment 0", set("general.alignment", uint32(0)), ErrInvalid, "alignment"},
	{"alignment 48", set("general.alignment", uint32(48)), ErrInvalid, "alignment"},
	{"alignment 2^31", set("general.alignment", uint32(1<<31)), ErrInvalid, "alignment"},
	{"alignment in words", set("general.alignment", "32"), ErrInvalid, "alignment"},
	{"tensor twice", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Name = "token_embd.weight" }), ErrInvalid, "twice"},
	{"no dimensions", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Dims = nil }), ErrInvalid, "0 dimensions"},
	{"five dimensions", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Dims = []uint64{64, 1, 1, 1, 1} }), ErrInvalid, "5 dimensions"},
	{"shape overflows", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Dims = []uint64{1 << 33, 1 << 33} }), ErrInvalid, "impossible shape"},
	{"shape wraps to small", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Dims = []uint64{64, 1<<58 + 1} }), ErrInvalid, "impossible shape"},
	{"empty shape", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Dims = []uint64{0} }), ErrInvalid, "impossible shape"},
	{"broken block", onTensor("blk.0.attn_q.weight", func(t *gguftest.Tensor) { t.Dims[0] = 63 }), ErrInvalid, "whole Q8_0 blocks"},
	{"offset beyond the file", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Offset = ptr(1 << 40) }), ErrInvalid, "beyond the end"},
	{"offset of 2^63", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Offset = ptr(1 << 63) }), ErrInvalid, "beyond the end"},
	{"offset not aligned", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Offset = ptr(4) }), ErrInvalid, "multiple of 32"},
	{"tensors overlap", onTensor("output_norm.weight", func(t *gguftest.Tensor) { t.Offset = ptr(32) }), ErrInvalid, "overlap"},
	{"tensor missing", dropTensor("blk.1.ffn_up.weight"), ErrInvalid, "blk.1.ffn_up.weight is missing"},
	{"no embedding", dropTensor("token_embd.weight"), ErrInvalid, "token_embd"},
	{"other width", set("llama.embedding_length", uint32(96)), ErrInvalid, "the metadata says"},
	{"quantised norm", onTensor("output_norm.weight", func(t *gguftest.Tensor) {
		t.Type, t.Data = gguftest.Q8_0, gguftest.Encode(gguftest.Q8_0, make([]float32, 64))
	}), ErrInvalid, "vector of type Q8_0"},
	{"no layers", set("llama.block_count", nil), ErrInvalid, "llama.block_count"},
	{"2^31-1 layers", set("llama.block_count", uint32(math.MaxInt32)), ErrInvalid, "layers"},
	{"negative heads", set("llama.attention.head_count", int32(-4)), ErrInvalid, "head_count"},
	{"heads over key-value heads", set("llama.attention.head_count_kv", uint32(3)), ErrInvalid, "key-value heads"},
	{"epsilon NaN", set("llama.attention.layer_norm_rms_epsilon", float32(math.NaN())), ErrInvalid, "epsilon"},
	{"rotary base 0", set("llama.rope.freq_base", float32(0)), ErrInvalid, "freq_base"},
	{"rotary factor 0", set("llama.rope.scaling.factor", float32(0)), ErrInvalid, "scaling factor"},
	{"more tokens than rows", set(keyTokens, make([]string, 4096)), ErrInvalid, "tokens for"},
	{"types are short", set(keyTokenTypes, []int32{1}), ErrInvalid, "token types"},
	{"token twice", set(keyTokens, append(gguftest.Vocabulary()[1:], "!")), ErrInvalid, "twice"},
	{"merge of nothing", set(keyMerges, []string{"qq zz"}), ErrInvalid, "merge 0"},
	{"token not UTF-8", set(keyTokens, append([]string{"\xff"}, gguftest.Vocabulary()[1:]...)), ErrInvalid, "not UTF-8"},
	{"end beyond the vocabulary", set("tokenizer.ggml.eos_token_id", uint32(9999)), ErrInvalid, "eos_token_id"},
}

// foreign are sound files that ask for something else.
var foreign = []refusal{
	{"version 1", func(f *gguftest.File) { f.Version = 1 }, ErrUnsupported, "version 1"},
	{"big-endian", func(f *gguftest.File) { f.Version = 3 << 24 }, ErrUnsupported, "version 3, big-endian"},
	{"another architecture", set("general.architecture", "qwen3"), ErrUnsupported, `"qwen3"`},
	{"a K-quant", onTensor("blk.0.attn_q.weight", func(t *gguftest.Tensor) { t.Type = 12 }), ErrUnsupported,
		"tensor blk.0.attn_q.weight is Q4_K; convert the unquantised model with llama-quantize to Q4_0, Q4_1, Q8_0 or F16"},
	{"a type of tomorrow", onTensor("blk.0.attn_q.weight", func(t *gguftest.Tensor) { t.Type = 200 }), ErrUnsupported, "type 200"},
	{"experts by key", set("llama.expert_count", uint32(8)), ErrUnsupported, "mixture of 8 experts"},
	{"experts by tensor", onTensor("blk.0.ffn_up.weight", func(t *gguftest.Tensor) { t.Name = "blk.0.ffn_up_exps.weight" }), ErrUnsupported, "mixture of experts"},
	{"sliding window", set("llama.attention.sliding_window", uint32(4096)), ErrUnsupported, "sliding_window"},
	{"yarn", set("llama.rope.scaling.type", "yarn"), ErrUnsupported, `"yarn"`},
	{"half-rotated heads", set("llama.rope.dimension_count", uint32(8)), ErrUnsupported, "8 of 16 dimensions"},
	{"other value size", set("llama.attention.value_length", uint32(32)), ErrUnsupported, "must be equal"},
	{"heads of 24", func(f *gguftest.File) {
		f.Set("llama.attention.key_length", uint32(24))
		f.Set("llama.attention.value_length", uint32(24))
	}, ErrUnsupported, "multiples of 16"},
	{"endless context", set("llama.context_length", uint32(1<<30)), ErrUnsupported, "the limit is"},
	{"a tensor of its own", func(f *gguftest.File) {
		f.Tensors = append(f.Tensors, gguftest.Tensor{Name: "blk.0.attn_q_norm.weight", Dims: []uint64{16}, Data: make([]byte, 64)})
	}, ErrUnsupported, "attn_q_norm"},
	{"one file of several", set("split.count", uint32(2)), ErrUnsupported, "llama-gguf-split --merge"},
	{"sentencepiece", set("tokenizer.ggml.model", "llama"), ErrUnsupported, "byte-level BPE"},
	{"another splitter", set("tokenizer.ggml.pre", "tekken"), ErrUnsupported, `"tekken"`},
}

// TestRefusals imports every damaged and every foreign file: the right error,
// nothing left behind, and little memory for a file that promises much.
func TestRefusals(t *testing.T) {
	for _, c := range append(damaged, foreign...) {
		t.Run(c.name, func(t *testing.T) {
			f := gguftest.Model(gguftest.Spec{Type: gguftest.Q8_0})
			c.harm(&f)
			dir := t.TempDir()
			src := filepath.Join(dir, "bad.gguf")
			if err := f.Write(src); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := Import(t.Context(), src, filepath.Join(dir, "model"), Options{})
			runtime.ReadMemStats(&after)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.want, c.says)
			}
			if grown, limit := after.TotalAlloc-before.TotalAlloc, uint64(8*len(f.Bytes())+1<<20); grown > limit {
				t.Errorf("allocated %d bytes, the limit is %d", grown, limit)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

// TestTruncations cuts a file everywhere in its head and here and there in its
// data.
func TestTruncations(t *testing.T) {
	whole := gguftest.Model(gguftest.Spec{Type: gguftest.Q4_0, Layers: 1}).Bytes()
	f, err := parse(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n++ {
		if int64(n) > f.dataStart {
			n = min(n+997, len(whole)-1)
		}
		if _, err := parse(bytes.NewReader(whole[:n]), int64(n)); !errors.Is(err, ErrInvalid) {
			t.Fatalf("cut at %d of %d: got %v, want ErrInvalid", n, len(whole), err)
		}
	}
}

// TestScalesMayBeNaN holds that weights are data: a NaN scale is copied.
func TestScalesMayBeNaN(t *testing.T) {
	f := gguftest.Model(gguftest.Spec{Type: gguftest.Q8_0})
	le.PutUint16(f.Tensor("blk.0.attn_q.weight").Data, 0x7e00)
	src := filepath.Join(t.TempDir(), "nan.gguf")
	if err := f.Write(src); err != nil {
		t.Fatal(err)
	}
	imported(t, src, Options{})
}

// FuzzParse feeds bytes to the whole importer except the disk.
func FuzzParse(f *testing.F) {
	small := gguftest.Spec{Width: 32, FeedForward: 32, Heads: 3, KVHeads: 3, HeadDim: 32, Context: 8}
	for _, small.Type = range []gguftest.Type{gguftest.Q4_1, gguftest.F16, gguftest.Q8_0} {
		f.Add(gguftest.Model(small).Bytes())
	}
	for _, c := range append(damaged, foreign...) {
		m := gguftest.Model(small)
		c.harm(&m)
		f.Add(m.Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		head, err := parse(bytes.NewReader(raw), int64(len(raw)))
		var m *llama
		if err == nil {
			m, err = newLlama(head)
		}
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		b := newBuilder(m, Options{})
		if err := b.build(); err != nil {
			t.Fatal(err)
		}
		if b.w.end > 16<<20 {
			return // a long context makes long tables from a short file; they go to the disk in steps
		}
		if err := b.w.write(t.Context(), discard{}, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// discard is an io.WriterAt that keeps nothing.
type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return io.Discard.Write(b) }
