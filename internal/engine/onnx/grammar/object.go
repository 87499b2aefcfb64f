package grammar

import (
	"fmt"
	"slices"
)

// objectShape is an object's members: the named ones in order, each at most
// once, then any number of extras.
type objectShape struct {
	named  []member
	extras []extra
	min    int
	max    int // negative: no bound
}

type member struct {
	name     string
	value    def
	required bool
}

// extra is a class of names that the schema does not list.
type extra struct {
	name  *leaf
	value def
}

// object writes the rule of the objects that f allows.
func (c *compiler) object(r int32, f *flat) error {
	s := &objectShape{min: f.minProperties, max: f.maxProperties}
	patterns, err := c.patternParts(f)
	if err != nil {
		return err
	}
	names := memberNames(f)
	for _, name := range names {
		if err := c.spend(20 + len(f.required)/4 + len(f.objects)); err != nil {
			return err
		}
		d, err := c.def(memberSchemas(f, name, patterns))
		if err != nil {
			return err
		}
		s.named = append(s.named, member{name, d, slices.Contains(f.required, name)})
	}
	if s.extras, err = c.extras(f, names, patterns); err != nil {
		return err
	}
	if s.min > len(s.named)+1 && len(s.extras) > 0 {
		return &UnsupportedError{f.at.path(), "minProperties beyond the listed properties and one more"}
	}
	return c.objectBody(r, s)
}

// memberNames returns the names that f lists, in the order of the schemas.
func memberNames(f *flat) []string {
	var names []string
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for _, part := range f.objects {
		if p := part.get("properties"); p != nil {
			for _, name := range p.names {
				add(name)
			}
		}
	}
	for _, name := range f.required {
		add(name)
	}
	return names
}

// patternPart is a pattern of patternProperties.
type patternPart struct {
	part, schema *value
	pattern      string
	dfa          *dfa
}

func (c *compiler) patternParts(f *flat) ([]patternPart, error) {
	var parts []patternPart
	for _, part := range f.objects {
		p := part.get("patternProperties")
		if p == nil {
			continue
		}
		for i, schema := range p.items {
			d, err := c.pattern(schema, p.names[i])
			if err != nil {
				return nil, err
			}
			parts = append(parts, patternPart{part, schema, p.names[i], d})
		}
	}
	if len(parts) > maxPatternProps {
		return nil, &TooLargeError{"patterns of properties", maxPatternProps}
	}
	return parts, nil
}

// memberSchemas returns what the parts of f demand of the member called name.
func memberSchemas(f *flat, name string, patterns []patternPart) []*value {
	return schemasFor(f, func(part *value) *value {
		if p := part.get("properties"); p != nil {
			return p.get(name)
		}
		return nil
	}, patterns, func(p patternPart) bool { return p.dfa.match(name) })
}

// schemasFor collects the schemas of a member: that of its name, those of the
// patterns its name matches, else the additional one.
func schemasFor(f *flat, named func(part *value) *value, patterns []patternPart, matches func(patternPart) bool) []*value {
	var conj []*value
	for _, part := range f.objects {
		found := false
		if v := named(part); v != nil {
			conj, found = append(conj, v), true
		}
		for _, p := range patterns {
			if p.part == part && matches(p) {
				conj, found = append(conj, p.schema), true
			}
		}
		if v := part.get("additionalProperties"); v != nil && !found {
			conj = append(conj, v)
		}
	}
	return conj
}

// extras returns the classes of names that f does not list: one for each set
// of patterns that a name may match.
func (c *compiler) extras(f *flat, names []string, patterns []patternPart) ([]extra, error) {
	var out []extra
	for matched := range 1 << len(patterns) {
		conj := schemasFor(f, func(*value) *value { return nil }, patterns, func(p patternPart) bool {
			i := slices.Index(patterns, p)
			return matched>>i&1 != 0
		})
		if slices.ContainsFunc(conj, func(v *value) bool { return v.kind == 'f' }) {
			continue
		}
		name, err := c.extraName(names, patterns, matched)
		if err != nil {
			return nil, err
		}
		if name == nil {
			continue
		}
		d, err := c.def(conj)
		if err != nil {
			return nil, err
		}
		out = append(out, extra{name, d})
	}
	return out, nil
}

// extraName returns the leaf of the names that are not listed and match
// exactly the patterns in the set matched. It returns nil if there are none.
func (c *compiler) extraName(names []string, patterns []patternPart, matched int) (*leaf, error) {
	if len(names)+len(patterns) == 0 {
		return textLeaf, nil
	}
	key := fmt.Sprintf("names %q", names)
	for i, p := range patterns {
		key += fmt.Sprintf(" %q %v", p.pattern, matched>>i&1)
	}
	return c.shared(key, func() (*leaf, error) { return c.newExtraName(names, patterns, matched) })
}

func (c *compiler) newExtraName(names []string, patterns []patternPart, matched int) (*leaf, error) {
	listed, err := wordsDFA(c.budget, names)
	if err != nil {
		return nil, err
	}
	ds := []*dfa{listed}
	for _, p := range patterns {
		ds = append(ds, p.dfa)
	}
	d, err := product(c.budget, ds, func(verdicts []bool) bool {
		set := 0
		for i, v := range verdicts[1:] {
			if v {
				set |= 1 << i
			}
		}
		return !verdicts[0] && set == matched
	})
	if d == nil || err != nil {
		return nil, err
	}
	return &leaf{text: &text{dfa: d, quoted: true, max: -1}}, nil
}
