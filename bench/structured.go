package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// maxStructureCost is what a JSON schema may add to a token's time.
const maxStructureCost = 0.1

// structuredStreams are the streams at once of the structured suite.
var structuredStreams = []int{1, 4}

// The forms of an answer. A schema that the server has seen is compiled, and
// the masks it needed are kept; both are to be done for a new one.
const (
	formFree = "free"
	formSeen = "JSON schema"
	formNew  = "JSON schema, new"
)

var forms = []string{formFree, formSeen, formNew}

// formSchema is a JSON schema of strings, numbers and arrays that cannot be met
// with fewer tokens than a window has. Its name makes it new.
func formSchema(name string) fields {
	text := fields{"type": "string", "minLength": 8, "maxLength": 60}
	list := fields{"type": "array", "minItems": 12, "maxItems": 16, "items": text}
	person := fields{"type": "object", "additionalProperties": false, "required": []string{"name", "age", "hobbies"},
		"properties": fields{"name": text, "age": fields{"type": "integer", "minimum": 0, "maximum": 120}, "hobbies": list}}
	properties := fields{name: text, "title": text, "score": fields{"type": "number"}, "tags": list,
		"people": fields{"type": "array", "minItems": 3, "maxItems": 6, "items": person}}
	return fields{"type": "json_schema", "json_schema": fields{"name": "story", "strict": true, "schema": fields{
		"type": "object", "additionalProperties": false, "properties": properties, "required": []string{name, "title", "score", "tags", "people"}}}}
}

// formSteps is longer than elsewhere, since the forms differ by little.
func (p *plan) formSteps() int { return 2 * p.steps }

// ask is what a request of a form has besides the usual.
func (p *plan) ask(form string) fields {
	switch form {
	case formSeen:
		return fields{"response_format": formSchema("summary")}
	case formNew:
		return fields{"response_format": formSchema(fmt.Sprintf("summary_%x", p.rng.Uint64()))}
	}
	return nil
}

// measureStructured finds what it costs to hold an answer to a JSON schema.
func (p *plan) measureStructured(ctx context.Context, s setting) (t *table, err error) {
	most := slices.Max(structuredStreams)
	st, err := p.start(ctx, s, room{slots: most, context: max(p.context, windowTokens(most, streamPrompt, p.formSteps()))}, infer)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	t = &table{Suite: "structured", setting: s,
		Task:    fmt.Sprintf("prompts of %d tokens, %d decoded tokens a stream; tokens of all streams", streamPrompt, p.formSteps()),
		Columns: []column{{"tokens per CPU-second", "%.0f"}, {"tokens per second", "%.0f"}}}
	var compared []comparedRows
	for _, form := range forms[1:] {
		for _, n := range structuredStreams {
			compared = append(compared, comparedRows{Name: fmt.Sprintf("%s / %s, %s", form, formFree, countStreams(n)),
				A: rowOf(form, n), B: rowOf(formFree, n), Goal: goal{AtLeast: 1 / (1 + maxStructureCost)}})
		}
	}
	err = p.collect(ctx, t, compared, func(ctx context.Context, round int, r *rounds) error {
		for _, n := range structuredStreams {
			if err := p.takeStructured(ctx, st.server, n, round, r); err != nil {
				return fmt.Errorf("%s: %w", countStreams(n), err)
			}
		}
		return nil
	})
	return t, err
}

// takeStructured measures n streams of each form with the same prompts.
func (p *plan) takeStructured(ctx context.Context, s *server, n, round int, r *rounds) error {
	got := map[string]sample{}
	err := untilFit(func() error {
		prompts, err := p.prompts(ctx, s, n, streamPrompt)
		if err != nil {
			return err
		}
		for _, form := range turns(forms, round) {
			if got[form], err = s.decodeWith(ctx, prompts, p.formSteps(), p.ask(form)); err != nil {
				return fmt.Errorf("%s: %w", form, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, form := range forms {
		r.add(rowOf(form, n), got[form].perCPUSecond(), got[form].perSecond())
	}
	return nil
}
