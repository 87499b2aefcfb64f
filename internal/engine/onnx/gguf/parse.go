package gguf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
)

// Bounds on what a real file holds. The largest models have a few thousand
// tensors; the limits keep bookkeeping small for a file that lies.
const (
	maxKeys       = 1 << 16
	maxTensors    = 1 << 16
	maxKeyBytes   = 1<<16 - 1 // docs/gguf.md
	maxNameBytes  = 1 << 10   // the specification says 64
	maxDims       = 4
	maxAlignBytes = 1 << 20
)

// keptArrays are the arrays that the importer reads; all others are skipped.
var keptArrays = []string{keyTokens, keyTokenTypes, keyMerges}

// file is the checked head of a GGUF file.
type file struct {
	r         io.ReaderAt
	size      int64
	meta      metadata
	tensors   []tensor
	byName    map[string]*tensor
	dataStart int64
}

// parse reads header, metadata and tensor directory.
func parse(r io.ReaderAt, size int64) (*file, error) {
	rd := newReader(r, size)
	magic := string([]byte{rd.u8(), rd.u8(), rd.u8(), rd.u8()})
	if magic != "GGUF" {
		return nil, fmt.Errorf("%w: not a GGUF file (it begins with %q)", ErrInvalid, magic)
	}
	version := rd.u32()
	if rd.err == nil && version != 2 && version != 3 {
		return nil, fmt.Errorf("%w: GGUF version %s; convert the model again with a current llama.cpp, little-endian",
			ErrUnsupported, versionName(version))
	}
	nTensors, nKeys := rd.u64(), rd.u64()
	// The least a key (length, type, one byte) or a tensor (length, count of
	// dims, one dim, type, offset) can take.
	if nKeys > min(maxKeys, rd.left()/13) || nTensors > min(maxTensors, rd.left()/32) {
		rd.fail("%d keys and %d tensors in a file of %d bytes", nKeys, nTensors, size)
	}
	f := &file{r: r, size: size, byName: map[string]*tensor{}}
	f.readMeta(rd, nKeys)
	f.readTensors(rd, nTensors)
	if rd.err != nil {
		return nil, rd.err
	}
	if err := f.place(rd.pos); err != nil {
		return nil, err
	}
	return f, nil
}

func versionName(v uint32) string {
	if v&0xffff == 0 {
		return fmt.Sprintf("%d, big-endian", bits.ReverseBytes32(v))
	}
	return fmt.Sprint(v)
}

func (f *file) readMeta(rd *reader, n uint64) {
	f.meta = metadata{}
	if rd.err != nil {
		return
	}
	for range n {
		key := rd.str("key", maxKeyBytes)
		kind := rd.u32()
		var v any
		if kind == kindArray {
			v = rd.array(slices.Contains(keptArrays, key))
		} else {
			v = rd.scalar(kind)
		}
		if _, twice := f.meta[key]; twice {
			rd.fail("key %q twice", key)
		}
		if rd.err != nil {
			return
		}
		f.meta[key] = v
	}
}

func (f *file) readTensors(rd *reader, n uint64) {
	if rd.err != nil {
		return
	}
	f.tensors = make([]tensor, n)
	for i := range f.tensors {
		t := &f.tensors[i]
		t.name = rd.str("tensor name", maxNameBytes)
		nd := rd.u32()
		if nd < 1 || nd > maxDims {
			rd.fail("tensor %q has %d dimensions", t.name, nd)
			return
		}
		t.dims = make([]uint64, nd)
		for d := range t.dims {
			t.dims[d] = rd.u64()
		}
		t.typ = tensorType(rd.u32())
		off := rd.u64()
		if off > uint64(f.size) {
			rd.fail("tensor %q begins at %d, beyond the end", t.name, off)
		}
		t.offset = int64(off)
		if f.byName[t.name] != nil {
			rd.fail("tensor %q twice", t.name)
		}
		if rd.err != nil {
			return
		}
		f.byName[t.name] = t
	}
}

// place turns the directory's relative offsets into absolute ones and checks
// that every tensor lies inside the file and on no other.
func (f *file) place(headEnd int64) error {
	align := uint64(32)
	if v, ok := f.meta["general.alignment"]; ok {
		a, isInt := v.(uint64)
		if !isInt || a == 0 || a > maxAlignBytes || a&(a-1) != 0 {
			return fmt.Errorf("%w: general.alignment is %v", ErrInvalid, v)
		}
		align = a
	}
	f.dataStart = int64((uint64(headEnd) + align - 1) / align * align)
	if len(f.tensors) > 0 && f.dataStart > f.size {
		return fmt.Errorf("%w: the file ends before its tensors", ErrInvalid)
	}
	sized := make([]*tensor, 0, len(f.tensors))
	for i := range f.tensors {
		t := &f.tensors[i]
		known, err := t.measure(align, f.size-f.dataStart)
		if err != nil {
			return fmt.Errorf("%w: tensor %q: %w", ErrInvalid, t.name, err)
		}
		t.offset += f.dataStart
		if known {
			sized = append(sized, t)
		}
	}
	slices.SortFunc(sized, func(a, b *tensor) int { return cmp.Compare(a.offset, b.offset) })
	for i := 1; i < len(sized); i++ {
		if a, b := sized[i-1], sized[i]; b.offset < a.offset+a.bytes {
			return fmt.Errorf("%w: tensors %q and %q overlap", ErrInvalid, a.name, b.name)
		}
	}
	return nil
}

// measure computes the tensor's size, if its type is one that is imported, and
// checks it against the room that the file has.
func (t *tensor) measure(align uint64, room int64) (known bool, err error) {
	n := uint64(1)
	for _, d := range t.dims {
		hi, lo := bits.Mul64(n, d)
		if hi != 0 || lo == 0 || lo > 1<<48 {
			return false, fmt.Errorf("impossible shape %v", t.dims)
		}
		n = lo
	}
	per, size, ok := t.typ.block()
	if !ok {
		return false, nil
	}
	if t.dims[0]%per != 0 {
		return false, fmt.Errorf("rows of %d are not whole %s blocks", t.dims[0], t.typ)
	}
	if uint64(t.offset)%align != 0 {
		return false, fmt.Errorf("offset %d is not a multiple of %d", t.offset, align)
	}
	t.bytes = int64(n / per * size)
	if t.bytes > room || t.offset > room-t.bytes {
		return false, errors.New("extends beyond the end of the file")
	}
	return true, nil
}

// metadata holds scalars as uint64, int64, float64, bool or string, and the
// kept arrays as []string or []int32.
type metadata map[string]any

// count reads a non-negative integer of any width; ok is false when the key is
// absent or something else.
func (m metadata) count(key string) (n uint64, ok bool) {
	switch v := m[key].(type) {
	case uint64:
		return v, true
	case int64:
		return uint64(v), v >= 0
	}
	return 0, false
}

func (m metadata) float(key string) (float64, bool) {
	v, ok := m[key].(float64)
	return v, ok
}

func (m metadata) text(key string) string {
	s, _ := m[key].(string)
	return s
}

func (m metadata) flag(key string, absent bool) bool {
	if b, ok := m[key].(bool); ok {
		return b
	}
	return absent
}

// under returns the keys that begin with prefix, sorted.
func (m metadata) under(prefix string) []string {
	var out []string
	for k := range m {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
