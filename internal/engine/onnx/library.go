package onnx

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"infer/internal/engine"
	"infer/internal/engine/onnx/ort"
)

// libraryName is what dlopen looks for on the loader's path.
const libraryName = "libonnxruntime.so.1"

// openLibrary loads ONNX Runtime from the configured path, or from beside the
// program, or from the loader's search path. Every error is a *engine.Failure.
func openLibrary(cfg Config, log *slog.Logger) (*ort.Library, error) {
	path := cfg.Library
	if path == "" {
		path = besideProgram()
	}
	lib, err := ort.Open(path, log)
	switch {
	case errors.Is(err, ort.ErrLibraryTooOld):
		return nil, &engine.Failure{Cause: engine.CauseLibraryTooOld, Err: err, Message: err.Error(),
			Remedy: "install ONNX Runtime " + ort.MinVersion + " or newer and name it with --onnx-library"}
	case err != nil:
		return nil, &engine.Failure{Cause: engine.CauseLibraryMissing, Err: err, Message: err.Error(),
			Remedy: "name libonnxruntime.so with --onnx-library (the PyPI package onnxruntime holds it under capi/), or put it on LD_LIBRARY_PATH"}
	}
	return lib, nil
}

func besideProgram() string {
	if exe, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(exe), libraryName)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return libraryName
}

// sessionFailure types the error of loading a graph.
func sessionFailure(path string, err error) *engine.Failure {
	f := &engine.Failure{Err: err, Message: fmt.Sprintf("load %s: %v", path, err)}
	switch {
	case errors.Is(err, ort.ErrNoCUDA) && outOfMemory(err):
		f.Cause = engine.CauseOutOfMemoryAtStart
		f.Remedy = "free memory of the GPU, choose a smaller model, or run with --device cpu"
	case errors.Is(err, ort.ErrNoCUDA):
		cuda := cudaFailure(err)
		f.Cause, f.Remedy = cuda.Cause, cuda.Remedy
	default:
		f.Cause = engine.CauseModelInvalid
		f.Remedy = "fetch or convert the model again; if it is new, check that this ONNX Runtime knows its operators"
	}
	return f
}

// outOfMemory knows the words of the CUDA runtime (cudaErrorMemoryAllocation)
// and of ONNX Runtime's arena (bfc_arena.cc).
func outOfMemory(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "out of memory") || strings.Contains(text, "failed to allocate memory")
}
