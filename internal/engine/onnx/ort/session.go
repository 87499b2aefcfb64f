package ort

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unsafe"
)

// ElementType is an ONNXTensorElementDataType.
type ElementType int

// The element types that language models use.
const (
	Float32  ElementType = C.ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
	Int32    ElementType = C.ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32
	Int64    ElementType = C.ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64
	Float16  ElementType = C.ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
	BFloat16 ElementType = C.ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16
)

// Size is the bytes of one element, 0 for a type that is not listed here.
func (t ElementType) Size() int {
	switch t {
	case Int64:
		return 8
	case Float32, Int32:
		return 4
	case Float16, BFloat16:
		return 2
	}
	return 0
}

// ValueInfo describes one input or output of a model.
type ValueInfo struct {
	Name  string
	Type  ElementType
	Shape []int64 // -1 where the size is not fixed
}

// SessionConfig says how a model is loaded.
type SessionConfig struct {
	Threads int  // intra-op threads; 0 lets the library choose
	Spin    bool // idle threads spin for work
	// CUDA runs the model on GPU Device. A session whose products and
	// attention did not all end on the GPU is refused.
	CUDA   bool
	Device int
	// Entries are more session options by their ORT names.
	Entries map[string]string
}

// Session is a loaded model. Run may be called by one goroutine at a time.
type Session struct {
	lib     *Library
	ptr     *C.OrtSession
	mem     *C.OrtMemoryInfo // where outputs are wanted: always the host
	dev     *C.OrtMemoryInfo // where device buffers live; nil on the CPU
	inputs  []ValueInfo
	outputs []ValueInfo
	huge    int // bytes in huge pages
}

// NewSession loads the model file at path.
func (l *Library) NewSession(path string, c SessionConfig) (*Session, error) {
	if c.CUDA {
		if err := l.CheckCUDA(c.Device); err != nil {
			return nil, err
		}
	}
	s := &Session{lib: l}
	before, _ := anonymous() // without it, nothing is moved
	if err := s.create(path, c); err != nil {
		if c.CUDA && aboutCUDA(err) {
			return nil, fmt.Errorf("%w: %w", ErrNoCUDA, err)
		}
		return nil, err
	}
	if err := s.describe(c); err != nil {
		s.Close()
		return nil, err
	}
	if !c.CUDA && before != nil {
		s.huge = collapse(before)
	}
	return s, nil
}

// HugePageBytes is how much of the packed weights lies in huge pages.
func (s *Session) HugePageBytes() int { return s.huge }

func (s *Session) create(path string, c SessionConfig) error {
	entries := map[string]string{
		"session.intra_op.allow_spinning": strconv.Itoa(b2i(c.Spin)),
		// Denormals cost hundreds of cycles each and carry nothing here.
		"session.set_denormal_as_zero": "1",
	}
	if c.CUDA {
		entries["session.record_ep_graph_assignment_info"] = "1"
	}
	maps.Copy(entries, c.Entries)
	keys, values, free := cStrings(entries)
	defer free()
	cuda := cudaOptions(c.Device)
	cudaKeys, cudaValues, freeCUDA := cStrings(cuda)
	defer freeCUDA()
	cfg := C.ort_session_config{
		threads: C.int(c.Threads), level: C.ORT_ENABLE_ALL,
		keys: keys, values: values, entries: C.size_t(len(entries)),
		cuda: C.int(b2i(c.CUDA)), cuda_keys: cudaKeys, cuda_values: cudaValues, cuda_entries: C.size_t(len(cuda)),
	}
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	return s.lib.check(C.ort_session(s.lib.api, s.lib.env, p, &cfg, &s.ptr))
}

func (s *Session) describe(c SessionConfig) (err error) {
	if err := s.lib.check(C.ort_memory_info(s.lib.api, 0, 0, &s.mem)); err != nil {
		return err
	}
	if c.CUDA {
		if err := s.onDevice(); err != nil {
			return err
		}
		if err := s.lib.check(C.ort_memory_info(s.lib.api, 1, C.int(c.Device), &s.dev)); err != nil {
			return err
		}
	}
	if s.inputs, err = s.values(0); err != nil {
		return err
	}
	s.outputs, err = s.values(1)
	return err
}

// onDevice fails when any product or attention of the model ended elsewhere
// than on CUDA: a fallback that nobody notices is a fault.
func (s *Session) onDevice() error {
	p := C.CString("CUDAExecutionProvider")
	defer C.free(unsafe.Pointer(p))
	var nodes, heavy, all C.size_t
	if err := s.lib.check(C.ort_assigned(s.lib.api, s.ptr, p, &nodes, &heavy, &all)); err != nil {
		return fmt.Errorf("%w: read node assignment: %w", ErrNoCUDA, err)
	}
	if heavy == 0 || heavy < all {
		return fmt.Errorf("%w: %d of %d", ErrNotOnCUDA, all-heavy, all)
	}
	return nil
}

func (s *Session) values(output C.int) ([]ValueInfo, error) {
	var n C.size_t
	if err := s.lib.check(C.ort_value_count(s.lib.api, s.ptr, output, &n)); err != nil {
		return nil, err
	}
	list := make([]ValueInfo, 0, n)
	for i := range n {
		const maxRank = 8
		var name *C.char
		var typ C.int
		var shape [maxRank]int64
		var rank C.size_t
		err := s.lib.check(C.ort_value_info(s.lib.api, s.ptr, output, i, &name, &typ, (*C.int64_t)(&shape[0]), maxRank, &rank))
		v := ValueInfo{Name: C.GoString(name), Type: ElementType(typ)}
		C.free(unsafe.Pointer(name))
		if err != nil {
			return nil, err
		}
		if rank <= maxRank {
			v.Shape = slices.Clone(shape[:rank])
		}
		list = append(list, v)
	}
	return list, nil
}

// Inputs describes the model's inputs, in the model's order.
func (s *Session) Inputs() []ValueInfo { return s.inputs }

// Outputs describes the model's outputs, in the model's order.
func (s *Session) Outputs() []ValueInfo { return s.outputs }

// Close frees the session. Bindings must have been closed.
func (s *Session) Close() {
	if s.ptr != nil {
		C.ort_session_free(s.lib.api, s.ptr)
	}
	if s.mem != nil {
		C.ort_memory_info_free(s.lib.api, s.mem)
	}
	if s.dev != nil {
		C.ort_memory_info_free(s.lib.api, s.dev)
	}
	*s = Session{lib: s.lib}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// cStrings copies a map into two C arrays; free releases them.
func cStrings(m map[string]string) (keys, values **C.char, free func()) {
	n := max(len(m), 1)
	size := C.size_t(n) * C.size_t(unsafe.Sizeof(uintptr(0)))
	keys, values = (**C.char)(C.calloc(size, 1)), (**C.char)(C.calloc(size, 1))
	k, v := unsafe.Slice(keys, n), unsafe.Slice(values, n)
	for i, key := range slices.Sorted(maps.Keys(m)) {
		k[i], v[i] = C.CString(key), C.CString(m[key])
	}
	return keys, values, func() {
		for i := range n {
			C.free(unsafe.Pointer(k[i]))
			C.free(unsafe.Pointer(v[i]))
		}
		C.free(unsafe.Pointer(keys))
		C.free(unsafe.Pointer(values))
	}
}
