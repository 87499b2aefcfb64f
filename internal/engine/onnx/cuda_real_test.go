//go:build real

package onnx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"infer/internal/engine"
	"infer/internal/engine/onnx/gguf"
	"infer/internal/engine/onnx/ort"
	"infer/internal/engine/onnx/ort/orttest"
)

// fakeGPU is the real CUDA build of ONNX Runtime over a CUDA that computes
// nothing, one for all tests of a run: what was loaded stays loaded. The second
// value is the file of the fake's counters.
var fakeGPU = sync.OnceValues(func() (folder string, err error) {
	dir, err := importCache() // which TestMain removes
	if err != nil {
		return "", err
	}
	from, folder := os.Getenv("INFER_TEST_ONNXRUNTIME_CUDA"), filepath.Join(dir, "fake-cuda")
	if err := orttest.Link(from, folder, "cuda/libcublas.so.13", "cuda/libcublasLt.so.13", "cuda/libcurand.so.10", "cuda/libcudart.so.13"); err != nil {
		return "", err
	}
	if err := os.Setenv("FAKE_CUDA_COUNTERS", filepath.Join(folder, "counters")); err != nil {
		return "", err
	}
	return folder, orttest.FakeCUDA(filepath.Join(from, orttest.Provider), filepath.Join(folder, "cuda"))
})

func fakeConfig(t *testing.T) Config {
	t.Helper()
	testEnv(t, "INFER_TEST_ONNXRUNTIME_CUDA")
	folder, err := fakeGPU()
	if err != nil {
		t.Fatal(err)
	}
	cfg := cudaConfig(t, folder)
	cfg.Slots, cfg.ContextTokens = 4, 256
	return cfg
}

// traffic is what crossed the bus, and what was taken on the device.
type traffic struct{ ToHost, ToDevice, Allocated uint64 }

func counted(t *testing.T, f func()) traffic {
	t.Helper()
	folder, err := fakeGPU()
	if err != nil {
		t.Fatal(err)
	}
	read := func() (c traffic) {
		raw, err := os.ReadFile(filepath.Join(folder, "counters"))
		if err == nil {
			err = binary.Read(bytes.NewReader(raw), binary.NativeEndian, &c)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) { // made when the runtime is loaded
			t.Fatal(err)
		}
		return c
	}
	before := read()
	f()
	after := read()
	return traffic{after.ToHost - before.ToHost, after.ToDevice - before.ToDevice, after.Allocated - before.Allocated}
}

// TestImportedGraphIsPlacedOnCUDA asks the real provider which nodes it takes,
// and where the KV cache is. It says nothing of what a GPU computes.
func TestImportedGraphIsPlacedOnCUDA(t *testing.T) {
	var m *model
	used := counted(t, func() {
		var err error
		if m, _, err = openModelFor(t, fakeConfig(t), quiet); err != nil {
			t.Fatal(err)
		}
	})
	if m.device() != "cuda" || m.kvType != ort.Float16 {
		t.Errorf("the KV cache is on %s with element type %d, want fp16 on cuda", m.device(), m.kvType)
	}
	const weights = 98_000_000 // of the fp16 import, less the tables that are shared
	if used.Allocated < uint64(m.kvBytes())+weights || used.ToHost != 0 {
		t.Errorf("loading moved %+v, want %d bytes of KV cache and the weights allocated", used, m.kvBytes())
	}
}

// TestOnlyLogitsCross counts what a step copies: the logits of its rows to the
// host, ids and mask to the device, and nothing of the KV cache.
func TestOnlyLogitsCross(t *testing.T) {
	m, tok, err := openModelFor(t, fakeConfig(t), quiet)
	if err != nil {
		t.Fatal(err)
	}
	prompt := tok.Encode(prompts[0])
	row := uint64(4 * m.cfg.Model.VocabSize)
	const inputs = 16 << 10 // ids, mask and what is derived of them
	for name, tc := range map[string]struct {
		rows uint64
		run  func() error
	}{
		"prefill": {1, func() error { _, err := m.prefill(t.Context(), 1, prompt, 0); return err }},
		"chunk":   {1, func() error { _, err := m.prefill(t.Context(), 1, prompt[:4], len(prompt)); return err }},
		"decode":  {3, func() error { _, err := m.decode(t.Context(), []int32{1, 2, 3}, []int{5, 9, 7}); return err }},
	} {
		if err := tc.run(); err != nil { // the first run may take memory
			t.Fatal(err)
		}
		got := counted(t, func() {
			if err := tc.run(); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %+v", name, got)
		if got.ToHost != tc.rows*row || got.ToDevice > inputs {
			t.Errorf("%s moved %+v, want %d bytes to the host and at most %d to the device", name, got, tc.rows*row, inputs)
		}
	}
}

// TestWholePrecisionGraphOnCUDA holds that a graph whose attention CUDA lacks
// is refused, or taken to the CPU by auto, with a reason in the log.
func TestWholePrecisionGraphOnCUDA(t *testing.T) {
	cfg := fakeConfig(t)
	dir := filepath.Join(t.TempDir(), "fp32")
	if err := gguf.Import(t.Context(), cfg.Model, dir, gguf.Options{AccuracyLevel: 4}); err != nil {
		t.Fatal(err)
	}
	cfg.Model = dir
	_, _, err := openModelFor(t, cfg, quiet)
	f, ok := errors.AsType[*engine.Failure](err)
	if !ok || f.Cause != engine.CauseDeviceUnavailable || !strings.Contains(f.Message, "30 of ") || !strings.Contains(f.Remedy, "fp16") {
		t.Errorf("fp32 on CUDA: %v, want it refused with 30 attentions on the CPU", err)
	}
	var log bytes.Buffer
	cfg.Device = "auto"
	m, _, err := openModelFor(t, cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || m.device() != "cpu" || strings.Count(log.String(), "running on the CPU") != 1 {
		t.Errorf("fp32 with auto: %v, log %s", err, &log)
	}
}

// TestAutoSaysWhyNotCUDA has the CUDA library and no GPU.
func TestAutoSaysWhyNotCUDA(t *testing.T) {
	cfg := fakeConfig(t)
	t.Setenv("FAKE_CUDA_COUNT", "0")
	_, _, err := openModelFor(t, cfg, quiet)
	if f, ok := errors.AsType[*engine.Failure](err); !ok || f.Cause != engine.CauseDeviceUnavailable ||
		!strings.Contains(f.Message, "no GPU device") || !strings.Contains(f.Remedy, "--device cpu") {
		t.Errorf("cuda without a GPU: %v", err)
	}
	var log bytes.Buffer
	cfg.Device = "auto"
	m, _, err := openModelFor(t, cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || m.device() != "cpu" || m.kvType != ort.Float32 {
		t.Fatalf("auto without a GPU: %v", err)
	}
	if n := strings.Count(log.String(), "running on the CPU"); n != 1 || !strings.Contains(log.String(), "no CUDA-capable device") {
		t.Errorf("the log has the reason %d times: %s", n, &log)
	}
}
