package scripts

import (
	"archive/zip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// program puts a shell script on a PATH of its own.
func program(t *testing.T, dir, name, body string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/bash\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
}

// only makes a folder in which nothing but these programs of the machine are.
func only(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// script runs a script of this repository with nothing but path on its PATH.
func script(path string, args ...string) (string, int) {
	c := exec.Command("/bin/bash", args...)
	c.Dir = filepath.Join("..", "..")
	c.Env = []string{"PATH=" + path, "HOME=" + os.Getenv("HOME")}
	out, err := c.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	} else if err != nil {
		return err.Error(), -1
	}
	return string(out), 0
}

// TestGPUScriptNeedsAGPU holds that nothing is fetched and no success is
// reported on a machine without a GPU.
func TestGPUScriptNeedsAGPU(t *testing.T) {
	path := only(t, "dirname")
	if out, code := script(path, "test/gpu.sh"); code != 2 || !strings.Contains(out, "no NVIDIA driver") || !strings.Contains(out, "Nothing was tested") {
		t.Errorf("without nvidia-smi: %d, %s", code, out)
	}
	program(t, path, "nvidia-smi", "echo 'No devices were found'; exit 6\n")
	if out, code := script(path, "test/gpu.sh"); code != 2 || !strings.Contains(out, "No devices were found") {
		t.Errorf("without a device: %d, %s", code, out)
	}
}

// TestGPUScriptCountsTests has a make that passes and runs no test.
func TestGPUScriptCountsTests(t *testing.T) {
	path := only(t, "dirname", "mktemp", "tee", "grep", "sed", "rm")
	program(t, path, "nvidia-smi", "echo 'a GPU, 580.00, 8 MiB'\n")
	program(t, path, "make", "exit 0\n")
	if out, code := script(path, "test/gpu.sh"); code != 1 || !strings.Contains(out, "0 tests passed") {
		t.Errorf("no test ran: %d, %s", code, out)
	}
	program(t, path, "make", "for i in 1 2 3 4 5 6 7; do echo \"--- PASS: TestGPU$i\"; done; echo 'gpu-table:  TTFT  1 ms'\n")
	if out, code := script(path, "test/gpu.sh"); code != 0 || !strings.Contains(out, "  TTFT  1 ms") {
		t.Errorf("all passed: %d, %s", code, out)
	}
	program(t, path, "make", "for i in 1 2 3 4 5 6 7; do echo \"--- PASS: TestGPU$i\"; done; [ \"$2\" != test-gpu ]\n")
	if out, code := script(path, "test/gpu.sh"); code != 1 {
		t.Errorf("make test-gpu failed: %d, %s", code, out)
	}
	program(t, path, "make", "[ \"$2\" = test-gpu ]\n")
	if out, code := script(path, "test/gpu.sh"); code != 3 {
		t.Errorf("nothing could be fetched: %d, %s", code, out)
	}
}

// cudaParts are what the wheels hold, and what else.
var cudaParts = []string{
	"onnxruntime/capi/libonnxruntime.so.1.31.1", "onnxruntime/capi/libonnxruntime_providers_shared.so",
	"onnxruntime/capi/libonnxruntime_providers_cuda.so", "onnxruntime/capi/libonnxruntime_providers_tensorrt.so", "onnxruntime/LICENSE",
	"nvidia/cu13/lib/libcublas.so.13", "nvidia/cu13/lib/libcublasLt.so.13", "nvidia/cu13/lib/libnvblas.so.13",
	"nvidia/cu13/lib/libcurand.so.10", "nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcudart_static.a",
	"nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cu13/lib/libnvrtc-builtins.so.13.5",
	"nvidia_cublas-13.10.dist-info/licenses/License.txt", "../escape.so",
}

// TestONNXCUDALayout runs the script on a wheel that pip would have brought.
func TestONNXCUDALayout(t *testing.T) {
	for name, tc := range map[string]struct {
		parts []string
		whole bool
	}{
		"all parts": {cudaParts, true}, "one too few": {cudaParts[1:], false}, "no wheel": {nil, false},
	} {
		work := t.TempDir()
		path := only(t, "dirname", "uname", "mkdir", "mktemp", "rm", "mv", "cp")
		python, err := exec.Command("python3", "-c", "import sys; print(sys.executable, end='')").Output()
		if err != nil {
			t.Fatal(err)
		}
		pip := "exit 1"
		if tc.parts != nil {
			whl := filepath.Join(t.TempDir(), "a.whl")
			writeZip(t, whl, tc.parts)
			pip = fmt.Sprintf(`mkdir -p "${@: -1}" && cp %q "${@: -1}"`, whl)
		}
		program(t, path, "python3", fmt.Sprintf("case \"$*\" in *--version) ;; *download*) %s ;; *) exec %s \"$@\" ;; esac\n", pip, python))
		target := filepath.Join(work, "cuda13")
		out, code := script(path, "scripts/onnx-cuda.sh", target)
		got, err := filepath.Glob(filepath.Join(work, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		nested, err := filepath.Glob(filepath.Join(target, "cuda", "*"))
		if err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(work); !tc.whole && (code == 0 || err != nil || len(entries) != 0) {
			t.Errorf("%s: exit %d, left %v: %s", name, code, entries, out)
		}
		if tc.whole && (code != 0 || len(got) != 5 || len(nested) != 7 || !slices.Contains(got, filepath.Join(target, "libonnxruntime.so.1"))) {
			t.Errorf("%s: exit %d, made %v and %v: %s", name, code, got, nested, out)
		}
	}
}

func writeZip(t *testing.T, name string, parts []string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for _, p := range parts {
		if _, err := z.Create(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
