package grammar

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// def is how a value is written: one of the leaves, or by one of the rules.
type def struct {
	leaves []*leaf
	rules  []int32
}

// add adds a leaf unless there is none or it is there.
func (d *def) add(l *leaf) {
	if l != nil && !slices.Contains(d.leaves, l) {
		d.leaves = append(d.leaves, l)
	}
}

// value adds the ways to write a value between two nodes.
func (c *compiler) value(from int32, d def, to int32) {
	for _, l := range d.leaves {
		c.leaf(from, l, to)
	}
	for _, r := range d.rules {
		c.call(from, r, to)
	}
}

// def returns how a value is written that satisfies every schema of conj.
func (c *compiler) def(conj []*value) (def, error) {
	slices.SortFunc(conj, func(a, b *value) int { return a.id - b.id })
	conj = slices.Compact(conj)
	var key strings.Builder
	for _, s := range conj {
		key.WriteString(strconv.Itoa(s.id) + " ")
	}
	if d, ok := c.defs[key.String()]; ok {
		return d, nil
	}
	alts, err := c.flatten(conj)
	if err != nil {
		return def{}, err
	}
	d, err := c.alternatives(alts)
	c.defs[key.String()] = d
	return d, err
}

// alternatives returns how a value is written that satisfies one of alts.
func (c *compiler) alternatives(alts []*flat) (def, error) {
	var d def
	var words [][]byte // of all enums
	for _, f := range alts {
		var more [][]byte
		var err error
		switch {
		case f.free():
			return c.anyValue(0), nil
		case f.enum != nil:
			more, err = c.enumWords(f)
		default:
			err = c.alternative(&d, f)
		}
		if err != nil {
			return def{}, err
		}
		words = append(words, more...)
	}
	if len(words) > 0 {
		d.leaves = append(d.leaves, wordsLeaf(words))
	}
	if len(d.leaves)+len(d.rules) > maxWays {
		return def{}, &TooLargeError{"alternatives of one value other than enums", maxWays}
	}
	return d, nil
}

// Leaves that many grammars share.
var (
	nullLeaf = &leaf{lit: []byte("null")}
	boolLeaf = &leaf{tree: newTree([][]byte{[]byte("true"), []byte("false")})}
	textLeaf = &leaf{text: &text{quoted: true, max: -1}}
)

// alternative adds the ways to write what f demands.
func (c *compiler) alternative(d *def, f *flat) error {
	if f.kinds&kindNull != 0 {
		d.add(nullLeaf)
	}
	if f.kinds&kindBool != 0 {
		d.add(boolLeaf)
	}
	if err := c.numberLeaf(d, f); err != nil {
		return err
	}
	if f.kinds&kindString != 0 {
		l, err := c.stringLeaf(f)
		if err != nil {
			return err
		}
		d.add(l)
	}
	if f.kinds&kindArray != 0 {
		r := c.rule()
		d.rules = append(d.rules, r)
		c.queue = append(c.queue, func() error { return c.array(r, f) })
	}
	if f.kinds&kindObject != 0 {
		r := c.rule()
		d.rules = append(d.rules, r)
		c.queue = append(c.queue, func() error { return c.object(r, f) })
	}
	return nil
}

func (c *compiler) numberLeaf(d *def, f *flat) error {
	if f.kinds&(kindInteger|kindNumber) == 0 {
		return nil
	}
	key := fmt.Sprint("number ", f.kinds&kindNumber, f.low, f.high)
	l, err := c.shared(key, func() (*leaf, error) {
		if f.kinds&kindNumber != 0 && !f.limitsNumbers() {
			return textOf(anyNumber())
		}
		return textOf(numberDFA(c.budget, f.low, f.high, f.kinds&kindNumber == 0))
	})
	d.add(l)
	return err
}

// textOf returns the leaf of an automaton, nil when nothing matches it.
func textOf(d *dfa, err error) (*leaf, error) {
	if d == nil || err != nil {
		return nil, err
	}
	return &leaf{text: &text{dfa: d, max: -1}}, nil
}

// shared returns the leaf under key, or makes it.
func (c *compiler) shared(key string, create func() (*leaf, error)) (*leaf, error) {
	if l, ok := c.leaves[key]; ok {
		return l, nil
	}
	l, err := create()
	if err == nil {
		c.leaves[key] = l
	}
	return l, err
}

// stringLeaf returns nil when no string satisfies f.
func (c *compiler) stringLeaf(f *flat) (*leaf, error) {
	if !f.limitsStrings() {
		return textLeaf, nil
	}
	key := fmt.Sprint("string ", f.minLength, f.maxLength)
	for _, v := range slices.Concat(f.patterns, f.formats) {
		key += fmt.Sprintf(" %s %q", v.at, v.str)
	}
	return c.shared(key, func() (*leaf, error) { return c.newStringLeaf(f) })
}

func (c *compiler) newStringLeaf(f *flat) (*leaf, error) {
	if f.maxLength >= 0 && f.maxLength < f.minLength {
		return nil, nil
	}
	ds, err := c.automata(f)
	if err != nil {
		return nil, err
	}
	if len(ds) == 0 {
		return &leaf{text: &text{quoted: true, min: int32(f.minLength), max: int32(f.maxLength)}}, nil
	}
	if f.minLength > 0 || f.maxLength >= 0 {
		d, err := lengthDFA(f.minLength, f.maxLength)
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	d := ds[0]
	if len(ds) > 1 {
		if d, err = product(c.budget, ds, all); err != nil {
			return nil, err
		}
	}
	if d == nil {
		return nil, nil
	}
	return &leaf{text: &text{dfa: d, quoted: true, max: -1}}, nil
}

// automata returns those of the patterns and formats of f.
func (c *compiler) automata(f *flat) ([]*dfa, error) {
	var ds []*dfa
	for _, v := range f.patterns {
		d, err := c.pattern(v, v.str)
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	for _, v := range f.formats {
		d, err := formats[v.str]()
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	return ds, nil
}

// pattern compiles the pattern that stands at v.
func (c *compiler) pattern(v *value, pattern string) (*dfa, error) {
	if d, ok := c.patterns[pattern]; ok {
		return d, nil
	}
	d, err := compileRegex(c.budget, pattern, matching{search: true, ecmaDot: true})
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, &SchemaError{v.path(), "the pattern matches nothing"}
	}
	c.patterns[pattern] = d
	return d, nil
}

// maxFreeDepth is how deep values nest that no schema describes: readers have
// limits, too, and a model that only opens brackets should not run on.
const maxFreeDepth = 32

// anyValue returns how any value is written, depth levels down.
func (c *compiler) anyValue(depth int) def {
	if d, ok := c.anyRules[depth]; ok {
		return d
	}
	number, err := anyNumber()
	if err != nil {
		c.err = err
		return def{}
	}
	d := def{leaves: []*leaf{nullLeaf, boolLeaf, textLeaf, {text: &text{dfa: number, max: -1}}}}
	if depth < maxFreeDepth {
		array, object := c.rule(), c.rule()
		d.rules = []int32{array, object}
		c.queue = append(c.queue, func() error {
			inner := c.anyValue(depth + 1)
			c.arrayBody(array, arrayShape{rest: inner, max: -1})
			return c.objectBody(object, &objectShape{extras: []extra{{textLeaf, inner}}, max: -1})
		})
	}
	c.anyRules[depth] = d
	return d
}
