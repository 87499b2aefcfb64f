package grammar

import (
	"math/big"
	"slices"
)

// simple are the keywords about the value itself.
var simple = map[string]func(f *flat, v *value) error{
	"type":  setType,
	"enum":  setEnum,
	"const": func(f *flat, v *value) error { return f.restrict([]*value{v}) },
	"minLength": func(f *flat, v *value) (err error) {
		f.minLength, err = v.count()
		return err
	},
	"maxLength": func(f *flat, v *value) (err error) {
		f.maxLength, err = v.count()
		return err
	},
	"pattern": func(f *flat, v *value) error {
		f.patterns = append(f.patterns, v)
		return v.mustBe('"', "a string")
	},
	"format": func(f *flat, v *value) error {
		if _, ok := formats[v.str]; !ok || v.kind != '"' {
			return &UnsupportedError{v.up.path(), "format: " + v.str}
		}
		f.formats = append(f.formats, v)
		return nil
	},
	"minimum":          func(f *flat, v *value) error { return setBound(&f.low, v, false, 1) },
	"exclusiveMinimum": func(f *flat, v *value) error { return setBound(&f.low, v, true, 1) },
	"maximum":          func(f *flat, v *value) error { return setBound(&f.high, v, false, -1) },
	"exclusiveMaximum": func(f *flat, v *value) error { return setBound(&f.high, v, true, -1) },
	"minItems": func(f *flat, v *value) (err error) {
		f.minItems, err = v.count()
		return err
	},
	"maxItems": func(f *flat, v *value) (err error) {
		f.maxItems, err = v.count()
		return err
	},
	"minProperties": func(f *flat, v *value) (err error) {
		f.minProperties, err = v.count()
		return err
	},
	"maxProperties": func(f *flat, v *value) (err error) {
		f.maxProperties, err = v.count()
		return err
	},
	"required": setRequired,
	"uniqueItems": func(f *flat, v *value) error {
		if v.kind == 'f' {
			return nil
		}
		return &UnsupportedError{v.up.path(), "uniqueItems"}
	},
	// Every name is a string, and that is all that generators of schemas from
	// types say of the names in a map.
	"propertyNames": func(f *flat, v *value) error {
		if t := v.get("type"); t != nil && len(v.names) == 1 && t.kind == '"' && t.str == "string" {
			return nil
		}
		return &UnsupportedError{v.up.path(), "propertyNames"}
	},
}

// structural are the keywords about the inside of a value. The schema itself
// is recorded, since what they mean depends on each other.
var structural = map[string]func(f *flat, s, v *value) error{
	"prefixItems":          arrayPart,
	"items":                arrayPart,
	"additionalItems":      arrayPart,
	"properties":           objectPart,
	"patternProperties":    objectPart,
	"additionalProperties": objectPart,
}

func arrayPart(f *flat, s, v *value) error {
	f.arrays = union(f.arrays, []*value{s})
	items := s.get("items")
	list := items != nil && items.kind == '['
	switch {
	case v.at == "prefixItems":
		return v.mustBe('[', "an array of schemas")
	case v.at == "additionalItems" && !list:
		return &UnsupportedError{s.path(), "additionalItems without an array of items"}
	case list && s.get("prefixItems") != nil:
		return &UnsupportedError{s.path(), "items as an array beside prefixItems"}
	}
	return nil
}

func objectPart(f *flat, s, v *value) error {
	f.objects = union(f.objects, []*value{s})
	if v.at == "additionalProperties" {
		return nil
	}
	if len(v.items) > maxProperties {
		return &TooLargeError{"properties", maxProperties}
	}
	return v.mustBe('{', "an object")
}

func (v *value) mustBe(kind byte, what string) error {
	if byte(v.kind) != kind {
		return &SchemaError{v.path(), "must be " + what}
	}
	return nil
}

var typeNames = map[string]kinds{"null": kindNull, "boolean": kindBool, "integer": kindInteger,
	"number": kindNumber | kindInteger, "string": kindString, "array": kindArray, "object": kindObject}

func setType(f *flat, v *value) error {
	list := []*value{v}
	if v.kind == '[' {
		list = v.items
	}
	var k kinds
	for _, t := range list {
		if t.kind != '"' || typeNames[t.str] == 0 {
			return &SchemaError{t.path(), "must name a type"}
		}
		k |= typeNames[t.str]
	}
	f.kinds = andKinds(f.kinds, k)
	return nil
}

func setEnum(f *flat, v *value) error {
	if err := v.mustBe('[', "an array"); err != nil {
		return err
	}
	return f.restrict(v.items)
}

// restrict allows only the values of list.
func (f *flat) restrict(list []*value) error {
	with, order := map[string]*value{}, []string{}
	for _, v := range list {
		key := v.canonical()
		if _, ok := with[key]; !ok {
			with[key] = v
			order = append(order, key)
		}
	}
	if f.enum == nil {
		f.enum, f.order = with, order
	} else {
		f.intersect(with)
	}
	return nil
}

func setBound(b *bound, v *value, open bool, sign int) error {
	if err := v.mustBe('0', "a number"); err != nil {
		return err
	}
	*b = tighter(*b, bound{new(big.Rat).Set(v.number), open}, sign)
	return nil
}

func setRequired(f *flat, v *value) error {
	if err := v.mustBe('[', "an array of strings"); err != nil {
		return err
	}
	if len(v.items) > maxProperties {
		return &TooLargeError{"required properties", maxProperties}
	}
	for _, name := range v.items {
		if err := name.mustBe('"', "a string"); err != nil {
			return err
		}
		if !slices.Contains(f.required, name.str) {
			f.required = append(f.required, name.str)
		}
	}
	return nil
}
