package grammar

import (
	"slices"
	"unicode/utf8"
)

// enumWords returns the values of an enum that satisfy the rest of f.
func (c *compiler) enumWords(f *flat) ([][]byte, error) {
	var words [][]byte
	for _, key := range f.order {
		v := f.enum[key]
		ok, err := c.satisfies(f, v)
		if err != nil {
			return nil, err
		}
		if ok {
			words = append(words, v.compact(nil))
		}
	}
	return words, nil
}

// satisfiesAll reports whether v satisfies every schema of conj.
func (c *compiler) satisfiesAll(conj []*value, v *value) (bool, error) {
	alts, err := c.flatten(conj)
	if err != nil {
		return false, err
	}
	for _, f := range alts {
		if f.enum != nil {
			if _, ok := f.enum[v.canonical()]; !ok {
				continue
			}
		}
		if ok, err := c.satisfies(f, v); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// satisfies reports whether v is what f allows, its enum aside.
func (c *compiler) satisfies(f *flat, v *value) (bool, error) {
	if err := c.spend(50 + len(v.str)); err != nil {
		return false, err
	}
	if f.kinds&v.kinds() == 0 {
		return false, nil
	}
	switch v.kind {
	case '0':
		return f.allows(v.number), nil
	case '"':
		return c.satisfiesString(f, v)
	case '[':
		return c.satisfiesArray(f, v)
	case '{':
		return c.satisfiesObject(f, v)
	}
	return true, nil
}

// kinds returns the types that v has.
func (v *value) kinds() kinds {
	switch v.kind {
	case 'n':
		return kindNull
	case '0':
		if v.number.IsInt() {
			return kindInteger | kindNumber
		}
		return kindNumber
	case '"':
		return kindString
	case '[':
		return kindArray
	case '{':
		return kindObject
	}
	return kindBool
}

// within reports whether n lies between bounds; a negative hi is none.
func within(n, lo, hi int) bool { return n >= lo && (hi < 0 || n <= hi) }

func (c *compiler) satisfiesString(f *flat, v *value) (bool, error) {
	if !within(utf8.RuneCountInString(v.str), f.minLength, f.maxLength) {
		return false, nil
	}
	ds, err := c.automata(f)
	return !slices.ContainsFunc(ds, func(d *dfa) bool { return !d.match(v.str) }), err
}

func (c *compiler) satisfiesArray(f *flat, v *value) (bool, error) {
	if !within(len(v.items), f.minItems, f.maxItems) {
		return false, nil
	}
	for i, item := range v.items {
		var conj []*value
		for _, part := range f.arrays {
			if s := itemSchema(part, i); s != nil {
				conj = append(conj, s)
			}
		}
		if ok, err := c.satisfiesAll(conj, item); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *compiler) satisfiesObject(f *flat, v *value) (bool, error) {
	if !within(len(v.names), f.minProperties, f.maxProperties) {
		return false, nil
	}
	for _, name := range f.required {
		if v.get(name) == nil {
			return false, nil
		}
	}
	patterns, err := c.patternParts(f)
	if err != nil {
		return false, err
	}
	for i, name := range v.names {
		if ok, err := c.satisfiesAll(memberSchemas(f, name, patterns), v.items[i]); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}
