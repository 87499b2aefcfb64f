package gguf

import (
	"fmt"
	"strconv"
)

// The ONNX element types in use (onnx.proto, TensorProto.DataType).
const (
	elemFloat = 1
	elemUint8 = 2
	elemInt32 = 6
	elemInt64 = 7
	elemHalf  = 10
)

// The versions that the model declares. ONNX Runtime 1.29 and later accept
// both; nothing newer is needed.
const (
	irVersion     = 10
	opsetVersion  = 21
	contribOps    = "com.microsoft"
	weightsFile   = "model.onnx.data"
	producerName  = "infer gguf importer"
	attributeF32  = 1
	attributeInt  = 2
	tensorIsOuter = 1 // TensorProto.DataLocation EXTERNAL
)

// inContrib are the operators of ONNX Runtime's own domain.
var inContrib = map[string]bool{
	"FusedMatMul": true, "GatherBlockQuantized": true, "GroupQueryAttention": true,
	"MatMulNBits": true, "QuickGelu": true, "SkipSimplifiedLayerNormalization": true,
}

// node is one operator. With no outputs named it has one, which node returns.
type node struct {
	op, name string
	in       []string
	out      []string
	ints     map[string]int
	floats   map[string]float32
}

// graph is a GraphProto being written.
type graph struct {
	body  message
	known map[string]bool // names of initializers
}

func (g *graph) node(n node) string {
	if n.out == nil {
		n.out = []string{n.name + "/output_0"}
	}
	var m message
	for _, s := range n.in {
		m.str(1, s)
	}
	for _, s := range n.out {
		m.str(2, s)
	}
	m.str(3, n.name)
	m.str(4, n.op)
	for _, k := range sortedKeys(n.ints) {
		var a message
		a.str(1, k)
		a.int(3, int64(n.ints[k]))
		a.int(20, attributeInt)
		m.bytes(5, a)
	}
	for _, k := range sortedKeys(n.floats) {
		var a message
		a.str(1, k)
		a.float(2, n.floats[k])
		a.int(20, attributeF32)
		m.bytes(5, a)
	}
	if inContrib[n.op] {
		m.str(7, contribOps)
	}
	g.body.bytes(1, m)
	return n.out[0]
}

func tensorHead(name string, elem int, dims []int64) message {
	var m message
	for _, d := range dims {
		m.int(1, d)
	}
	m.int(2, int64(elem))
	m.str(8, name)
	return m
}

// inline adds a small initializer that lives in the model file itself.
func (g *graph) inline(name string, elem int, dims []int64, raw []byte) string {
	m := tensorHead(name, elem, dims)
	m.bytes(9, raw)
	g.body.bytes(5, m)
	return name
}

// external adds an initializer whose bytes are in the weights file.
func (g *graph) external(name string, elem int, dims []int64, offset, length int64) string {
	m := tensorHead(name, elem, dims)
	for _, kv := range [][2]string{
		{"location", weightsFile}, {"offset", strconv.FormatInt(offset, 10)}, {"length", strconv.FormatInt(length, 10)},
	} {
		var e message
		e.str(1, kv[0])
		e.str(2, kv[1])
		m.bytes(13, e)
	}
	m.int(14, tensorIsOuter)
	g.body.bytes(5, m)
	return name
}

// ints returns the name of an int64 constant; no dims means a scalar.
func (g *graph) ints(dims []int64, values ...int64) string {
	name := fmt.Sprintf("/model/constants/int64%v%v", dims, values)
	if g.known[name] {
		return name
	}
	g.known[name] = true
	var raw []byte
	for _, v := range values {
		raw = le.AppendUint64(raw, uint64(v))
	}
	return g.inline(name, elemInt64, dims, raw)
}

// value declares an input (field 11) or an output (field 12). A dimension is a
// number or the name of a free one.
func (g *graph) value(field int, name string, elem int, dims ...any) {
	var shape message
	for _, d := range dims {
		var dim message
		switch v := d.(type) {
		case int:
			dim.int(1, int64(v))
		case string:
			dim.str(2, v)
		}
		shape.bytes(1, dim)
	}
	var tensor, typ, info message
	tensor.int(1, int64(elem))
	tensor.bytes(2, shape)
	typ.bytes(1, tensor)
	info.str(1, name)
	info.bytes(2, typ)
	g.body.bytes(field, info)
}

const (
	graphInput  = 11
	graphOutput = 12
)

// model wraps the finished graph as a ModelProto.
func (g *graph) model() []byte {
	g.body.str(2, "main_graph")
	var m message
	m.int(1, irVersion)
	m.str(2, producerName)
	m.str(3, strconv.Itoa(formatVersion))
	m.bytes(7, g.body)
	for _, set := range []struct {
		domain  string
		version int64
	}{{"", opsetVersion}, {contribOps, 1}} {
		var o message
		o.str(1, set.domain)
		o.int(2, set.version)
		m.bytes(8, o)
	}
	return m
}
