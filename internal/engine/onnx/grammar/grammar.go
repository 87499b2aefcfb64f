package grammar

import (
	"context"
	"errors"
	"fmt"
)

// Grammar is a compiled set of byte strings. It never changes and may be
// shared by any number of matchers; those share what has been computed, so a
// caller that gets the same schema again should keep the Grammar.
type Grammar struct {
	m   *machine
	err error
}

func newGrammar(b *builder, root int32) *Grammar {
	p, err := b.finish(root)
	if err != nil {
		return &Grammar{err: err}
	}
	m := newMachine(p)
	if m.start() == dead {
		return &Grammar{err: &TooLargeError{"ways to begin", maxWidth}}
	}
	return &Grammar{m: m}
}

// Err returns why g cannot be used: a combinator exceeded a limit or was
// given a Grammar with an error. It is nil for what came without an error.
func (g *Grammar) Err() error { return g.err }

// JSONObject returns the grammar of any JSON object.
func JSONObject() *Grammar {
	g, err := JSONSchema(context.Background(), []byte(`{"type":"object"}`))
	if err != nil {
		return &Grammar{err: err}
	}
	return g
}

// Regex returns the grammar of the texts that pattern matches as a whole. The
// syntax is that of Go's regexp (RE2) and the texts are valid UTF-8.
// Look-around and back-references are refused.
func Regex(ctx context.Context, pattern string) (*Grammar, error) {
	d, err := compileRegex(newBudget(ctx), pattern, matching{})
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, &PatternError{pattern, errNothing}
	}
	g := leafGrammar(&leaf{text: &text{dfa: d, max: -1}})
	return g, g.err
}

// Choice returns the grammar of exactly the options.
func Choice(options []string) (*Grammar, error) {
	size, words := 0, make([][]byte, len(options))
	for i, o := range options {
		size += len(o) + 1
		words[i] = []byte(o)
	}
	if len(words) == 0 {
		return nil, errors.New("choice: no options")
	}
	if size > maxChoiceBytes {
		return nil, &TooLargeError{"bytes of options", maxChoiceBytes}
	}
	g := leafGrammar(wordsLeaf(words))
	return g, g.err
}

// Literal returns the grammar of exactly s.
func Literal(s string) *Grammar { return leafGrammar(&leaf{lit: []byte(s)}) }

func leafGrammar(l *leaf) *Grammar {
	b := &builder{}
	root := b.rule()
	b.leaf(b.rules[root].start, l, b.rules[root].end)
	return newGrammar(b, root)
}

// Seq returns the grammar of a text of each g in turn.
func Seq(g ...*Grammar) *Grammar {
	return combine(g, func(b *builder, parts []int32, from, to int32) {
		for _, p := range parts {
			next := b.node()
			b.call(from, p, next)
			from = next
		}
		b.empty(from, to)
	})
}

// Alt returns the grammar of a text of any g.
func Alt(g ...*Grammar) *Grammar {
	return combine(g, func(b *builder, parts []int32, from, to int32) {
		for _, p := range parts {
			b.call(from, p, to)
		}
	})
}

// Repeat returns the grammar of min to max texts of g in a row; a negative max
// is no bound.
func Repeat(g *Grammar, min, max int) *Grammar {
	if min < 0 || max >= 0 && max < min {
		return &Grammar{err: fmt.Errorf("repeat: no number lies between %d and %d", min, max)}
	}
	return combine([]*Grammar{g}, func(b *builder, parts []int32, from, to int32) {
		for i := 0; (i < min || i < max) && b.err == nil; i++ {
			if i >= min {
				b.empty(from, to)
			}
			next := b.node()
			b.call(from, parts[0], next)
			from = next
		}
		if max < 0 {
			b.call(from, parts[0], from)
		}
		b.empty(from, to)
	})
}

// combine writes a rule over copies of gs.
func combine(gs []*Grammar, write func(b *builder, parts []int32, from, to int32)) *Grammar {
	b := &builder{}
	root := b.rule()
	included := map[*Grammar]int32{}
	parts := make([]int32, len(gs))
	for i, g := range gs {
		if g.err != nil {
			return &Grammar{err: g.err}
		}
		if _, ok := included[g]; !ok {
			included[g] = b.include(g.m.p)
		}
		parts[i] = included[g]
	}
	if b.err == nil {
		write(b, parts, b.rules[root].start, b.rules[root].end)
	}
	return newGrammar(b, root)
}
