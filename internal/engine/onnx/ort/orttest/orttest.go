// Package orttest makes a CUDA without a GPU, for tests: libraries that the
// real CUDA provider of ONNX Runtime links and that start no kernel. With them
// the provider can be loaded, takes nodes of a graph and moves tensors, so that
// placement, bindings and copies can be tested. What it computes is
// meaningless, and nothing is said of a real GPU.
package orttest

import (
	"debug/elf"
	_ "embed" // the runtime's source
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The parts of a CUDA folder, as scripts/onnx-cuda.sh makes it.
const (
	Core     = "libonnxruntime.so.1"
	Shared   = "libonnxruntime_providers_shared.so"
	Provider = "libonnxruntime_providers_cuda.so"
)

//go:embed testdata/fakecudart.c
var runtime string

// Link makes dir the CUDA build of ONNX Runtime in from, by symbolic links,
// without the entries that are named in without, which may be cuda/….
func Link(from, dir string, without ...string) error {
	if err := os.MkdirAll(filepath.Join(dir, "cuda"), 0o755); err != nil {
		return err
	}
	for _, pattern := range []string{"*.so*", "cuda/*.so*"} {
		paths, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil || len(paths) == 0 {
			return fmt.Errorf("%s has no %s: %w", from, pattern, os.ErrNotExist)
		}
		for _, p := range paths {
			name := strings.TrimPrefix(strings.TrimPrefix(p, from), "/")
			if slices.Contains(without, name) {
				continue
			}
			if err := os.Symlink(p, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// FakeCUDA writes into dir the libraries that provider links, the driver's
// included, with every function that it calls. FAKE_CUDA_COUNT and the other
// variables of fakecudart.c steer them.
func FakeCUDA(provider, dir string) error {
	f, err := elf.Open(provider)
	if err != nil {
		return err
	}
	symbols, err := f.ImportedSymbols()
	if e := f.Close(); err != nil || e != nil {
		return fmt.Errorf("read %s: %w %w", provider, err, e)
	}
	byLibrary := map[string][]string{"libcuda.so.1": {"cuInit"}, "libcurand.so.10": nil}
	for _, s := range symbols {
		switch {
		case strings.HasPrefix(s.Library, "libcu"):
			byLibrary[s.Library] = append(byLibrary[s.Library], s.Name)
		case s.Library == "" && strings.HasPrefix(s.Name, "cu") && s.Name[2] >= 'A' && s.Name[2] <= 'Z':
			byLibrary["libcuda.so.1"] = append(byLibrary["libcuda.so.1"], s.Name)
		}
	}
	for _, library := range slices.Sorted(maps.Keys(byLibrary)) {
		if err := compile(dir, library, byLibrary[library]); err != nil {
			return err
		}
	}
	return nil
}

// compile makes one library: stubs that succeed, weak, so that the runtime's
// own functions win.
func compile(dir, library string, symbols []string) error {
	var stubs strings.Builder
	stubs.WriteString("static char handle[64];\n")
	for _, s := range symbols {
		stubs.WriteString("__attribute__((weak)) int " + s)
		if strings.HasSuffix(strings.TrimSuffix(s, "_v2"), "Create") {
			stubs.WriteString("(void **p) { return *p = handle, 0; }\n")
		} else {
			stubs.WriteString("(void) { return 0; }\n")
		}
	}
	work, err := os.MkdirTemp(dir, "fake")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	args := []string{"-shared", "-fPIC", "-w", "-o", filepath.Join(dir, library), "-Wl,-soname," + library}
	files := map[string]string{"stubs.c": stubs.String(), "versions.map": library + " { global: *; };\n"}
	if strings.HasPrefix(library, "libcudart.") {
		files["runtime.c"] = runtime
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(work, name)
		if err := os.WriteFile(path, []byte(files[name]), 0o600); err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(name, ".c"):
			args = append(args, path)
		case library != "libcuda.so.1": // whose symbols have no version
			args = append(args, "-Wl,--version-script="+path)
		}
	}
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", library, err, out)
	}
	return nil
}
