package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A turn of the prefix suite: what the cache has, and what is new.
const (
	prefixPast = 500
	prefixTurn = 32
)

// maxPrefixShare is the goal for the TTFT of a turn by that of a new prompt as
// long as the turn and its past.
const maxPrefixShare = 0.2

// The rows of the prefix suite.
const (
	pastCached = "past in the cache"
	pastNew    = "never seen"
)

// measurePrefix finds what a past that the cache has saves of the TTFT.
func (p *plan) measurePrefix(ctx context.Context, s setting) (t *table, err error) {
	st, err := p.start(ctx, s, room{slots: 4, context: max(p.context, prefixPast+prefixTurn+1)}, infer)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	t = &table{Suite: "prefix", setting: s,
		Task:    fmt.Sprintf("prompts of %d tokens, of which the last %d are new or all are", prefixPast+prefixTurn, prefixTurn),
		Columns: []column{{"CPU ms", "%.0f"}, {"TTFT ms", "%.0f"}}}
	compared := []comparedRows{{Name: pastCached + " / " + pastNew, A: pastCached, B: pastNew, Goal: goal{AtMost: maxPrefixShare}}}
	err = p.collect(ctx, t, compared, func(ctx context.Context, _ int, r *rounds) error { return p.takePrefix(ctx, st.server, r) })
	return t, err
}

// takePrefix asks for a past, which the cache keeps, and then for a turn after
// it and for a prompt of the same length. The past cannot go second.
func (p *plan) takePrefix(ctx context.Context, s *server, r *rounds) error {
	prompts, err := p.prompts(ctx, s, 2, prefixPast+prefixTurn)
	if err != nil {
		return err
	}
	past := slices.Clone(prompts[0][:prefixPast])
	if _, _, err := s.turn(ctx, past); err != nil {
		return err
	}
	for _, ask := range []struct {
		name   string
		prompt []int32
		least  int // of its tokens must come from the cache
		most   int
	}{{pastCached, prompts[0], prefixPast, prefixPast}, {pastNew, prompts[1], 0, prefixTurn}} {
		got, cached, err := s.turn(ctx, ask.prompt)
		if err != nil {
			return err
		}
		if cached < ask.least || cached > ask.most {
			return fmt.Errorf("%s: %d tokens came from the cache, want %d to %d", ask.name, cached, ask.least, ask.most)
		}
		r.add(ask.name, float64(got.CPU)/float64(time.Millisecond), float64(got.Wall)/float64(time.Millisecond))
	}
	return nil
}

// turn is a request for one token. Its wall time is the TTFT; cached says how
// many tokens of the prompt came from the cache.
func (s *server) turn(ctx context.Context, prompt []int32) (got sample, cached int, err error) {
	m, err := startMeter(s.cmd.Process.Pid)
	if err != nil {
		return got, 0, err
	}
	var ttft time.Duration
	err = s.complete(ctx, prompt, 1, nil, func(e event) {
		if ttft == 0 {
			ttft = time.Since(m.wall)
		}
		cached = max(cached, e.Cached)
	})
	if err != nil {
		return got, 0, err
	}
	got, err = m.stop(len(prompt))
	got.Wall = ttft
	return got, cached, err
}
