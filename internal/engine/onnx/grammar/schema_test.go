package grammar

import (
	"errors"
	"testing"
)

func mustSchema(t testing.TB, schema string) *Grammar {
	t.Helper()
	g, err := JSONSchema(t.Context(), []byte(schema))
	if err != nil {
		t.Fatalf("JSONSchema(%s): %v", schema, err)
	}
	return g
}

func TestSchema(t *testing.T) {
	for _, c := range []struct {
		schema  string
		yes, no []string
	}{
		{`true`, []string{`1`, `[]`, `"a"`, `{"a":{}}`}, []string{``, `a`}},
		{`{"type":"null"}`, []string{`null`}, []string{`nul`, `nulll`}},
		{`{"type":["string","null"]}`, []string{`null`, `"null"`}, []string{`1`}},
		{`{"type":"integer"}`, []string{`0`, `-1`, `9223372036854775807`, `-9223372036854775808`},
			[]string{`1.0`, `9223372036854775808`, `-0`, `01`, `1e3`}},
		{`{"type":"integer","minimum":-5,"exclusiveMaximum":12}`, []string{`-5`, `-1`, `0`, `9`, `11`}, []string{`-6`, `12`, `20`, `-`}},
		{`{"type":"integer","minimum":0.5,"maximum":1000}`, []string{`1`, `999`, `1000`}, []string{`0`, `1001`}},
		{`{"type":"number","minimum":0,"maximum":1}`, []string{`0`, `1`, `0.5`, `1.0`, `0.99999`, `0.000`}, []string{`1.01`, `-0.1`, `2`, `1.`, `0.5e1`}},
		{`{"type":"number","exclusiveMinimum":-1.5,"exclusiveMaximum":2.25}`, []string{`-1.49`, `-1`, `-0.01`, `2.249`, `2.2`, `2.10`}, []string{`-1.5`, `-1.50`, `2.25`, `2.3`, `-2`}},
		{`{"type":"number","exclusiveMinimum":0}`, []string{`0.001`, `17`, `123456789012345`}, []string{`0`, `0.0`, `-1`}},
		{`{"type":"string","minLength":2,"maxLength":3}`, []string{`"ab"`, `"€é😀"`, `"\ud83d\ude00a"`, `"\n\""`}, []string{`"a"`, `"abcd"`, `""`}},
		{`{"type":"string","pattern":"^[a-c]+$"}`, []string{`"abc"`, `"\u0061"`}, []string{`"abd"`, `""`, `"\u0064"`}},
		{`{"type":"string","pattern":"b"}`, []string{`"abc"`, `"b"`, "\"\\nb\""}, []string{`"ac"`}},
		{`{"type":"string","pattern":"^a.c$"}`, []string{`"abc"`, `"a😀c"`}, []string{`"a\nc"`, `"a\u2028c"`}},
		{`{"type":"string","pattern":"^a*$","minLength":2,"maxLength":3}`, []string{`"aa"`, `"aaa"`}, []string{`"a"`, `"aaaa"`}},
		{`{"type":"string","pattern":"\\bfoo\\b"}`, []string{`"a foo b"`, `"foo"`}, []string{`"afoo"`, `"foob"`}},
		{`{"enum":["a",1,null,{"b":[1.50]}]}`, []string{`"a"`, `1`, `null`, `{"b":[1.50]}`}, []string{`"b"`, `{"b": [1.50]}`}},
		{`{"type":"string","enum":["a",1,"b"],"const":"b"}`, []string{`"b"`}, []string{`"a"`, `1`}},
		{`{"enum":["x","xyz",3,30],"minLength":2,"maximum":5}`, []string{`"xyz"`, `3`}, []string{`"x"`, `30`}},
		{`{"const":"ä\n"}`, []string{`"ä\n"`}, []string{`"\u00e4\n"`}},
		{`{"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":2}`, []string{`[true]`, `[true, false]`}, []string{`[]`, `[true,true,true]`, `[true,]`}},
		{`{"type":"array","prefixItems":[{"const":1},{"const":2}],"items":false}`, []string{`[]`, `[1]`, `[1,2]`}, []string{`[2]`, `[1,2,3]`}},
		{`{"type":"array","prefixItems":[{"const":1}],"items":{"const":2},"minItems":2}`, []string{`[1,2]`, `[1,2,2]`}, []string{`[1]`, `[2,2]`}},
		{`{"type":"array","items":[{"const":1},{"const":2}],"additionalItems":false,"minItems":2}`, []string{`[1,2]`}, []string{`[]`, `[1]`, `[2]`, `[1,2,3]`}},
		{`{"type":"array","items":[{"const":1}],"additionalItems":{"const":2}}`, []string{`[]`, `[1]`, `[1,2]`, `[1,2,2]`}, []string{`[2]`, `[1,1]`}},
		{`{"type":"array","items":[{"const":1}]}`, []string{`[]`, `[1,"x"]`}, []string{`[2]`}},
		{`{"type":"array","maxItems":0}`, []string{`[]`}, []string{`[1]`}},
		{`{"properties":{"a":{"type":"integer"},"b":{"const":"x"},"c":true},"required":["b"],"type":"object","additionalProperties":false}`,
			[]string{`{"b":"x"}`, `{"a":1,"b":"x"}`, `{"a": 1, "b": "x", "c": []}`, "{\n\t\"b\": \"x\"\n}"},
			[]string{`{}`, `{"a":1}`, `{"b":"x","a":1}`, `{"b":"x","d":1}`, `{"b":"x",}`}},
		{`{"type":"object","properties":{"ab":{"const":1}}}`, []string{`{"ab":1,"a":2}`, `{"abc":2}`, `{"x":{}}`, `{"a":0,"a":1}`}, []string{`{"ab":2}`, `{"x":1,"ab":2}`, `{"a\u0062":2}`}},
		{`{"type":"object","additionalProperties":{"type":"integer"},"minProperties":1,"maxProperties":2}`,
			[]string{`{"a":1}`, `{"a":1,"b":2}`}, []string{`{}`, `{"a":1,"b":2,"c":3}`, `{"a":""}`}},
		{`{"type":"object","propertyNames":{"type":"string"},"additionalProperties":{"const":1}}`, []string{`{}`, `{"a":1,"b":1}`}, []string{`{"a":2}`}},
		{`{"type":"object","properties":{"a":{},"b":{},"c":{}},"minProperties":2,"additionalProperties":false}`,
			[]string{`{"a":1,"b":1}`, `{"b":1,"c":1}`, `{"a":1,"b":1,"c":1}`}, []string{`{"a":1}`, `{"c":1}`, `{}`}},
		{`{"type":"object","patternProperties":{"^n":{"type":"integer"},"s$":{"maximum":9}},"properties":{"ns":{"minimum":3}},"additionalProperties":false}`,
			[]string{`{"ns":3}`, `{"n":10}`, `{"nas":7}`, `{"as":"x"}`}, []string{`{"ns":2}`, `{"ns":10}`, `{"n":""}`, `{"nas":10}`, `{"x":1}`, `{"as":10}`}},
		{`{"$ref":"#/$defs/list","$defs":{"list":{"anyOf":[{"type":"null"},{"type":"object","properties":{"next":{"$ref":"#/$defs/list"}},"required":["next"],"additionalProperties":false}]}}}`,
			[]string{`null`, `{"next":null}`, `{"next":{"next":{"next":null}}}`}, []string{`{}`, `{"next":{"next":1}}`}},
		{`{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}}},{"properties":{"a":{"minimum":3},"b":{"type":"null"}},"required":["a"]}],"maxProperties":2}`,
			[]string{`{"a":3}`, `{"a":4,"b":null}`, `{"a":4,"z":null}`}, []string{`{"a":2}`, `{}`, `{"a":4,"b":1}`}},
		{`{"anyOf":[{"required":["a"]},{"required":["b"]}],"type":"object","properties":{"a":{"const":1},"b":{"const":2}},"additionalProperties":false}`,
			[]string{`{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`}, []string{`{}`}},
		{`{"oneOf":[{"type":"string"},{"type":"integer"},{"type":"object","properties":{"k":{"const":"a"}},"required":["k"]},{"type":"object","properties":{"k":{"const":"b"},"v":{}},"required":["k","v"],"additionalProperties":false}]}`,
			[]string{`"a"`, `1`, `{"k":"a"}`, `{"k":"b","v":1}`}, []string{`{"k":"b"}`, `{}`}},
		{`{"oneOf":[{"minimum":3},{"exclusiveMaximum":3}],"type":"integer"}`, []string{`3`, `2`}, nil},
		{`{"type":"string","format":"date"}`, []string{`"2024-02-29"`, `"2023-12-31"`, `"2000-02-29"`}, []string{`"2023-02-29"`, `"1900-02-29"`, `"2023-13-01"`, `"2023-04-31"`}},
		{`{"type":"string","format":"ipv6"}`, []string{`"::"`, `"::1"`, `"1:2:3:4:5:6:7:8"`, `"fe80::1:2"`, `"1::"`}, []string{`"1:2:3:4:5:6:7"`, `":::"`, `"1::2::3"`, `"12345::"`}},
		{`{"type":"object","properties":{"a\"\\\n":{"const":0}},"required":["a\"\\\n"],"additionalProperties":false}`, []string{`{"a\"\\\n":0}`}, []string{`{"a":0}`}},
		{`{"type":"object","required":["x"],"additionalProperties":{"type":"null"}}`, []string{`{"x":null}`, `{"x":null,"y":null}`}, []string{`{}`, `{"x":1}`}},
	} {
		t.Run(c.schema, func(t *testing.T) { check(t, mustSchema(t, c.schema), c.yes, c.no) })
	}
}

func TestUnsupportedKeywords(t *testing.T) {
	for schema, want := range map[string]UnsupportedError{
		`{"not":{}}`: {"#", "not"},
		`{"if":{}}`:  {"#", "if"},
		`{"properties":{"a~/b":{"items":{"multipleOf":2}}}}`:                                {"#/properties/a~0~1b/items", "multipleOf"},
		`{"type":"array","uniqueItems":true}`:                                               {"#", "uniqueItems"},
		`{"type":"array","contains":{}}`:                                                    {"#", "contains"},
		`{"type":"array","items":[{}],"prefixItems":[{}]}`:                                  {"#", "items as an array beside prefixItems"},
		`{"type":"array","items":{},"additionalItems":false}`:                               {"#", "additionalItems without an array of items"},
		`{"type":"array","prefixItems":[{}],"additionalItems":false}`:                       {"#", "additionalItems without an array of items"},
		`{"anyOf":[{},{"dependentRequired":{}}]}`:                                           {"#/anyOf/1", "dependentRequired"},
		`{"dependentSchemas":{}}`:                                                           {"#", "dependentSchemas"},
		`{"propertyNames":{}}`:                                                              {"#", "propertyNames"},
		`{"propertyNames":{"type":"string","maxLength":3}}`:                                 {"#", "propertyNames"},
		`{"propertyNames":{"type":"null"}}`:                                                 {"#", "propertyNames"},
		`{"unevaluatedProperties":false}`:                                                   {"#", "unevaluatedProperties"},
		`{"unevaluatedItems":false}`:                                                        {"#", "unevaluatedItems"},
		`{"$dynamicRef":"#"}`:                                                               {"#", "$dynamicRef"},
		`{"$anchor":"a"}`:                                                                   {"#", "$anchor"},
		`{"$ref":"http://example.com/x"}`:                                                   {"#/$ref", "$ref other than a pointer into the schema itself"},
		`{"contentEncoding":"base64"}`:                                                      {"#", "contentEncoding"},
		`{"nullable":true}`:                                                                 {"#", "nullable"},
		`{"minlength":3}`:                                                                   {"#", "minlength"},
		`{"type":"string","format":"iri"}`:                                                  {"#", "format: iri"},
		`{"oneOf":[{"type":"integer"},{"type":"number"}]}`:                                  {"#", "oneOf whose branches may overlap"},
		`{"type":"object","additionalProperties":true,"minProperties":2}`:                   {"#", "minProperties beyond the listed properties and one more"},
		`{"type":"object","properties":{"x":{"minProperties":3,"type":"object"}}}`:          {"#/properties/x", "minProperties beyond the listed properties and one more"},
		`{"oneOf":[{"type":"object","required":["a"]},{"type":"object","required":["b"]}]}`: {"#", "oneOf whose branches may overlap"},
	} {
		_, err := JSONSchema(t.Context(), []byte(schema))
		var got *UnsupportedError
		if !errors.As(err, &got) || *got != want {
			t.Errorf("JSONSchema(%s) = %v, want %v", schema, err, &want)
		}
	}
}

func TestWrongSchemas(t *testing.T) {
	for _, schema := range []string{``, `{`, `{} {}`, `[]`, `1`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `{"type":"text"}`, `{"type":5}`,
		`false`, `{"enum":[]}`, `{"enum":5}`, `{"type":"integer","enum":["a"]}`, `{"minLength":-1}`, `{"minLength":1.5}`,
		`{"required":"a"}`, `{"properties":[]}`, `{"properties":{"a":5},"type":"object"}`, `{"$ref":"#"}`, `{"$ref":"#/$defs/x"}`,
		`{"anyOf":[{"$ref":"#"}]}`, `{"allOf":[]}`, `{"type":"integer","minimum":2,"maximum":1}`, `{"type":"integer","minimum":1e300}`,
		`{"type":"string","minLength":2,"maxLength":1}`, `{"type":"array","minItems":2,"maxItems":1}`,
		`{"type":"array","minItems":1,"items":false}`, `{"type":"object","required":["a"],"additionalProperties":false}`,
		`{"type":"object","required":["a"],"maxProperties":0}`, `{"allOf":[{"type":"string"},{"type":"null"}]}`,
		`{"$ref":"#/$defs/a","$defs":{"a":{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}},"required":["a"]}}}`,
		`{"type":"string","pattern":"^a$","minLength":2}`, `{"type":"string","pattern":"a\\bb"}`,
	} {
		g, err := JSONSchema(t.Context(), []byte(schema))
		var want *SchemaError
		if !errors.As(err, &want) {
			t.Errorf("JSONSchema(%s) = %v, %v, want a SchemaError", schema, g, err)
		}
	}
	var pattern *PatternError
	for _, p := range []string{`(?=a)`, `(?!a)`, `(a)\\1`, `(`, `\\p{Foo}`, `a**`} {
		if _, err := JSONSchema(t.Context(), []byte(`{"type":"string","pattern":"`+p+`"}`)); !errors.As(err, &pattern) {
			t.Errorf("pattern %s: %v, want a PatternError", p, err)
		}
	}
}
