// Package ort calls the C API of ONNX Runtime, loaded with dlopen at run time:
// sessions on the CPU or CUDA, tensors that are views of long-lived memory,
// bound runs that can be cancelled. It is what the public Go binding lacks for
// a KV cache that is shared between steps and may live on a device.
package ort

/*
#cgo CFLAGS: -O2 -Wall
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/cgo"
	"slices"
	"unsafe"
)

// MinVersion is the oldest library that has every function used here
// (OrtApi version 29, the version of the headers in include/).
const MinVersion = "1.29"

var (
	// ErrLibraryMissing is returned when the library or something it links
	// cannot be loaded.
	ErrLibraryMissing = errors.New("ONNX Runtime library cannot be loaded")
	// ErrLibraryTooOld is returned when the library lacks the needed API.
	ErrLibraryTooOld = errors.New("ONNX Runtime library is too old")
	// ErrNoCUDA is returned when CUDA was asked for and cannot be used: the
	// library was built without it, one of its own libraries is missing, there
	// is no GPU, or the model's work did not end on it.
	ErrNoCUDA = errors.New("CUDA cannot be used")
	// ErrNotOnCUDA is returned when the model loads but would compute on the
	// CPU. It matches ErrNoCUDA.
	ErrNotOnCUDA = fmt.Errorf("%w: products or attentions of the model ended on the CPU", ErrNoCUDA)
)

// Library is a loaded ONNX Runtime with its environment. It is safe for
// concurrent use.
type Library struct {
	api     *C.OrtApi
	env     *C.OrtEnv
	version string
	log     cgo.Handle
}

// Open loads the library at path, which dlopen also looks up on the loader's
// search path when it holds no slash. The library's own messages go to log.
func Open(path string, log *slog.Logger) (*Library, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	l := C.ort_open(p)
	if l.error != nil {
		defer C.free(unsafe.Pointer(l.error))
		return nil, fmt.Errorf("%w: %s", ErrLibraryMissing, C.GoString(l.error))
	}
	version := C.GoString(l.version)
	if l.api == nil {
		return nil, fmt.Errorf("%w: %s is version %s, need %s or newer", ErrLibraryTooOld, path, version, MinVersion)
	}
	lib := &Library{api: l.api, version: version, log: cgo.NewHandle(log)}
	if err := lib.check(C.ort_env(l.api, C.uintptr_t(lib.log), C.ORT_LOGGING_LEVEL_WARNING, &lib.env)); err != nil {
		lib.log.Delete()
		return nil, fmt.Errorf("create environment: %w", err)
	}
	return lib, nil
}

// Close frees the environment. Sessions must have been closed. The shared
// object itself stays loaded, since its threads may still unwind.
func (l *Library) Close() {
	C.ort_env_free(l.api, l.env)
	l.log.Delete()
}

// Version is the library's own version, such as 1.32.0.
func (l *Library) Version() string { return l.version }

// HasCUDA says whether the library was built with the CUDA provider. Whether
// its parts load and a GPU is there is known only when a session is created.
func (l *Library) HasCUDA() bool {
	var names **C.char
	var n C.int
	if l.check(C.ort_providers(l.api, &names, &n)) != nil {
		return false
	}
	defer C.ort_providers_free(l.api, names, n)
	return slices.ContainsFunc(unsafe.Slice(names, n), func(s *C.char) bool {
		return C.GoString(s) == "CUDAExecutionProvider"
	})
}

// StatusError is an error of ONNX Runtime with its OrtErrorCode.
type StatusError struct {
	Code    int
	Message string
}

// Error returns ONNX Runtime's message.
func (e *StatusError) Error() string { return e.Message }

// check turns a status into an error and frees it.
func (l *Library) check(s *C.OrtStatus) error {
	if s == nil {
		return nil
	}
	defer C.ort_status_free(l.api, s)
	return &StatusError{Code: int(C.ort_status_code(l.api, s)), Message: C.GoString(C.ort_status_message(l.api, s))}
}

//export goOrtLog
func goOrtLog(handle C.uintptr_t, level C.int, where, message *C.char) {
	log, ok := cgo.Handle(handle).Value().(*slog.Logger)
	if !ok {
		return
	}
	attrs := []any{"where", C.GoString(where), "message", C.GoString(message)}
	if level >= C.ORT_LOGGING_LEVEL_ERROR {
		log.Error("onnx runtime", attrs...)
		return
	}
	log.Warn("onnx runtime", attrs...)
}
