package grammar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// bombs are schemas that would take unbounded time or memory without limits.
func bombs() map[string]string {
	doubling := func(keyword string) string {
		var s strings.Builder
		s.WriteString(`{"$ref":"#/$defs/a0","$defs":{`)
		for i := range 40 {
			fmt.Fprintf(&s, `"a%d":{"%s":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]},`, i, keyword, i+1, i+1)
		}
		return s.String() + `"a40":{"type":"string","minLength":1}}}`
	}
	list := func(n int, item string) string { return strings.TrimSuffix(strings.Repeat(item+",", n), ",") }
	var properties strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&properties, `"%d":{},`, i)
	}
	return map[string]string{
		"bytes":               `{"title":"` + strings.Repeat("x", maxSchemaBytes) + `"}`,
		"deep arrays":         strings.Repeat(`{"items":`, 10_000) + `{}` + strings.Repeat(`}`, 10_000),
		"deep garbage":        `{"default":` + strings.Repeat(`[`, 200_000),
		"doubling anyOf":      doubling("anyOf"),
		"product of anyOf":    `{"allOf":[` + list(20, `{"anyOf":[{"minLength":1},{"minLength":2},{"maxLength":3}]}`) + `]}`,
		"many properties":     `{"type":"object","properties":{` + properties.String() + `"x":{}}}`,
		"long array":          `{"type":"array","items":{},"minItems":1000000}`,
		"longer array":        `{"type":"array","items":{"type":"array","items":{"type":"array","maxItems":40000},"maxItems":40000},"maxItems":40000}`,
		"max properties":      `{"type":"object","maxProperties":1000000000}`,
		"repeat":              `{"type":"string","pattern":"^a{1000000}$"}`,
		"nested repeat":       `{"type":"string","pattern":"^((a{100}){100}){100}$"}`,
		"wide repeat":         `{"type":"string","pattern":"^(abcdefghijabcdefghijabcdefghij){1000}$"}`,
		"exponential pattern": `{"type":"string","pattern":"^(a|b)*a(a|b){40}$"}`,
		"searched pattern":    `{"type":"string","pattern":"a.{40}b"}`,
		"pattern and length":  `{"type":"string","pattern":"^a","maxLength":1000000}`,
		"product of patterns": `{"pattern":"a.{9}$","allOf":[{"pattern":"b.{8}$"},{"pattern":"c.{7}d"},{"pattern":"e.{6}f"},{"pattern":"g.{5}h"}],"type":"string"}`,
		"exponent":            `{"minimum":1e999999999}`,
		"digits":              `{"minimum":0.` + strings.Repeat("3", 500) + `}`,
		"property patterns":   `{"type":"object","patternProperties":{"a":{},"b":{},"c":{},"d":{},"e":{}}}`,
	}
}

func TestBombs(t *testing.T) {
	for name, schema := range bombs() {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := JSONSchema(t.Context(), []byte(schema))
			var large *TooLargeError
			if !errors.As(err, &large) {
				t.Errorf("JSONSchema: %v, want a TooLargeError", err)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			} else {
				t.Logf("%v: %v", took, err)
			}
		})
	}
}

// TestHeavySchemas compiles what is large but within the limits.
func TestHeavySchemas(t *testing.T) {
	var enum, properties, doubling strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&enum, `"v%d",`, i)
	}
	for i := range 2000 {
		fmt.Fprintf(&properties, `"p%d":{"type":"integer"},`, i)
	}
	for i := range 40 {
		fmt.Fprintf(&doubling, `"a%d":{"type":"object","properties":{"x":{"$ref":"#/$defs/a%d"},"y":{"$ref":"#/$defs/a%d"}}},`, i, i+1, i+1)
	}
	for name, schema := range map[string]string{
		"enum":       `{"enum":[` + enum.String() + `"v"]}`,
		"properties": `{"type":"object","properties":{` + properties.String() + `"x":{}},"additionalProperties":false}`,
		"doubling":   `{"$ref":"#/$defs/a0","$defs":{` + doubling.String() + `"a40":{}}}`,
		"length":     `{"type":"string","maxLength":1000000000}`,
	} {
		began := time.Now()
		g := mustSchema(t, schema)
		m := NewMatcher(g, byteVocabulary())
		if err := m.Mask(make([]uint64, 5)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, time.Since(began))
	}
}

func TestCompilationEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := JSONSchema(ctx, []byte(bombs()["exponential pattern"])); !errors.Is(err, context.Canceled) {
		t.Errorf("JSONSchema: %v, want the context's error", err)
	}
	if _, err := Regex(ctx, `(a|b)*a(a|b){40}`); !errors.Is(err, context.Canceled) {
		t.Errorf("Regex: %v, want the context's error", err)
	}
}
