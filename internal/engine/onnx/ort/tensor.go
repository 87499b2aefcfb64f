package ort

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffer is memory that outlives any run: a KV cache, an input that is filled
// again and again. Host buffers are anonymous mappings, so pages that were
// never written cost nothing.
type Buffer struct {
	s     *Session
	ptr   unsafe.Pointer
	size  int
	host  []byte
	alloc *C.OrtAllocator
}

// NewBuffer returns size bytes where the session keeps its state: in device
// memory for a CUDA session, on the host otherwise. The content is zero on the
// host and undefined on a device.
func (s *Session) NewBuffer(size int) (*Buffer, error) {
	if s.dev == nil {
		return s.NewHostBuffer(size)
	}
	b := &Buffer{s: s, size: size}
	err := s.lib.check(C.ort_device_alloc(s.lib.api, s.ptr, s.dev, C.size_t(size), &b.alloc, &b.ptr))
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes on the device: %w", size, err)
	}
	return b, nil
}

// NewHostBuffer returns size zero bytes on the host, committed page by page as
// they are written.
func (s *Session) NewHostBuffer(size int) (*Buffer, error) {
	m, err := unix.Mmap(-1, 0, max(size, 1), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	return &Buffer{s: s, ptr: unsafe.Pointer(&m[0]), size: size, host: m}, nil
}

// Bytes is the memory of a host buffer, nil for a device buffer.
func (b *Buffer) Bytes() []byte { return b.host }

// Int64s is the memory of a host buffer as integers.
func (b *Buffer) Int64s() []int64 {
	return unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(b.host))), len(b.host)/8) // page-aligned
}

// Close frees the memory. Tensors over it must have been closed.
func (b *Buffer) Close() {
	if b.host != nil {
		_ = unix.Munmap(b.host) // our own mapping, whole: cannot be refused
	} else if b.ptr != nil {
		C.ort_device_free(b.s.lib.api, b.alloc, b.ptr)
	}
	b.ptr, b.host = nil, nil
}

// Tensor is a typed, shaped view of memory that it does not own, except when
// it came from Binding.Output.
type Tensor struct {
	lib   *Library
	ptr   *C.OrtValue
	data  unsafe.Pointer
	Type  ElementType
	Shape []int64
}

// Tensor returns a view of b that begins at a byte offset.
func (b *Buffer) Tensor(t ElementType, offset int, shape ...int64) (*Tensor, error) {
	n := int64(t.Size())
	for _, d := range shape {
		n *= d
	}
	if n < 0 || offset < 0 || int64(offset)+n > int64(b.size) {
		return nil, fmt.Errorf("tensor of %d bytes at %d leaves its buffer of %d", n, offset, b.size)
	}
	mem := b.s.mem
	if b.host == nil {
		mem = b.s.dev
	}
	v := &Tensor{lib: b.s.lib, data: unsafe.Add(b.ptr, offset), Type: t, Shape: shape}
	err := b.s.lib.check(C.ort_tensor(b.s.lib.api, mem, v.data, C.size_t(n),
		(*C.int64_t)(unsafe.SliceData(shape)), C.size_t(len(shape)), C.int(t), &v.ptr))
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Elements is the product of the shape.
func (t *Tensor) Elements() int {
	n := 1
	for _, d := range t.Shape {
		n *= int(d)
	}
	return n
}

// Float32s is the content of a host tensor of that type, without a copy. It is
// valid until Close.
func (t *Tensor) Float32s() []float32 { return unsafe.Slice((*float32)(t.data), t.Elements()) }

// Uint16s is the content of a host tensor of a 16-bit type, without a copy.
func (t *Tensor) Uint16s() []uint16 { return unsafe.Slice((*uint16)(t.data), t.Elements()) }

// Int64s is the content of a host tensor of that type, without a copy.
func (t *Tensor) Int64s() []int64 { return unsafe.Slice((*int64)(t.data), t.Elements()) }

// Close frees the view, and the memory when it came from Binding.Output.
func (t *Tensor) Close() {
	if t.ptr != nil {
		C.ort_value_free(t.lib.api, t.ptr)
		t.ptr = nil
	}
}
