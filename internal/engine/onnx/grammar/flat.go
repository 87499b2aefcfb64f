package grammar

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"slices"
)

// kinds is a set of JSON types.
type kinds uint8

const (
	kindNull kinds = 1 << iota
	kindBool
	kindInteger // integers alone; a number may also be one
	kindNumber
	kindString
	kindArray
	kindObject
	kindAll = 1<<iota - 1
)

// flat is a schema without alternatives: what all its keywords, references
// and allOf demand together. Subschemas stay references, to be flattened when
// their place in the output is compiled.
type flat struct {
	at    *value // for messages
	kinds kinds
	enum  map[string]*value // by canonical form; nil is no enum
	order []string          // the enum's order

	minLength, maxLength int // characters; max < 0 is no bound
	patterns             []*value
	formats              []*value

	low, high bound

	arrays             []*value // schemas with prefixItems, items or additionalItems
	minItems, maxItems int

	objects                      []*value // schemas with properties and relatives
	required                     []string
	minProperties, maxProperties int
}

// bound is one end of a range of numbers; a nil number is none.
type bound struct {
	number *big.Rat
	open   bool // the number itself is out
}

func (b bound) String() string {
	if b.number == nil {
		return "none"
	}
	return fmt.Sprint(b.number.RatString(), b.open)
}

func newFlat(at *value) *flat {
	return &flat{at: at, kinds: kindAll, maxLength: -1, maxItems: -1, maxProperties: -1}
}

// and returns what a and b demand together, or nil when nothing can be both.
func (a *flat) and(b *flat) *flat {
	c := &flat{
		at:            a.at,
		kinds:         andKinds(a.kinds, b.kinds),
		minLength:     max(a.minLength, b.minLength),
		maxLength:     lower(a.maxLength, b.maxLength),
		patterns:      union(a.patterns, b.patterns),
		formats:       union(a.formats, b.formats),
		low:           tighter(a.low, b.low, 1),
		high:          tighter(a.high, b.high, -1),
		arrays:        union(a.arrays, b.arrays),
		minItems:      max(a.minItems, b.minItems),
		maxItems:      lower(a.maxItems, b.maxItems),
		objects:       union(a.objects, b.objects),
		required:      union(a.required, b.required),
		minProperties: max(a.minProperties, b.minProperties),
		maxProperties: lower(a.maxProperties, b.maxProperties),
		enum:          a.enum, order: a.order,
	}
	if a.at == nil {
		c.at = b.at
	}
	if b.enum != nil {
		c.enum, c.order = b.enum, b.order
		if a.enum != nil {
			c.intersect(a.enum)
		}
	}
	if c.kinds == 0 || c.enum != nil && len(c.enum) == 0 {
		return nil
	}
	return c
}

// intersect keeps the values of the enum that are in with too.
func (c *flat) intersect(with map[string]*value) {
	enum, order := map[string]*value{}, []string{}
	for _, key := range c.order {
		if _, ok := with[key]; ok {
			enum[key] = c.enum[key]
			order = append(order, key)
		}
	}
	c.enum, c.order = enum, order
}

// andKinds intersects types: every integer is a number too.
func andKinds(a, b kinds) kinds {
	if a&kindNumber != 0 {
		a |= kindInteger
	}
	if b&kindNumber != 0 {
		b |= kindInteger
	}
	return a & b
}

func union[T comparable](a, b []T) []T {
	if len(a) == 0 {
		return b
	}
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// lower is the smaller of two maxima of which negative ones are none.
func lower(a, b int) int {
	if a < 0 || b < 0 {
		return max(a, b)
	}
	return min(a, b)
}

// tighter returns the bound that leaves less: the higher for sign 1, the lower
// for -1.
func tighter(a, b bound, sign int) bound {
	if a.number == nil {
		return b
	}
	if b.number == nil {
		return a
	}
	switch c := sign * a.number.Cmp(b.number); {
	case c > 0:
		return a
	case c < 0:
		return b
	}
	return bound{a.number, a.open || b.open}
}

// free reports whether f demands nothing at all.
func (f *flat) free() bool {
	return f.kinds&^kindInteger == kindAll&^kindInteger && f.enum == nil && !f.limitsStrings() && !f.limitsNumbers() &&
		!f.limitsArrays() && !f.limitsObjects()
}

func (f *flat) limitsStrings() bool {
	return f.minLength > 0 || f.maxLength >= 0 || len(f.patterns)+len(f.formats) > 0
}
func (f *flat) limitsNumbers() bool { return f.low.number != nil || f.high.number != nil }
func (f *flat) limitsArrays() bool  { return len(f.arrays) > 0 || f.minItems > 0 || f.maxItems >= 0 }
func (f *flat) limitsObjects() bool {
	return len(f.objects)+len(f.required) > 0 || f.minProperties > 0 || f.maxProperties >= 0
}

// count reads a non-negative integer of a schema.
func (v *value) count() (int, error) {
	if v.kind != '0' || !v.number.IsInt() || v.number.Sign() < 0 {
		return 0, &SchemaError{v.path(), "must be a non-negative integer"}
	}
	if n := v.number.Num(); n.IsInt64() && n.Int64() < math.MaxInt32 {
		return int(n.Int64()), nil
	}
	return math.MaxInt32, nil
}

// allows reports whether r lies within the bounds.
func (f *flat) allows(r *big.Rat) bool {
	return allowsBound(f.low, r, 1) && allowsBound(f.high, r, -1)
}

func allowsBound(b bound, r *big.Rat, sign int) bool {
	if b.number == nil {
		return true
	}
	c := sign * cmp.Compare(r.Cmp(b.number), 0)
	return c > 0 || c == 0 && !b.open
}

// crossed reports whether no number lies between low and high.
func crossed(low, high bound) bool {
	if low.number == nil || high.number == nil {
		return false
	}
	c := low.number.Cmp(high.number)
	return c > 0 || c == 0 && (low.open || high.open)
}
