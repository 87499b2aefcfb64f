package ort

/*
#include <stdlib.h>
#include "cuda.h"
*/
import "C"

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

// cudaOptions are the provider's settings that differ from its defaults
// (onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html).
//
// enable_cuda_graph stays off: a captured graph replays the same addresses and
// shapes, and the mask grows by one with every token, so that each step would
// be captured anew. It becomes possible once decoding runs on masks padded to a
// few widths and inputs live on the device.
//
// The copying stream, cuDNN's algorithm search and TF32 stay as they are: the
// first is documented to race for some models, the second is for convolutions,
// the third touches fp32 products only.
func cudaOptions(device int) map[string]string {
	return map[string]string{
		"device_id": strconv.Itoa(device),
		// The KV cache and the weights are few, large and never freed: the
		// default would round the arena up to twice their size.
		"arena_extend_strategy": "kSameAsRequested",
	}
}

// aboutCUDA tells what the GPU or its libraries caused from what is wrong with
// the model.
func aboutCUDA(err error) bool {
	return strings.Contains(err.Error(), "CUDA") || strings.Contains(err.Error(), "libonnxruntime_providers")
}

// The parts of the CUDA build of ONNX Runtime that it loads from beside itself
// (onnxruntime/core/session/provider_bridge_ort.cc).
const (
	sharedPart = "libonnxruntime_providers_shared.so"
	cudaPart   = "libonnxruntime_providers_cuda.so"
)

// CUDAFault is why CUDA cannot be used at all, found before a model is loaded.
// It matches ErrNoCUDA.
type CUDAFault struct {
	Reason    string
	Remedy    string
	OldDriver bool // all is there, and the driver is too old for it
}

// Error is the reason.
func (f *CUDAFault) Error() string { return "CUDA cannot be used: " + f.Reason }

func fault(remedy, format string, args ...any) *CUDAFault {
	return &CUDAFault{Reason: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Unwrap is ErrNoCUDA.
func (f *CUDAFault) Unwrap() error { return ErrNoCUDA }

// CheckCUDA loads what the CUDA provider needs and asks for the GPU with this
// index among the visible ones. Its errors are *CUDAFault.
//
// NVIDIA's libraries are looked for in the folder cuda beside the library, then
// beside the library, then on the loader's search path. What is loaded here the
// provider finds later by its SONAME, so no LD_LIBRARY_PATH is needed.
func (l *Library) CheckCUDA(device int) error {
	if !l.HasCUDA() {
		return fault("name the libonnxruntime.so of the PyPI package onnxruntime-gpu with --onnx-library (make onnx-cuda fetches it)",
			"this build of ONNX Runtime %s has no CUDA provider", l.version)
	}
	dir := filepath.Dir(C.GoString(C.ort_origin(l.api)))
	provider, err := l.openProvider(dir)
	if err != nil {
		return err
	}
	needed, err := provider.ImportedLibraries()
	if e := provider.Close(); err != nil || e != nil {
		return damaged(errors.Join(err, e))
	}
	cudart, err := loadNVIDIA(dir, needed)
	if err != nil {
		return err
	}
	return checkGPU(cudart, device)
}

// openProvider finds the two parts beside the library and holds the larger
// against the library's version: the two talk through an interface that has no
// version of its own, and two that differ may crash.
func (l *Library) openProvider(dir string) (*elf.File, error) {
	remedy := fmt.Sprintf("put %s and %s of the PyPI package onnxruntime-gpu==%s into that folder (make onnx-cuda fetches them)",
		sharedPart, cudaPart, l.version)
	for _, part := range []string{sharedPart, cudaPart} {
		if _, err := os.Stat(filepath.Join(dir, part)); errors.Is(err, fs.ErrNotExist) {
			return nil, fault(remedy, "%s is missing beside ONNX Runtime in %s", part, dir)
		}
	}
	f, err := elf.Open(filepath.Join(dir, cudaPart))
	if err != nil {
		return nil, damaged(err)
	}
	if have := builtFor(f); len(have) > 0 && !slices.Contains(have, l.version) {
		return nil, errors.Join(fault(remedy, "%s in %s belongs to ONNX Runtime %s, and the library is %s",
			cudaPart, dir, strings.Join(have, " or "), l.version), f.Close())
	}
	return f, nil
}

func damaged(err error) error {
	return fault("fetch it again: make onnx-cuda", "%s cannot be read: %v", cudaPart, err)
}

var versionString = regexp.MustCompile(`\x00(1\.[0-9]{1,3}\.[0-9]{1,3})\x00`)

// builtFor lists the versions of ONNX Runtime that the provider names among its
// constants, where its own is (seen in 1.31.0 and 1.31.1: that one only).
func builtFor(f *elf.File) (versions []string) {
	s := f.Section(".rodata")
	if s == nil {
		return nil
	}
	data, err := s.Data()
	if err != nil {
		return nil
	}
	for _, m := range versionString.FindAllSubmatch(data, -1) {
		if v := string(m[1]); !slices.Contains(versions, v) {
			versions = append(versions, v)
		}
	}
	return versions
}

// driver is the library that comes with the GPU's kernel module.
const driver = "libcuda.so.1"

// packages are the PyPI packages that hold NVIDIA's libraries for CUDA 13.
var packages = []struct{ library, name string }{
	{"libcublas", "nvidia-cublas"}, // libcublasLt too
	{"libcudart", "nvidia-cuda-runtime"},
	{"libcurand", "nvidia-curand"},
	{"libcufft", "nvidia-cufft"},
	{"libnvrtc", "nvidia-cuda-nvrtc"},
	{"libcudnn", "nvidia-cudnn-cu13"},
}

// loadNVIDIA loads the libraries that the provider needs, and whatever else is
// in the folder cuda, and reports all that are missing at once.
func loadNVIDIA(dir string, needed []string) (cudart unsafe.Pointer, err error) {
	others, _ := filepath.Glob(filepath.Join(dir, "cuda", "*.so*")) // the pattern is well formed
	var faults []string
	for _, name := range needed {
		if !strings.HasPrefix(name, "libcu") && !strings.HasPrefix(name, "libnv") {
			continue
		}
		others = slices.DeleteFunc(others, func(path string) bool { return filepath.Base(path) == name })
		handle, text := loadOne(dir, name)
		if strings.HasPrefix(name, "libcudart.") {
			cudart = handle
		}
		if text != "" && !slices.Contains(faults, text) {
			faults = append(faults, text)
		}
	}
	if len(faults) > 0 {
		return nil, fault(remedyFor(faults, dir), "%s", strings.Join(faults, "; "))
	}
	for _, path := range others { // libraries that are opened by name when first used
		_, _ = load(path) // whoever needs it will say so
	}
	return cudart, nil
}

// loadOne returns what is wrong, in words, when no candidate can be loaded.
func loadOne(dir, name string) (handle unsafe.Pointer, wrong string) {
	for _, candidate := range []string{filepath.Join(dir, "cuda", name), filepath.Join(dir, name)} {
		if _, err := os.Stat(candidate); err == nil {
			handle, text := load(candidate)
			return handle, explain(text)
		}
	}
	handle, text := load(name)
	return handle, explain(text)
}

func load(path string) (handle unsafe.Pointer, text string) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	e := C.ort_load(p, &handle)
	if e != nil {
		defer C.free(unsafe.Pointer(e))
		text = C.GoString(e)
	}
	return handle, text
}

// absent is glibc's text for a file that is not there, which may be one that
// the opened library needs.
var absent = regexp.MustCompile(`(\S+\.so[.0-9]*): cannot open shared object file: No such file or directory`)

// explain turns the loader's text into a fault; other texts than that of a
// missing file, such as of a damaged one or of a missing symbol, name the file
// themselves.
func explain(text string) string {
	m := absent.FindStringSubmatch(text)
	switch {
	case m == nil:
		return text
	case filepath.Base(m[1]) == driver:
		return "no NVIDIA driver (" + driver + ")"
	}
	return filepath.Base(m[1]) + " is missing" + packageOf(filepath.Base(m[1]))
}

func packageOf(library string) string {
	for _, p := range packages {
		if strings.HasPrefix(library, p.library) {
			return " (PyPI package " + p.name + ")"
		}
	}
	return ""
}

func remedyFor(faults []string, dir string) string {
	var parts []string
	noDriver := func(f string) bool { return strings.Contains(f, driver) }
	if slices.ContainsFunc(faults, func(f string) bool { return !noDriver(f) }) {
		parts = append(parts, "put NVIDIA's CUDA 13 libraries into "+filepath.Join(dir, "cuda")+" (make onnx-cuda fetches them)")
	}
	if slices.ContainsFunc(faults, noDriver) {
		parts = append(parts, "install the NVIDIA driver and give the container the GPU (docker run --gpus all)")
	}
	return strings.Join(parts, "; ")
}

// cudaErrorInsufficientDriver of driver_types.h.
const oldDriver = 35

func checkGPU(cudart unsafe.Pointer, device int) error {
	if cudart == nil {
		return nil // the provider has its runtime inside; it will say so itself
	}
	var n C.int
	var text *C.char
	switch code := C.ort_gpus(cudart, &n, &text); {
	case code == oldDriver:
		return &CUDAFault{fmt.Sprintf("the NVIDIA driver does not work with this CUDA runtime: %s (CUDA error %d)", C.GoString(text), code),
			"install an NVIDIA driver for CUDA 13 (version 580 or newer)", true}
	case code > 0:
		return fault("give the container a GPU (docker run --gpus all) and check CUDA_VISIBLE_DEVICES and nvidia-smi",
			"no GPU device: %s (CUDA error %d)", C.GoString(text), code)
	case code == 0 && device >= int(n):
		return fault("choose a smaller number, or make more GPUs visible with CUDA_VISIBLE_DEVICES",
			"there is no device cuda:%d: %d GPUs are visible, counted from 0", device, n)
	}
	return nil
}
