package onnx

import (
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"math"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"infer/internal/engine/onnx/grammar"
	"infer/internal/openai"
)

// keptGrammars is how many compiled grammars stay for requests that repeat
// their schema. A grammar keeps masks, so a repeated one is also faster.
const keptGrammars = 64

// grammars compiles what a request asks of its output, on the request's own
// goroutine, never on the engine's.
type grammars struct {
	kept *lru.Cache[string, *grammar.Grammar]
}

func newGrammars() *grammars {
	kept, err := lru.New[string, *grammar.Grammar](keptGrammars)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &grammars{kept}
}

// get returns the grammar kept under key, or compiles it.
func (g *grammars) get(key string, compile func() (*grammar.Grammar, error)) (*grammar.Grammar, error) {
	if c, ok := g.kept.Get(key); ok {
		return c, nil
	}
	c, err := compile()
	if err != nil {
		return nil, err
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	g.kept.Add(key, c)
	return c, nil
}

func (g *grammars) schema(ctx context.Context, schema jsontext.Value) (*grammar.Grammar, error) {
	return g.get("schema "+string(schema), func() (*grammar.Grammar, error) { return grammar.JSONSchema(ctx, schema) })
}

func (g *grammars) object() (*grammar.Grammar, error) {
	return g.get("object", func() (*grammar.Grammar, error) { return grammar.JSONObject(), nil })
}

// grammarFault types a compilation's error for the client.
func grammarFault(param string, err error) *openai.Error {
	code := openai.CodeInvalidValue
	if _, ok := errors.AsType[*grammar.UnsupportedError](err); ok {
		code = openai.CodeUnsupported
	}
	return openai.Invalid(param, code, "%s: %v", param, err)
}

// structured takes response_format and vLLM's structured_outputs.
func (f fields) structured(ctx context.Context, g *grammars) (*grammar.Grammar, *openai.Error) {
	format, fault := take(f, "response_format", fields{}, "an object")
	if fault != nil {
		return nil, fault
	}
	outputs, fault := take(f, "structured_outputs", fields{}, "an object")
	if fault != nil {
		return nil, fault
	}
	if len(format) > 0 && len(outputs) > 0 {
		return nil, openai.Invalid("structured_outputs", openai.CodeInvalidValue, "response_format and structured_outputs exclude each other; give one")
	}
	if len(outputs) > 0 {
		return outputs.structuredOutputs(ctx, g)
	}
	return format.responseFormat(ctx, g)
}

func (f fields) responseFormat(ctx context.Context, g *grammars) (*grammar.Grammar, *openai.Error) {
	if len(f) == 0 {
		return nil, nil
	}
	kind, fault := take(f, "type", "", "a string")
	if fault != nil {
		fault.Param = "response_format.type"
		return nil, fault
	}
	switch kind {
	case "text":
		return nil, nil
	case "json_object":
		c, err := g.object()
		if err != nil {
			return nil, grammarFault("response_format", err)
		}
		return c, nil
	case "json_schema":
		var s struct {
			Schema jsontext.Value `json:"schema"`
		}
		if err := json.Unmarshal(f["json_schema"], &s); err != nil || s.Schema == nil {
			return nil, openai.Invalid("response_format.json_schema", openai.CodeMissingField, "response_format.json_schema must be an object with name and schema")
		}
		c, err := g.schema(ctx, s.Schema)
		if err != nil {
			return nil, grammarFault("response_format.json_schema.schema", err)
		}
		return c, nil
	}
	return nil, openai.Invalid("response_format.type", openai.CodeInvalidValue, "response_format.type must be text, json_object or json_schema, got %q", kind)
}

// structuredOutputs takes exactly one of vLLM's forms.
func (f fields) structuredOutputs(ctx context.Context, g *grammars) (*grammar.Grammar, *openai.Error) {
	if len(f) != 1 {
		return nil, openai.Invalid("structured_outputs", openai.CodeInvalidValue, "structured_outputs must hold exactly one of json, json_object, regex and choice")
	}
	for name, raw := range f {
		param := "structured_outputs." + name
		c, err := g.structured(ctx, name, raw)
		switch {
		case errors.Is(err, errForm):
			return nil, openai.Invalid(param, openai.CodeInvalidValue, "%s has a wrong type; json is a schema, json_object is true, regex a string, choice a list of strings", param)
		case errors.Is(err, errForms):
			return nil, openai.Invalid(param, openai.CodeUnsupported, "%s is not supported; use json, json_object, regex or choice", param)
		case err != nil:
			return nil, grammarFault(param, err)
		}
		return c, nil
	}
	return nil, nil
}

var (
	errForm  = errors.New("wrong type")
	errForms = errors.New("unknown form")
)

func (g *grammars) structured(ctx context.Context, name string, raw jsontext.Value) (*grammar.Grammar, error) {
	var text string
	isText := json.Unmarshal(raw, &text) == nil
	switch name {
	case "json":
		if isText {
			raw = jsontext.Value(text) // vLLM takes a schema as text too
		}
		return g.schema(ctx, raw)
	case "json_object":
		if string(raw) != "true" {
			return nil, errForm
		}
		return g.object()
	case "regex":
		if !isText {
			return nil, errForm
		}
		return g.get("regex "+text, func() (*grammar.Grammar, error) { return grammar.Regex(ctx, text) })
	case "choice":
		var list []string
		if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
			return nil, errForm
		}
		return g.get("choice "+string(raw), func() (*grammar.Grammar, error) { return grammar.Choice(list) })
	}
	return nil, errForms
}

// maxParallelCalls bounds how many calls one forced answer may hold.
const maxParallelCalls = 16

// calls is the grammar of an answer that must be tool calls.
func (g *grammars) calls(ctx context.Context, u *toolUse, f callFormat) (*grammar.Grammar, *openai.Error) {
	var one []*grammar.Grammar
	key := strings.Builder{}
	fmt.Fprintf(&key, "calls %q %q %v %v", f.open, u.choice, u.named, u.parallel)
	for i, t := range u.tools {
		if u.named && t.name != u.choice {
			continue
		}
		args, err := g.object()
		if t.parameters != nil {
			args, err = g.schema(ctx, t.parameters)
		}
		if err != nil {
			return nil, grammarFault(fmt.Sprintf("tools[%d].function.parameters", i), err)
		}
		one = append(one, f.call(t.name, args))
		fmt.Fprintf(&key, " %q %s", t.name, t.parameters)
	}
	c, err := g.get(key.String(), func() (*grammar.Grammar, error) {
		return f.grammar(grammar.Alt(one...), u.parallel && !u.named), nil
	})
	if err != nil {
		return nil, grammarFault("tools", err)
	}
	return c, nil
}

// call is one call of a function.
func (f callFormat) call(name string, args *grammar.Grammar) *grammar.Grammar {
	if f.headed != "" {
		return grammar.Seq(grammar.Literal(f.open+name+f.headed), args)
	}
	return grammar.Seq(grammar.Literal(fmt.Sprintf(`{"name": %q, %q: `, name, f.arguments)), args, grammar.Literal("}"))
}

// grammar is one call, or several, as the format writes them.
func (f callFormat) grammar(call *grammar.Grammar, several bool) *grammar.Grammar {
	more := 0
	if several {
		more = maxParallelCalls - 1
	}
	lit := grammar.Literal
	switch {
	case f.headed != "":
		return grammar.Seq(call, grammar.Repeat(call, 0, more))
	case f.list:
		list := grammar.Seq(call, grammar.Repeat(grammar.Seq(lit(", "), call), 0, more))
		return grammar.Seq(lit(f.open+"["), list, lit("]"+f.close))
	case f.bare:
		return grammar.Seq(call, grammar.Repeat(grammar.Seq(lit("; "), call), 0, more))
	}
	wrapped := grammar.Seq(lit(f.open+"\n"), call, lit("\n"+f.close))
	return grammar.Seq(wrapped, grammar.Repeat(grammar.Seq(lit("\n"), wrapped), 0, more))
}

// guide holds one sequence to its grammar.
type guide struct {
	m    *grammar.Matcher
	bits []uint64
	// after is the token that ends the model's thoughts, which are free; -1
	// when the grammar holds from the first token.
	after int32
}

func newGuide(g *grammar.Grammar, v *grammar.Vocabulary, after int32) *guide {
	return &guide{m: grammar.NewMatcher(g, v), bits: make([]uint64, (v.Size()+63)/64), after: after}
}

// mask forbids the tokens that may not come next. It reports false when none
// may.
func (g *guide) mask(logits []float32) bool {
	if g.after >= 0 {
		return true
	}
	if g.m.Mask(g.bits) != nil {
		return false
	}
	no := float32(math.Inf(-1))
	for w, bits := range g.bits {
		row := logits[min(w*64, len(logits)):min(w*64+64, len(logits))]
		switch bits {
		case 0:
			for i := range row {
				row[i] = no
			}
		case ^uint64(0):
		default:
			for i := range row {
				if bits>>i&1 == 0 {
					row[i] = no
				}
			}
		}
	}
	return true
}

// take follows a drawn token and reports whether the grammar allows it.
func (g *guide) take(id int32) bool {
	if g.after >= 0 {
		if id == g.after {
			g.after = -1
		}
		return true
	}
	return g.m.Advance(id) == nil
}

// finished reports that nothing but an end may follow.
func (g *guide) finished() bool { return g.after < 0 && g.m.Finished() }
