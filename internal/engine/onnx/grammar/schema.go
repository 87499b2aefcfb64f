package grammar

import (
	"context"
	"slices"
	"strconv"
	"strings"
)

// JSONSchema returns the grammar of the JSON values that a schema (a subset of
// draft 2020-12, see the package comment) allows. What cannot be enforced is
// refused with an *UnsupportedError, what is too large with a *TooLargeError,
// and a schema that is wrong or allows nothing with a *SchemaError.
func JSONSchema(ctx context.Context, schema []byte) (*Grammar, error) {
	b := newBudget(ctx)
	root, err := parseValue(b, schema)
	if err != nil {
		return nil, err
	}
	c := &compiler{budget: b, root: root, flats: map[*value][]*flat{}, open: map[*value]bool{},
		checked: map[*value]bool{}, defs: map[string]def{}, patterns: map[string]*dfa{}, leaves: map[string]*leaf{}, anyRules: map[int]def{}}
	top := c.rule()
	d, err := c.def([]*value{root})
	if err != nil {
		return nil, err
	}
	c.value(c.rules[top].start, d, c.rules[top].end)
	for len(c.queue) > 0 {
		body := c.queue[0]
		c.queue = c.queue[1:]
		if err := body(); err != nil {
			return nil, err
		}
		if c.err != nil {
			return nil, c.err
		}
		if err := b.spend(100); err != nil {
			return nil, err
		}
	}
	g := newGrammar(&c.builder, top)
	if g.err == errNothing {
		return nil, &SchemaError{"#", "no value satisfies it"}
	}
	return g, g.err
}

// compiler turns a schema into a program. A value of the output is governed by
// the conjunction of a list of subschemas; equal lists share their rules,
// which is what makes recursion end.
type compiler struct {
	builder
	*budget
	root    *value
	flats   map[*value][]*flat
	open    map[*value]bool // being flattened
	checked map[*value]bool
	defs    map[string]def
	queue   []func() error // bodies of rules still to be written

	patterns map[string]*dfa  // by pattern
	leaves   map[string]*leaf // by what they allow: equal ones share masks
	anyRules map[int]def      // free values, by depth
}

// flatten returns the alternatives of a conjunction of schemas.
func (c *compiler) flatten(conj []*value) ([]*flat, error) {
	out := []*flat{newFlat(nil)}
	for _, s := range conj {
		alts, err := c.expand(s)
		if err != nil {
			return nil, err
		}
		if out, err = c.cross(out, alts); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// cross returns every pair of a and b that can be one.
func (c *compiler) cross(a, b []*flat) ([]*flat, error) {
	var out []*flat
	for _, x := range a {
		for _, y := range b {
			work := 50 + len(x.required)*len(y.required) + len(x.objects)*len(y.objects) + len(x.order) + len(y.order)
			if err := c.spend(work); err != nil {
				return nil, err
			}
			if f := x.and(y); f != nil {
				out = append(out, f)
			}
			if len(out) > maxVariants {
				return nil, &TooLargeError{"alternatives of one value", maxVariants}
			}
		}
	}
	return out, nil
}

// expand returns the alternatives of one schema.
func (c *compiler) expand(s *value) ([]*flat, error) {
	if alts, ok := c.flats[s]; ok {
		return alts, nil
	}
	if c.open[s] {
		return nil, &SchemaError{s.path(), "refers to itself without end"}
	}
	c.open[s] = true
	defer delete(c.open, s)
	alts, err := c.expandNew(s)
	if err == nil {
		c.flats[s] = alts
	}
	return alts, err
}

func (c *compiler) expandNew(s *value) ([]*flat, error) {
	switch s.kind {
	case 't':
		return []*flat{newFlat(s)}, nil
	case 'f':
		return nil, nil
	case '{':
	default:
		return nil, &SchemaError{s.path(), "must be an object or a boolean"}
	}
	f := newFlat(s)
	var parts [][]*flat
	for i, name := range s.names {
		alts, err := c.keyword(f, s, name, s.items[i])
		if err != nil {
			return nil, err
		}
		parts = append(parts, alts...)
	}
	out := []*flat{f}
	if f.kinds == 0 || f.enum != nil && len(f.enum) == 0 {
		out = nil
	}
	for _, alts := range parts {
		var err error
		if out, err = c.cross(out, alts); err != nil {
			return nil, err
		}
	}
	return c.oneOf(s, out)
}

// oneOf crosses base, which is what the rest of s demands, with the branches
// of its oneOf. Only within base need they exclude each other.
func (c *compiler) oneOf(s *value, base []*flat) ([]*flat, error) {
	v := s.get("oneOf")
	if v == nil {
		return base, nil
	}
	parts, err := c.each(v)
	if err != nil {
		return nil, err
	}
	for i := range parts {
		if parts[i], err = c.cross(base, parts[i]); err != nil {
			return nil, err
		}
	}
	if !c.exclusive(parts) {
		return nil, &UnsupportedError{s.path(), "oneOf whose branches may overlap"}
	}
	out := slices.Concat(parts...)
	if len(out) > maxVariants {
		return nil, &TooLargeError{"alternatives of one value", maxVariants}
	}
	return out, nil
}

// annotations promise nothing about the output.
var annotations = []string{"title", "description", "default", "examples", "$comment", "deprecated", "readOnly",
	"writeOnly", "$schema", "$id", "$defs", "definitions", "discriminator"}

// keyword records what a keyword demands in f, or returns the alternatives
// that it adds.
func (c *compiler) keyword(f *flat, s *value, name string, v *value) ([][]*flat, error) {
	if slices.Contains(annotations, name) {
		return nil, nil
	}
	switch name {
	case "$ref":
		target, err := c.resolve(v)
		if err != nil {
			return nil, err
		}
		alts, err := c.expand(target)
		return [][]*flat{alts}, err
	case "allOf":
		return c.each(v)
	case "anyOf":
		parts, err := c.each(v)
		return [][]*flat{slices.Concat(parts...)}, err
	case "oneOf":
		return nil, nil // comes last
	}
	if set, ok := simple[name]; ok {
		return nil, set(f, v)
	}
	if set, ok := structural[name]; ok {
		return nil, set(f, s, v)
	}
	return nil, &UnsupportedError{s.path(), name}
}

// each expands the schemas of an array.
func (c *compiler) each(v *value) ([][]*flat, error) {
	if v.kind != '[' || len(v.items) == 0 {
		return nil, &SchemaError{v.path(), "must be an array of schemas"}
	}
	parts := make([][]*flat, len(v.items))
	for i, item := range v.items {
		var err error
		if parts[i], err = c.expand(item); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// resolve finds what a reference points to, within the same document.
func (c *compiler) resolve(v *value) (*value, error) {
	rest, ok := strings.CutPrefix(v.str, "#")
	if v.kind != '"' || !ok || rest != "" && rest[0] != '/' || strings.Contains(rest, "%") {
		return nil, &UnsupportedError{v.path(), "$ref other than a pointer into the schema itself"}
	}
	at := c.root
	if rest == "" {
		return at, nil
	}
	for _, name := range strings.Split(rest[1:], "/") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		next := at.get(name)
		if i, err := strconv.Atoi(name); at.kind == '[' && err == nil && i >= 0 && i < len(at.items) {
			next = at.items[i]
		}
		if next == nil {
			return nil, &SchemaError{v.path(), "no " + v.str + " in the schema"}
		}
		at = next
	}
	return at, nil
}
