package grammar

import (
	"bytes"
	"encoding/json/jsontext"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// value is a parsed JSON value that remembers the order of its members and
// where it stands.
type value struct {
	id     int
	kind   jsontext.Kind
	raw    string // of a number, as written
	str    string
	items  []*value
	names  []string // of an object, beside items
	up     *value
	at     string // its name or index in up
	number *big.Rat
}

// path is the JSON pointer fragment of v.
func (v *value) path() string {
	if v == nil {
		return "#"
	}
	var parts []string
	for ; v.up != nil; v = v.up {
		parts = append(parts, strings.NewReplacer("~", "~0", "/", "~1").Replace(v.at))
	}
	slices.Reverse(parts)
	return strings.Join(append([]string{"#"}, parts...), "/")
}

// get returns the member called name, or nil.
func (v *value) get(name string) *value {
	if v.kind != '{' {
		return nil
	}
	if i := slices.Index(v.names, name); i >= 0 {
		return v.items[i]
	}
	return nil
}

// parseValue reads one JSON document.
func parseValue(b *budget, data []byte) (*value, error) {
	if len(data) > maxSchemaBytes {
		return nil, &TooLargeError{"bytes of a schema", maxSchemaBytes}
	}
	d := jsontext.NewDecoder(bytes.NewReader(data))
	p := &valueParser{d: d, b: b}
	v, err := p.value(nil, "")
	if err != nil {
		return nil, err
	}
	if d.PeekKind() != 0 || d.InputOffset() < int64(len(bytes.TrimRight(data, " \t\r\n"))) {
		return nil, &SchemaError{"#", "more than one JSON value"}
	}
	return v, nil
}

type valueParser struct {
	d      *jsontext.Decoder
	b      *budget
	lastID int
	depth  int
}

func (p *valueParser) value(up *value, at string) (*value, error) {
	if p.depth++; p.depth > maxSchemaDepth {
		return nil, &TooLargeError{"levels of a schema", maxSchemaDepth}
	}
	defer func() { p.depth-- }()
	if err := p.b.spend(20); err != nil {
		return nil, err
	}
	t, err := p.d.ReadToken()
	if err != nil {
		return nil, &SchemaError{"#", "not JSON: " + err.Error()}
	}
	p.lastID++
	v := &value{id: p.lastID, kind: t.Kind(), up: up, at: at}
	switch v.kind {
	case '"':
		v.str = t.String()
	case '0':
		v.raw = t.String()
		v.number, err = parseNumber(v.raw)
	case '{', '[':
		err = p.members(v)
	}
	return v, err
}

// members reads the inside of an object or array, and its end.
func (p *valueParser) members(v *value) error {
	for p.d.PeekKind() != v.kind+2 { // '}' and ']' are two after '{' and '['
		at := strconv.Itoa(len(v.items))
		if v.kind == '{' {
			name, err := p.d.ReadToken()
			if err != nil {
				return &SchemaError{v.path(), "not JSON: " + err.Error()}
			}
			at = name.String()
			v.names = append(v.names, at)
		}
		item, err := p.value(v, at)
		if err != nil {
			return err
		}
		v.items = append(v.items, item)
	}
	_, err := p.d.ReadToken()
	return err
}

// parseNumber is exact. Numbers that would need thousands of digits are
// refused.
func parseNumber(raw string) (*big.Rat, error) {
	if _, exp, ok := strings.Cut(strings.ToLower(raw), "e"); ok {
		if n, err := strconv.Atoi(exp); err != nil || n > 400 || n < -400 {
			return nil, &TooLargeError{"as the exponent of a number", 400}
		}
	}
	if len(raw) > 1000 {
		return nil, &TooLargeError{"digits of a number", 1000}
	}
	r, ok := new(big.Rat).SetString(raw)
	if !ok {
		return nil, &SchemaError{"#", "not a number: " + raw}
	}
	return r, nil
}

// compact appends v as JSON without white space, strings in their shortest
// spelling.
func (v *value) compact(dst []byte) []byte {
	switch v.kind {
	case '"':
		return appendString(dst, v.str)
	case '0':
		return append(dst, v.raw...)
	case '[', '{':
		dst = append(dst, byte(v.kind))
		for i, item := range v.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			if v.kind == '{' {
				dst = append(appendString(dst, v.names[i]), ':')
			}
			dst = item.compact(dst)
		}
		return append(dst, byte(v.kind+2))
	}
	return append(dst, v.kind.String()...)
}

// canonical is equal for equal values, whatever their spelling and order.
func (v *value) canonical() string {
	switch v.kind {
	case '"':
		return strconv.Quote(v.str)
	case '0':
		return v.number.RatString()
	case '[', '{':
		parts := make([]string, len(v.items))
		for i, item := range v.items {
			parts[i] = item.canonical()
			if v.kind == '{' {
				parts[i] = strconv.Quote(v.names[i]) + ":" + parts[i]
			}
		}
		if v.kind == '{' {
			slices.Sort(parts)
		}
		return string(byte(v.kind)) + strings.Join(parts, ",") + string(byte(v.kind+2))
	}
	return v.kind.String()
}

// appendString appends s as a JSON string that escapes only what it must.
func appendString(dst []byte, s string) []byte {
	dst, err := jsontext.AppendQuote(dst, s)
	if err != nil {
		panic("grammar: a parsed string is not UTF-8") // the decoder has checked it
	}
	return dst
}
