package grammar

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// sampled is a random schema, with a way to write instances of it.
type sampled struct {
	schema string
	value  func() (string, bool) // compact, in the order of the schema; false: gave up
}

// sampler makes random schemas in the supported subset.
type sampler struct {
	*rand.Rand
	refs []func() (string, bool) // the values of $defs/d0…
}

func (s *sampler) chance(percent int) bool { return s.IntN(100) < percent }

func pick[T any](s *sampler, list ...T) T { return list[s.IntN(len(list))] }

func fixed(text ...string) func(s *sampler) func() (string, bool) {
	return func(s *sampler) func() (string, bool) {
		return func() (string, bool) { return pick(s, text...), true }
	}
}

// any returns a random schema, depth levels above the leaves.
func (s *sampler) any(depth int) sampled {
	if depth > 0 && s.chance(65) {
		switch s.IntN(8) {
		case 0, 1, 2:
			return s.object(depth)
		case 3, 4:
			return s.array(depth)
		case 5:
			return s.anyOf(depth)
		case 6:
			return s.allOf(depth)
		}
		if len(s.refs) > 0 {
			i := s.IntN(len(s.refs))
			return sampled{fmt.Sprintf(`{"$ref":"#/$defs/d%d"}`, i), func() (string, bool) { return s.refs[i]() }}
		}
	}
	switch s.IntN(7) {
	case 0, 1:
		return s.text()
	case 2, 3:
		return s.number()
	case 4:
		return s.enum()
	case 5:
		kinds := pick(s, `"boolean"`, `["null","boolean"]`, `["boolean"]`)
		return sampled{`{"type":` + kinds + `,"description":"x"}`, fixed("true", "false")(s)}
	}
	free := pick(s, `{}`, `true`, `{"title":"t"}`)
	return sampled{free, fixed("null", "12", `"x"`, `[1,{"a":[]}]`, `{"k":"v","z":-1.5e+3}`, `"\u00e9\ud83d\ude00"`)(s)}
}

// texts pairs keywords of strings with valid values.
var texts = []struct {
	keywords string
	values   []string
}{
	{``, []string{`""`, `"hello world"`, `"é€😀\n\"\\"`, `"\u0041\/"`}},
	{`,"minLength":2,"maxLength":5`, []string{`"ab"`, `"日本語"`, `"ab\t\ud83d\ude00"`, `"abcde"`}},
	{`,"maxLength":200`, []string{`""`, `"` + strings.Repeat("long ", 40) + `"`}},
	{`,"minLength":30`, []string{`"` + strings.Repeat("x y", 10) + `"`, `"` + strings.Repeat("€", 77) + `"`}},
	{`,"pattern":"^[A-Z][a-z]{1,8}$"`, []string{`"Ab"`, `"Abcdefghi"`}},
	{`,"pattern":"[0-9]+"`, []string{`"1"`, `"a b 12 c"`}},
	{`,"pattern":"^(foo|bar)(-[a-z]+)*$","maxLength":12`, []string{`"foo"`, `"bar-a-b"`, `"foo-abcdefgh"`}},
	{`,"pattern":"^[^a-zA-Z ]+$"`, []string{`"12"`, `"é-€"`}},
	{`,"format":"date"`, []string{`"2024-02-29"`, `"1999-12-31"`}},
	{`,"format":"time"`, []string{`"10:20:30Z"`, `"23:59:59.123+02:00"`}},
	{`,"format":"date-time"`, []string{`"2024-02-29T10:20:30Z"`, `"1999-12-31T00:00:00.5-11:30"`}},
	{`,"format":"duration"`, []string{`"P1Y2M3DT4H5M6S"`, `"PT1M"`, `"P2W"`}},
	{`,"format":"uuid"`, []string{`"123e4567-e89b-12d3-a456-426614174000"`}},
	{`,"format":"ipv4"`, []string{`"192.168.0.1"`, `"255.255.255.255"`}},
	{`,"format":"ipv6"`, []string{`"::"`, `"2001:db8::1"`}},
	{`,"format":"hostname"`, []string{`"example.com"`, `"a-b.c"`}},
	{`,"format":"email"`, []string{`"joe.doe+x@example.com"`}},
	{`,"format":"uri"`, []string{`"https://example.com/a/b?c=d%20e#f"`, `"http://h:8080"`}},
}

func (s *sampler) text() sampled {
	t := pick(s, texts...)
	kind := pick(s, `"string"`, `["string","null"]`)
	return sampled{`{"type":` + kind + t.keywords + `}`, fixed(t.values...)(s)}
}

func (s *sampler) number() sampled {
	if s.chance(25) {
		return sampled{`{"type":"number"}`, fixed("0", "-1", "3.14", "1e-10", "-2.5E-3", "123456789012345")(s)}
	}
	if s.chance(25) {
		return sampled{`{"type":"integer"}`, fixed("0", "-17", "9223372036854775807")(s)}
	}
	lo := s.IntN(3000) - 1500
	hi := lo + 2 + s.IntN(pick(s, 3, 20, 5000))
	if s.chance(50) {
		keys := pick(s, `"minimum":%d,"maximum":%d`, `"exclusiveMinimum":%d,"exclusiveMaximum":%d`)
		return sampled{fmt.Sprintf(`{"type":"integer",`+keys+`}`, lo, hi), func() (string, bool) {
			return fmt.Sprint(lo + 1 + s.IntN(hi-lo-1)), true
		}}
	}
	keys := pick(s, `"minimum":%d.25,"maximum":%d`, `"exclusiveMinimum":%d.125,"exclusiveMaximum":%d.5`, `"exclusiveMinimum":%d.0e0,"maximum":%d`)
	return sampled{fmt.Sprintf(`{"type":"number",`+keys+`}`, lo, hi), func() (string, bool) {
		n := lo + 1 + s.IntN(hi-lo-1)
		if n >= 0 && s.chance(50) {
			return fmt.Sprintf("%d.%03d", n, s.IntN(1000)), n > lo // stays below n+1 ≤ hi
		}
		return fmt.Sprint(n), true
	}}
}

func (s *sampler) enum() sampled {
	values := []string{`"red"`, `"reddish"`, `"gr\"een"`, `null`, `true`, `-1.5`, `42`, `420`, `{"a":[1,"x"]}`, `[]`, `"日本"`}
	s.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
	values = values[:1+s.IntN(len(values))]
	if s.chance(30) {
		return sampled{`{"const":` + values[0] + `}`, fixed(values[0])(s)}
	}
	return sampled{`{"enum":[` + strings.Join(values, ",") + `]}`, fixed(values...)(s)}
}

func (s *sampler) array(depth int) sampled {
	item := s.any(depth - 1)
	lo, hi := s.IntN(3), -1
	schema := `{"type":"array","items":` + item.schema
	if s.chance(40) {
		hi = lo + s.IntN(4)
		schema += fmt.Sprintf(`,"maxItems":%d`, hi)
	}
	var first []sampled
	if s.chance(25) {
		first = []sampled{s.any(depth - 1), s.any(depth - 1)}
		schema += `,"prefixItems":[` + first[0].schema + `,` + first[1].schema + `]`
	}
	return sampled{fmt.Sprintf(`%s,"minItems":%d}`, schema, lo), func() (string, bool) {
		n, top := lo, hi
		if top < 0 {
			top = lo + 3
		}
		n += s.IntN(top - lo + 1)
		var items []string
		for i := range n {
			source := item
			if i < len(first) {
				source = first[i]
			}
			v, ok := source.value()
			if !ok {
				return "", false
			}
			items = append(items, v)
		}
		return "[" + strings.Join(items, ",") + "]", true
	}}
}

var memberNamesToTry = []string{"a", "ab", "abc", "name", "with space", `q\"uote`, "日本", "x1", "x2", "", "id"}

func (s *sampler) object(depth int) sampled {
	names := append([]string(nil), memberNamesToTry...)
	s.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:s.IntN(5)]
	var parts, required []string
	values, must := map[string]func() (string, bool){}, map[string]bool{}
	for _, n := range names {
		v := s.any(depth - 1)
		values[n] = v.value
		parts = append(parts, `"`+n+`":`+v.schema)
		if s.chance(50) {
			must[n] = true
			required = append(required, `"`+n+`"`)
		}
	}
	schema := `{"type":"object","properties":{` + strings.Join(parts, ",") + `},"required":[` + strings.Join(required, ",") + `]`
	var more func() (string, bool)
	switch s.IntN(4) {
	case 0, 1:
		schema += `,"additionalProperties":false`
	case 2:
		v := s.any(depth - 1)
		schema, more = schema+`,"additionalProperties":`+v.schema, v.value
	}
	if s.chance(20) {
		schema += `,"patternProperties":{"^p_":` + s.number().schema + `}`
	}
	if s.chance(20) {
		schema += fmt.Sprintf(`,"minProperties":%d`, s.IntN(len(names)+1))
	}
	if s.chance(20) {
		schema += fmt.Sprintf(`,"maxProperties":%d`, len(names)+s.IntN(3))
	}
	return sampled{schema + "}", func() (string, bool) {
		var members []string
		for _, n := range names {
			if !must[n] && s.chance(50) {
				continue
			}
			v, ok := values[n]()
			if !ok {
				return "", false
			}
			members = append(members, `"`+n+`":`+v)
		}
		if more != nil && s.chance(50) {
			if v, ok := more(); ok {
				members = append(members, `"extra":`+v)
			}
		}
		return "{" + strings.Join(members, ",") + "}", true
	}}
}

func (s *sampler) anyOf(depth int) sampled {
	a, b := s.any(depth-1), s.any(depth-1)
	return sampled{`{"anyOf":[` + a.schema + `,` + b.schema + `]}`, func() (string, bool) {
		if s.chance(50) {
			return a.value()
		}
		return b.value()
	}}
}

func (s *sampler) allOf(depth int) sampled {
	a, b := s.any(depth-1), s.any(depth-1)
	return sampled{`{"allOf":[` + a.schema + `,` + b.schema + `]}`, a.value}
}

// root returns a schema with definitions, which may refer to each other.
func (s *sampler) root() sampled {
	s.refs = nil
	level := 0
	n := s.IntN(3)
	schemas, values := make([]string, n), make([]func() (string, bool), n)
	for i := range n {
		s.refs = append(s.refs, func() (string, bool) {
			if level++; level > 20 || values[i] == nil {
				return "", false
			}
			defer func() { level-- }()
			return values[i]()
		})
	}
	for i := range n {
		d := s.any(2)
		schemas[i], values[i] = fmt.Sprintf(`"d%d":%s`, i, d.schema), d.value
	}
	top := s.any(3)
	return sampled{fmt.Sprintf(`{"allOf":[%s],"$defs":{%s}}`, top.schema, strings.Join(schemas, ",")), func() (string, bool) {
		level = 0
		return top.value()
	}}
}

// validator compiles a schema with an independent library.
func validator(t *testing.T, schema string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatalf("the validator refuses %s: %v", schema, err)
	}
	return s
}

func validate(s *jsonschema.Schema, text string) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// TestRandomSchemas walks the masks of random schemas at random and has every
// output validated; and the other way round, has every valid instance allowed.
func TestRandomSchemas(t *testing.T) {
	v := realVocabulary(t)
	s := &sampler{Rand: rand.New(rand.NewPCG(9, 10))}
	var schemas, empty, walks, given, instances int
	for schemas < randomSchemas {
		top := s.root()
		g, err := JSONSchema(t.Context(), []byte(top.schema))
		var wrong *SchemaError
		if errors.As(err, &wrong) {
			empty++
			continue
		}
		var unsupported *UnsupportedError
		if errors.As(err, &unsupported) && strings.HasPrefix(unsupported.Keyword, "minProperties") {
			continue
		}
		if err != nil {
			t.Fatalf("JSONSchema(%s): %v", top.schema, err)
		}
		schemas++
		reference := validator(t, top.schema)
		for range 3 {
			text, ok := walk(t, s, g, v)
			if !ok {
				given++
				continue
			}
			walks++
			if err := validate(reference, text); err != nil {
				t.Fatalf("%s\nallowed %q\n%v", top.schema, text, err)
			}
		}
		for range 3 {
			text, ok := top.value()
			if ok && validate(reference, text) == nil && !strings.Contains(top.schema, "allOf\":[{\"allOf") {
				instances++
				spell(t, s, g, v, text, top.schema)
			}
		}
	}
	t.Logf("%d schemas, %d more without instance, %d walks, %d given up, %d instances", schemas, empty, walks, given, instances)
	if walks < randomSchemas*5/2 || instances < randomSchemas {
		t.Errorf("%d walks and %d instances are too few to say anything", walks, instances)
	}
}
