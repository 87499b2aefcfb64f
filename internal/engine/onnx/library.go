package onnx

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

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

// wantCUDA decides the device: cuda is an order, auto takes CUDA when the
// library has it and the driver's device node is there.
func wantCUDA(cfg Config, lib *ort.Library) bool {
	switch cfg.Device {
	case "cuda":
		return true
	case "cpu":
		return false
	}
	if !lib.HasCUDA() {
		return false
	}
	_, err := os.Stat("/dev/nvidiactl")
	return err == nil
}

// sessionFailure types the error of loading a graph.
func sessionFailure(path string, err error) *engine.Failure {
	f := &engine.Failure{Err: err, Message: fmt.Sprintf("load %s: %v", path, err)}
	switch {
	case errors.Is(err, ort.ErrNoCUDA):
		f.Cause = engine.CauseDeviceUnavailable
		f.Remedy = "give the container a GPU and the CUDA build of ONNX Runtime with its CUDA 13 libraries, or run with --device cpu"
	default:
		f.Cause = engine.CauseModelInvalid
		f.Remedy = "fetch or convert the model again; if it is new, check that this ONNX Runtime knows its operators"
	}
	return f
}
