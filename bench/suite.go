package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// baseSuite is the one that measures as README.md says first, and the default.
const baseSuite = "base"

// suite measures one aspect with one setting.
type suite struct {
	llama, encoder bool // what it needs
	measure        func(p *plan, ctx context.Context, s setting) (*table, error)
}

// suites are all but the base.
var suites = map[string]suite{
	"streams":    {llama: true, measure: (*plan).measureStreams},
	"mixed":      {llama: true, measure: (*plan).measureMixed},
	"prefix":     {measure: (*plan).measurePrefix},
	"structured": {measure: (*plan).measureStructured},
	"overload":   {measure: (*plan).measureOverload},
	"batch":      {measure: (*plan).measureBatch},
	"embeddings": {encoder: true, measure: (*plan).measureEmbeddings},
}

// parseSuites reads a list such as base,streams.
func parseSuites(text string) ([]string, error) {
	list := strings.Split(text, ",")
	for _, name := range list {
		if _, ok := suites[name]; !ok && name != baseSuite {
			return nil, fmt.Errorf("suite: %q is not one of %s", name, strings.Join(suiteNames(), ", "))
		}
	}
	return list, nil
}

func suiteNames() []string {
	names := []string{baseSuite}
	for name := range suites {
		names = append(names, name)
	}
	slices.Sort(names[1:])
	return names
}

// runSuites measures what the command line asks for and hands on each piece as
// soon as it is there, so that a run that breaks off leaves what it found.
func (p *plan) runSuites(ctx context.Context, r *report, done func() error) error {
	for _, name := range p.suites {
		for _, s := range p.settings {
			if name == baseSuite {
				o, err := p.measure(ctx, s)
				if err != nil {
					return err
				}
				r.add(o)
			} else {
				t, err := suites[name].measure(p, ctx, s)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", name, s, err)
				}
				r.Tables = append(r.Tables, t)
			}
			if err := done(); err != nil {
				return err
			}
		}
	}
	if !slices.Contains(p.suites, baseSuite) {
		return nil
	}
	start, err := p.measureStart(ctx)
	if err != nil {
		return err
	}
	r.Start = &start
	return done()
}

// collect calls round for a warm-up, whose values are thrown away, and then
// p.repeats times; n counts from 0, the warm-up has -1.
func (p *plan) collect(ctx context.Context, t *table, compared []comparedRows, round func(ctx context.Context, n int, r *rounds) error) error {
	t.LoadBefore = loadAverage()
	var kept rounds
	for n := -1; n < p.repeats; n++ {
		r := &kept
		if n < 0 {
			r = &rounds{}
		}
		if err := round(ctx, n, r); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(p.stderr, "%s, %s: round %d of %d\n", t.Suite, t.setting, n+1, p.repeats) // progress only
	}
	t.LoadAfter = loadAverage()
	t.fill(&kept, compared)
	return nil
}

// turns is list with another first place in each round, so that none always
// comes after another.
func turns[T any](list []T, round int) []T {
	at := max(round, 0) % len(list)
	return slices.Concat(list[at:], list[:at])
}

// maxAttempts is how often prompts are changed until the answers are fit.
const maxAttempts = 5

// untilFit repeats take while its answers are unfit. take must not keep values
// before it is sure.
func untilFit(take func() error) error {
	for attempt := 1; ; attempt++ {
		if err := take(); err == nil || attempt == maxAttempts || !errors.Is(err, errUnfit) {
			return err
		}
	}
}

// prompts returns n new prompts of length tokens.
func (p *plan) prompts(ctx context.Context, s *server, n, length int) ([][]int32, error) {
	list := make([][]int32, n)
	for i := range list {
		var err error
		if list[i], err = s.tokenize(ctx, story(p.rng, length), length); err != nil {
			return nil, err
		}
	}
	return list, nil
}
