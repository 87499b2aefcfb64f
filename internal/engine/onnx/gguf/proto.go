package gguf

import (
	"encoding/binary"
	"math"
)

// message is a protobuf message being written. Its methods append one field
// each; the field numbers at the call sites are those of onnx.proto.
type message []byte

func (m *message) tag(field, wire int) { *m = binary.AppendUvarint(*m, uint64(field)<<3|uint64(wire)) }

func (m *message) int(field int, v int64) {
	m.tag(field, 0)
	*m = binary.AppendUvarint(*m, uint64(v))
}

func (m *message) float(field int, f float32) {
	m.tag(field, 5)
	*m = le.AppendUint32(*m, math.Float32bits(f))
}

func (m *message) bytes(field int, b []byte) {
	m.tag(field, 2)
	*m = binary.AppendUvarint(*m, uint64(len(b)))
	*m = append(*m, b...)
}

func (m *message) str(field int, s string) { m.bytes(field, []byte(s)) }
