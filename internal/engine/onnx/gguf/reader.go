package gguf

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// reader reads the head of a GGUF file and never believes a length before it
// has compared it with what is left of the file.
type reader struct {
	r    *bufio.Reader
	pos  int64
	size int64
	err  error // the first fault; every later read returns zero values
}

func newReader(r io.ReaderAt, size int64) *reader {
	return &reader{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<16), size: size}
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: at byte %d: %s", ErrInvalid, r.pos, fmt.Sprintf(format, args...))
	}
}

func (r *reader) left() uint64 { return uint64(r.size - r.pos) }

// read fills b, or fails and leaves zeros.
func (r *reader) read(b []byte) {
	if r.err != nil {
		clear(b)
		return
	}
	n, err := io.ReadFull(r.r, b)
	r.pos += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		clear(b)
		r.fail("the file ends early")
	} else if err != nil {
		clear(b)
		r.err = fmt.Errorf("read gguf: %w", err)
	}
}

func (r *reader) skip(n uint64) {
	if r.err != nil {
		return
	}
	if n > r.left() {
		r.fail("%d bytes promised, %d left", n, r.left())
		return
	}
	for n > 0 {
		step := int(min(n, 1<<30))
		d, err := r.r.Discard(step)
		r.pos += int64(d)
		if err != nil {
			r.fail("the file ends early")
			return
		}
		n -= uint64(d)
	}
}

func (r *reader) u8() uint8 {
	var b [1]byte
	r.read(b[:])
	return b[0]
}

func (r *reader) u16() uint16 {
	var b [2]byte
	r.read(b[:])
	return binary.LittleEndian.Uint16(b[:])
}

func (r *reader) u32() uint32 {
	var b [4]byte
	r.read(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (r *reader) u64() uint64 {
	var b [8]byte
	r.read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// str reads a string; what names it in the fault.
func (r *reader) str(what string, longest uint64) string {
	n := r.u64()
	if r.err != nil {
		return ""
	}
	if n > longest || n > r.left() {
		r.fail("%s of %d bytes, %d left", what, n, r.left())
		return ""
	}
	b := make([]byte, n)
	r.read(b)
	return string(b)
}

// The value types of GGUF metadata (docs/gguf.md, enum gguf_metadata_value_type).
const (
	kindU8 = iota
	kindI8
	kindU16
	kindI16
	kindU32
	kindI32
	kindF32
	kindBool
	kindString
	kindArray
	kindU64
	kindI64
	kindF64
)

// kindBytes is the size of one value; a string counts as its length prefix,
// which is the least it can take.
func kindBytes(kind uint32) uint64 {
	switch kind {
	case kindU8, kindI8, kindBool:
		return 1
	case kindU16, kindI16:
		return 2
	case kindU32, kindI32, kindF32:
		return 4
	case kindString, kindU64, kindI64, kindF64:
		return 8
	}
	return 0
}

// scalar reads one value as int64, uint64, float64, bool or string.
func (r *reader) scalar(kind uint32) any {
	switch kind {
	case kindU8:
		return uint64(r.u8())
	case kindI8:
		return int64(int8(r.u8()))
	case kindU16:
		return uint64(r.u16())
	case kindI16:
		return int64(int16(r.u16()))
	case kindU32:
		return uint64(r.u32())
	case kindI32:
		return int64(int32(r.u32()))
	case kindF32:
		return float64(math.Float32frombits(r.u32()))
	case kindBool:
		return r.u8() != 0
	case kindString:
		return r.str("string", math.MaxInt64)
	case kindU64:
		return r.u64()
	case kindI64:
		return int64(r.u64())
	case kindF64:
		return math.Float64frombits(r.u64())
	}
	r.fail("unknown value type %d", kind)
	return nil
}

// array reads an array of strings or 32-bit integers when keep is set, and
// steps over every other one. What it returns is nil, []string or []int32.
func (r *reader) array(keep bool) any {
	kind, n := r.u32(), r.u64()
	if r.err != nil {
		return nil
	}
	if kind == kindArray {
		r.fail("array of arrays")
		return nil
	}
	size := kindBytes(kind)
	if size == 0 {
		r.fail("array of unknown type %d", kind)
		return nil
	}
	if n > r.left()/size {
		r.fail("array of %d values, %d bytes left", n, r.left())
		return nil
	}
	switch {
	case keep && kind == kindString:
		return r.strings(n)
	case keep && (kind == kindI32 || kind == kindU32):
		out := make([]int32, n)
		for i := range out {
			out[i] = int32(r.u32())
		}
		return out
	case kind == kindString:
		for i := uint64(0); i < n && r.err == nil; i++ {
			r.skip(r.u64())
		}
	default:
		r.skip(n * size)
	}
	return nil
}

func (r *reader) strings(n uint64) []string {
	out := make([]string, 0, n)
	for i := uint64(0); i < n && r.err == nil; i++ {
		out = append(out, r.str("string", math.MaxInt64))
	}
	return out
}
