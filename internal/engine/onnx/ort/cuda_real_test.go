//go:build real

package ort

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"infer/internal/engine/onnx/ort/orttest"
)

// What a library needs is loaded once a process, so each case is a child: this
// test binary with a folder in asChild.
const asChild = "INFER_TEST_CUDA_CHILD"

// verdict is what a child found.
type verdict struct {
	Reason, Remedy string
	OldDriver      bool
}

// TestMain is a child when it is told a folder.
func TestMain(m *testing.M) {
	if dir := os.Getenv(asChild); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

func child(dir string) int {
	lib, err := Open(filepath.Join(dir, orttest.Core), slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var v verdict
	device := 0
	if os.Getenv("INFER_TEST_CUDA_DEVICE") != "" {
		device = 3
	}
	if err := lib.CheckCUDA(device); err != nil {
		f, ok := errors.AsType[*CUDAFault](err)
		if !ok {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		v = verdict{f.Reason, f.Remedy, f.OldDriver}
	}
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return 1
	}
	return 0
}

// cudaFolder is the folder that scripts/onnx-cuda.sh made.
func cudaFolder(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("INFER_TEST_ONNXRUNTIME_CUDA")
	if dir == "" {
		t.Fatal("INFER_TEST_ONNXRUNTIME_CUDA is not set; run the tests with make test-real, which fetches the libraries")
	}
	return dir
}

func check(t *testing.T, dir string, env ...string) verdict {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), append(env, asChild+"="+dir, "LD_LIBRARY_PATH=")...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	var v verdict
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	if err != nil {
		t.Fatalf("child: %v: %s%s", err, out, &stderr)
	}
	t.Logf("%s | %s", v.Reason, v.Remedy)
	return v
}

// TestEachMissingPieceIsNamed leaves out one piece of the real libraries at a
// time. The driver is a fake beside them, since the machine may have none.
func TestEachMissingPieceIsNamed(t *testing.T) {
	real := cudaFolder(t)
	fakes := t.TempDir()
	if err := orttest.FakeCUDA(filepath.Join(real, orttest.Provider), fakes); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		without        string
		reason, remedy string
	}{
		{orttest.Shared, orttest.Shared + " is missing beside ONNX Runtime in ", "onnxruntime-gpu==1."},
		{orttest.Provider, orttest.Provider + " is missing beside ONNX Runtime in ", "onnxruntime-gpu==1."},
		{"cuda/libcublas.so.13", "libcublas.so.13 is missing (PyPI package nvidia-cublas)", "/cuda (make onnx-cuda"},
		{"cuda/libcublasLt.so.13", "libcublasLt.so.13 is missing (PyPI package nvidia-cublas)", "/cuda (make onnx-cuda"},
		{"cuda/libcurand.so.10", "libcurand.so.10 is missing (PyPI package nvidia-curand)", "/cuda (make onnx-cuda"},
		{"cuda/libcudart.so.13", "libcudart.so.13 is missing (PyPI package nvidia-cuda-runtime)", "/cuda (make onnx-cuda"},
	} {
		t.Run(tc.without, func(t *testing.T) {
			dir := t.TempDir()
			if err := orttest.Link(real, dir, tc.without); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(fakes, "libcuda.so.1"), filepath.Join(dir, "cuda", "libcuda.so.1")); err != nil {
				t.Fatal(err)
			}
			v := check(t, dir)
			if !strings.HasPrefix(v.Reason, tc.reason) || !strings.Contains(v.Remedy, tc.remedy) || strings.Contains(v.Reason, ";") {
				t.Errorf("got %+v, want only %q, with the remedy %q", v, tc.reason, tc.remedy)
			}
		})
	}
}

// TestDriver uses the real libraries alone. A machine with a GPU must pass, one
// without is told what it lacks.
func TestDriver(t *testing.T) {
	v := check(t, cudaFolder(t))
	if _, err := os.Stat("/dev/nvidiactl"); err == nil {
		if v.Reason != "" {
			t.Errorf("with a GPU: %+v", v)
		}
		return
	}
	if v.Reason != "no NVIDIA driver (libcuda.so.1)" || !strings.Contains(v.Remedy, "install the NVIDIA driver") || strings.Contains(v.Remedy, "PyPI") {
		t.Errorf("got %+v, want that only the driver is missing", v)
	}
}

// TestWhatCUDASays has all libraries as fakes and the runtime answer.
func TestWhatCUDASays(t *testing.T) {
	real, dir := cudaFolder(t), t.TempDir()
	if err := orttest.Link(real, dir, "cuda/libcublas.so.13", "cuda/libcublasLt.so.13", "cuda/libcurand.so.10", "cuda/libcudart.so.13"); err != nil {
		t.Fatal(err)
	}
	if err := orttest.FakeCUDA(filepath.Join(real, orttest.Provider), filepath.Join(dir, "cuda")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		env            []string
		reason, remedy string
	}{
		"a GPU":       {nil, "", ""},
		"several":     {[]string{"FAKE_CUDA_COUNT=4", "INFER_TEST_CUDA_DEVICE=3"}, "", ""},
		"no GPU":      {[]string{"FAKE_CUDA_COUNT=0"}, "no GPU device: no CUDA-capable device is detected (CUDA error 100)", "CUDA_VISIBLE_DEVICES"},
		"old driver":  {[]string{"FAKE_CUDA_ERROR=35"}, "the NVIDIA driver does not work with this CUDA runtime: ", "580 or newer"},
		"another one": {[]string{"FAKE_CUDA_ERROR=999"}, "no GPU device: error (CUDA error 999)", "nvidia-smi"},
		"too high":    {[]string{"FAKE_CUDA_COUNT=2", "INFER_TEST_CUDA_DEVICE=3"}, "there is no device cuda:3: 2 GPUs are visible", "smaller number"},
	} {
		t.Run(name, func(t *testing.T) {
			v := check(t, dir, tc.env...)
			if !strings.HasPrefix(v.Reason, tc.reason) || (tc.reason == "") != (v.Reason == "") || v.OldDriver != (name == "old driver") || !strings.Contains(v.Remedy, tc.remedy) {
				t.Errorf("got %+v, want %q with the remedy %q", v, tc.reason, tc.remedy)
			}
		})
	}
}

// TestDamagedPieces holds the messages for files that are there and wrong.
func TestDamagedPieces(t *testing.T) {
	real := cudaFolder(t)
	provider, err := os.ReadFile(filepath.Join(real, orttest.Provider))
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.ReplaceAll(provider, []byte("\x001.31.1\x00"), []byte("\x001.30.9\x00"))
	for _, tc := range []struct {
		piece   string
		content []byte
		reason  string
	}{
		{orttest.Provider, other, orttest.Provider + " in DIR belongs to ONNX Runtime 1.30.9, and the library is 1.31.1"},
		{orttest.Provider, provider[:1000], orttest.Provider + " cannot be read: "},
		{"cuda/libcublasLt.so.13", []byte("\x7fELF"), "DIR/cuda/libcublasLt.so.13: file too short"},
	} {
		dir := t.TempDir()
		if err := orttest.Link(real, dir, tc.piece); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, tc.piece), tc.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if v := check(t, dir); !strings.HasPrefix(v.Reason, strings.ReplaceAll(tc.reason, "DIR", dir)) {
			t.Errorf("got %+v, want %q", v, tc.reason)
		}
	}
}

// TestCPULibraryIsNamed asks a library that was built without CUDA.
func TestCPULibraryIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(os.Getenv("INFER_TEST_ONNXRUNTIME"), filepath.Join(dir, orttest.Core)); err != nil {
		t.Fatal(err)
	}
	v := check(t, dir)
	if !strings.HasPrefix(v.Reason, "this build of ONNX Runtime 1.") || !strings.Contains(v.Remedy, "onnxruntime-gpu") {
		t.Errorf("got %+v", v)
	}
}
