// Package gguftest writes small GGUF files for tests: whole tiny Llama models
// with random weights and a working tokenizer, and files that are wrong in a
// way that the caller chooses.
package gguftest

import (
	"encoding/binary"
	"fmt"
	"os"
)

var le = binary.LittleEndian

// Key is one entry of the metadata. Value may be string, bool, uint32, int32,
// uint64, float32, []string, []int32, or Raw.
type Key struct {
	Name  string
	Value any
}

// Raw is a metadata value written as it is: its type number and its bytes.
type Raw struct {
	Kind uint32
	Data []byte
}

// Tensor is one entry of the tensor directory with its data.
type Tensor struct {
	Name   string
	Dims   []uint64 // the fastest first
	Type   Type
	Data   []byte
	Offset *uint64 // nil: where the data is; otherwise what the directory claims
}

// File is a GGUF file, by default a well-formed one of version 3.
type File struct {
	Magic     string // "" is "GGUF"
	Version   uint32 // 0 is 3
	Keys      []Key
	Tensors   []Tensor
	NKeys     *uint64 // what the header claims; nil: the truth
	NTensors  *uint64
	Alignment int // 0 is 32, the format's default
}

// Bytes encodes the file (ggml-org/ggml, docs/gguf.md).
func (f File) Bytes() []byte {
	magic, version, align := f.Magic, f.Version, f.Alignment
	if magic == "" {
		magic = "GGUF"
	}
	if version == 0 {
		version = 3
	}
	if align == 0 {
		align = 32
	}
	nKeys, nTensors := uint64(len(f.Keys)), uint64(len(f.Tensors))
	if f.NKeys != nil {
		nKeys = *f.NKeys
	}
	if f.NTensors != nil {
		nTensors = *f.NTensors
	}
	out := le.AppendUint32([]byte(magic), version)
	out = le.AppendUint64(le.AppendUint64(out, nTensors), nKeys)
	for _, k := range f.Keys {
		out = appendValue(appendString(out, k.Name), k.Value)
	}
	var data []byte
	for _, t := range f.Tensors {
		data = pad(data, align)
		offset := uint64(len(data))
		if t.Offset != nil {
			offset = *t.Offset
		}
		data = append(data, t.Data...)
		out = le.AppendUint32(appendString(out, t.Name), uint32(len(t.Dims)))
		for _, d := range t.Dims {
			out = le.AppendUint64(out, d)
		}
		out = le.AppendUint64(le.AppendUint32(out, uint32(t.Type)), offset)
	}
	return append(pad(out, align), data...)
}

// Write writes the file to path.
func (f File) Write(path string) error { return os.WriteFile(path, f.Bytes(), 0o644) }

// Set replaces the metadata key, adds it, or removes it when value is nil.
func (f *File) Set(name string, value any) {
	for i, k := range f.Keys {
		if k.Name != name {
			continue
		}
		if value == nil {
			f.Keys = append(f.Keys[:i:i], f.Keys[i+1:]...)
			return
		}
		f.Keys[i].Value = value
		return
	}
	if value != nil {
		f.Keys = append(f.Keys, Key{name, value})
	}
}

// Tensor returns the tensor of that name to be changed, or nil.
func (f *File) Tensor(name string) *Tensor {
	for i := range f.Tensors {
		if f.Tensors[i].Name == name {
			return &f.Tensors[i]
		}
	}
	return nil
}

func pad(b []byte, align int) []byte {
	for len(b)%align != 0 {
		b = append(b, 0)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(le.AppendUint64(b, uint64(len(s))), s...)
}

// appendValue writes a value behind its type number.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case Raw:
		return append(le.AppendUint32(b, v.Kind), v.Data...)
	case uint32:
		return le.AppendUint32(le.AppendUint32(b, 4), v)
	case int32:
		return le.AppendUint32(le.AppendUint32(b, 5), uint32(v))
	case float32:
		return appendFloat(le.AppendUint32(b, 6), v)
	case bool:
		b = le.AppendUint32(b, 7)
		if v {
			return append(b, 1)
		}
		return append(b, 0)
	case string:
		return appendString(le.AppendUint32(b, 8), v)
	case uint64:
		return le.AppendUint64(le.AppendUint32(b, 10), v)
	case []string:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, 9), 8), uint64(len(v)))
		for _, s := range v {
			b = appendString(b, s)
		}
		return b
	case []int32:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, 9), 5), uint64(len(v)))
		for _, n := range v {
			b = le.AppendUint32(b, uint32(n))
		}
		return b
	}
	panic(fmt.Sprintf("gguftest: no metadata value of type %T", v))
}
