//go:build gpu

package onnx

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"infer/internal/engine/onnx/ort"
	"infer/internal/engine/onnx/tokenizer"
)

// These tests run on a GPU: test/gpu.sh fetches what they need and starts
// them. They take the same steps as their namesakes on the CPU.

// gpuTolerance is what two orders of the same fp16 sums may differ in a logit.
// Logits of 16 to 32 are 1/64 apart in fp16, and thirty layers add their
// rounding; a wrong length moves logits by several units. It is reasoned, not
// measured: the tests log what they saw.
const gpuTolerance = 0.5

func gpuModel(tb testing.TB, slots int) (*model, *tokenizer.Tokenizer) {
	tb.Helper()
	cfg := cudaConfig(tb, testEnv(tb, "INFER_TEST_ONNXRUNTIME_CUDA"))
	cfg.Slots, cfg.ContextTokens = slots, 2048
	m, tok, err := openModelFor(tb, cfg, quiet)
	if err != nil {
		tb.Fatal(err)
	}
	return m, tok
}

// TestGPUHasTheModel holds that nothing fell back: the session refuses a graph
// whose products or attentions are not all on CUDA, and the cache must be too.
func TestGPUHasTheModel(t *testing.T) {
	m, _ := gpuModel(t, 4)
	if m.device() != "cuda" || m.kvType != ort.Float16 || slices.ContainsFunc(m.kv, func(b *ort.Buffer) bool { return b.Bytes() != nil }) {
		t.Errorf("device %s, KV cache of element type %d: want fp16 on cuda", m.device(), m.kvType)
	}
}

// TestGPUBatchEqualsSolo is TestBatchEqualsSolo in fp16, with its negative
// control.
func TestGPUBatchEqualsSolo(t *testing.T) {
	m, tok := gpuModel(t, 4)
	const steps = 24
	var in, ids [][]int32
	var alone [][][]float32
	for _, p := range prompts {
		prompt := tok.Encode(p)
		tokens, logits := greedyAlone(t, m, prompt, steps)
		in, ids, alone = append(in, prompt), append(ids, tokens), append(alone, logits)
	}
	right, wrong := teacherForced(t, m, in, ids, alone, 0), teacherForced(t, m, in, ids, alone, 1)
	t.Logf("largest difference %g, with wrong lengths %g", right, wrong)
	if !(right <= gpuTolerance) { // so that NaN fails too
		t.Errorf("batch and solo logits differ by %g, want at most %g", right, gpuTolerance)
	}
	if !(wrong >= 4*gpuTolerance) {
		t.Errorf("with wrong lengths the logits differ by only %g: this test would not notice a fault", wrong)
	}
}

// TestGPUEqualsCPU compares with fp32 compute on the CPU.
func TestGPUEqualsCPU(t *testing.T) {
	m, tok := gpuModel(t, 1)
	cpu, _ := realModel(t, 0, 1)
	for _, p := range prompts {
		prompt := tok.Encode(p)
		got, err := m.prefill(t.Context(), 0, prompt, 0)
		if err != nil {
			t.Fatal(err)
		}
		want, err := cpu.prefill(t.Context(), 0, prompt, 0)
		if err != nil {
			t.Fatal(err)
		}
		d := maxDiff(got, want)
		t.Logf("%q: %g", p, d)
		if !(d <= gpuTolerance) {
			t.Errorf("%q: GPU and CPU logits differ by %g, want at most %g", p, d, gpuTolerance)
		}
	}
}

// TestGPUChunkedPrefillEqualsWhole cuts a prompt, in a high slot.
func TestGPUChunkedPrefillEqualsWhole(t *testing.T) {
	m, tok := gpuModel(t, 3)
	prompt := tok.Encode(strings.Join(prompts, "\n"))
	want, err := m.prefill(t.Context(), 0, prompt, 0)
	if err != nil {
		t.Fatal(err)
	}
	if want = slices.Clone(want); slices.Max(want)-slices.Min(want) < 1 {
		t.Fatal("the logits are all alike: nothing was computed")
	}
	var got []float32
	for pos := 0; pos < len(prompt); {
		n := min(7, len(prompt)-pos)
		if got, err = m.prefill(t.Context(), 2, prompt[pos:pos+n], pos); err != nil {
			t.Fatal(err)
		}
		pos += n
	}
	d := maxDiff(got, want)
	t.Logf("largest difference %g", d)
	if !(d <= gpuTolerance) {
		t.Errorf("chunked and whole prefill differ by %g, want at most %g", d, gpuTolerance)
	}
	if m.swap(0, 1, 1) || m.copy(0, 1, 1) {
		t.Error("a cache on the device was copied through the host")
	}
}

// TestGPUPrefillEndsWithItsContext cancels a run: it must be ended by that at
// least once in many, and the next must be as if nothing had been.
func TestGPUPrefillEndsWithItsContext(t *testing.T) {
	m, tok := gpuModel(t, 2)
	prompt := tok.Encode(strings.Repeat(prompts[1]+" ", 120))[:1500]
	before, err := m.prefill(t.Context(), 0, prompt, 0)
	if err != nil {
		t.Fatal(err)
	}
	before = slices.Clone(before)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(os.ErrDeadlineExceeded)
	ended := false
	for i := 0; i < 200 && !ended; i++ {
		switch _, err := m.prefill(ctx, 0, prompt, 0); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			ended = true
		case err != nil:
			t.Fatalf("prefill = %v, want the context's cause", err)
		}
	}
	if !ended {
		t.Error("no run was ended by its context")
	}
	after, err := m.prefill(t.Context(), 0, prompt, 0)
	if err != nil {
		t.Fatal(err)
	}
	if d := maxDiff(before, after); !(d <= gpuTolerance) {
		t.Errorf("after a cancelled run the logits differ by %g", d)
	}
}

// TestGPUMemory compares what the device reports with what was asked for. Other
// programs on the GPU disturb it.
func TestGPUMemory(t *testing.T) {
	before := gpuMiB(t)
	m, _ := gpuModel(t, 16)
	used, kv := gpuMiB(t)-before, m.kvBytes()>>20
	const context, weights = 1536, 100 // MiB: CUDA's own and the libraries' code, the fp16 import
	t.Logf("the KV cache takes %d MiB; the device reports %d MiB more than before", kv, used)
	if used < kv || used > kv+weights+context {
		t.Errorf("the device reports %d MiB more, want between %d and %d", used, kv, kv+weights+context)
	}
}

// gpuMiB is the used memory of the first visible GPU.
func gpuMiB(t *testing.T) int64 {
	t.Helper()
	gpu, _, _ := strings.Cut(os.Getenv("CUDA_VISIBLE_DEVICES"), ",")
	if gpu == "" {
		gpu = "0"
	}
	out, err := exec.CommandContext(t.Context(), "nvidia-smi", "--id="+gpu, "--query-gpu=memory.used", "--format=csv,noheader,nounits").Output()
	if err != nil {
		t.Fatalf("nvidia-smi: %v", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatalf("nvidia-smi says %q", out)
	}
	return n
}
