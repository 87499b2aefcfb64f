package ort

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// Binding ties tensors to a model's inputs and outputs for many runs.
type Binding struct {
	s       *Session
	ptr     *C.OrtIoBinding
	names   map[string]*C.char
	outputs []string // in the order they were first bound
}

// NewBinding returns an empty binding.
func (s *Session) NewBinding() (*Binding, error) {
	b := &Binding{s: s, names: map[string]*C.char{}}
	if err := s.lib.check(C.ort_binding(s.lib.api, s.ptr, &b.ptr)); err != nil {
		return nil, err
	}
	return b, nil
}

// Input binds t to the input of that name, in place of an earlier tensor.
func (b *Binding) Input(name string, t *Tensor) error {
	return b.s.lib.check(C.ort_bind(b.s.lib.api, b.ptr, 0, b.name(name), t.ptr))
}

// Output binds t to the output of that name: the run writes into it. Binding
// the tensor that is also an input updates it in place where the operator
// allows that, as GroupQueryAttention does for its KV cache.
func (b *Binding) Output(name string, t *Tensor) error {
	b.order(name)
	return b.s.lib.check(C.ort_bind(b.s.lib.api, b.ptr, 1, b.name(name), t.ptr))
}

// OutputToHost lets the run allocate the output of that name on the host. It
// must be called again before each run whose output shape may differ.
func (b *Binding) OutputToHost(name string) error {
	b.order(name)
	return b.s.lib.check(C.ort_bind_device(b.s.lib.api, b.ptr, b.name(name), b.s.mem))
}

func (b *Binding) order(name string) {
	if !slices.Contains(b.outputs, name) {
		b.outputs = append(b.outputs, name)
	}
}

// Fetch returns the output of that name after a run. The caller closes it.
func (b *Binding) Fetch(name string) (*Tensor, error) {
	i := slices.Index(b.outputs, name)
	if i < 0 {
		return nil, fmt.Errorf("output %q is not bound", name)
	}
	t := &Tensor{lib: b.s.lib}
	if err := b.s.lib.check(C.ort_bound_output(b.s.lib.api, b.ptr, C.size_t(i), &t.ptr)); err != nil {
		return nil, err
	}
	if t.ptr == nil {
		return nil, fmt.Errorf("output %q is empty; bind it and run first", name)
	}
	const maxRank = 8
	var shape [maxRank]int64
	var rank C.size_t
	var typ C.int
	err := b.s.lib.check(C.ort_tensor_info(b.s.lib.api, t.ptr, &t.data, &typ, (*C.int64_t)(&shape[0]), maxRank, &rank))
	if err != nil || rank > maxRank {
		t.Close()
		return nil, fmt.Errorf("describe output %q of rank %d: %w", name, rank, err)
	}
	t.Type, t.Shape = ElementType(typ), slices.Clone(shape[:rank])
	return t, nil
}

// name keeps a C copy of each name for the life of the binding.
func (b *Binding) name(s string) *C.char {
	c, ok := b.names[s]
	if !ok {
		c = C.CString(s)
		b.names[s] = c
	}
	return c
}

// Close frees the binding, not the tensors.
func (b *Binding) Close() {
	C.ort_binding_free(b.s.lib.api, b.ptr)
	for _, c := range b.names {
		C.free(unsafe.Pointer(c))
	}
	b.names = nil
}

// Matrix is an input of int64 and the memory that it is read from.
type Matrix struct {
	Name       string
	Buffer     *Buffer
	Rows, Cols int
}

// Matrices binds inputs that are read from the beginning of their buffers, in
// place of earlier ones. free lets go of them; it is to be called after the
// run, also when there is an error.
func (b *Binding) Matrices(inputs ...Matrix) (free func(), err error) {
	var views []*Tensor
	free = func() {
		for _, v := range views {
			v.Close()
		}
	}
	for _, in := range inputs {
		v, err := in.Buffer.Tensor(Int64, 0, int64(in.Rows), int64(in.Cols))
		if err != nil {
			return free, fmt.Errorf("input %q: %w", in.Name, err)
		}
		views = append(views, v)
		if err := b.Input(in.Name, v); err != nil {
			return free, fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	return free, nil
}

// Run executes the model once over b. It blocks in C. When ctx ends, so does
// the run, before its next operator and with ctx's cause.
func (s *Session) Run(ctx context.Context, b *Binding) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o, err := s.lib.newRunOptions()
	if err != nil {
		return err
	}
	defer o.close()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(stopped); o.terminate() })
	err = s.run(b, o)
	if !stop() {
		<-stopped // the options must not be freed under it
	}
	if errors.Is(err, errTerminated) {
		return context.Cause(ctx)
	}
	return err
}

// errTerminated is returned by a run that was terminated.
var errTerminated = errors.New("run terminated")

func (s *Session) run(b *Binding, o *runOptions) error {
	err := s.lib.check(C.ort_run(s.lib.api, s.ptr, o.ptr, b.ptr))
	if se, ok := errors.AsType[*StatusError](err); ok && strings.Contains(se.Message, "terminate flag") {
		return errTerminated
	}
	return err
}

// runOptions let another goroutine end a run.
type runOptions struct {
	lib *Library
	ptr *C.OrtRunOptions
}

func (l *Library) newRunOptions() (*runOptions, error) {
	o := &runOptions{lib: l}
	if err := l.check(C.ort_run_options(l.api, &o.ptr)); err != nil {
		return nil, err
	}
	return o, nil
}

// terminate ends the run that uses o before its next operator, and every later
// one. Any goroutine may call it before close.
func (o *runOptions) terminate() {
	_ = o.lib.check(C.ort_terminate(o.lib.api, o.ptr)) // sets a flag; has no error to report
}

func (o *runOptions) close() { C.ort_run_options_free(o.lib.api, o.ptr) }
