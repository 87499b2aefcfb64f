package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Streams at once, and the length of their prompts. A short prompt keeps the
// streams close together: while one prefills, the others decode.
var streamCounts = []int{1, 4, 8, 16}

const streamPrompt = 64

// measureStreams finds how the rate of all streams grows with their number.
func (p *plan) measureStreams(ctx context.Context, s setting) (t *table, err error) {
	st, err := p.start(ctx, s, room{slots: slices.Max(streamCounts), context: max(p.context, windowTokens(slices.Max(streamCounts), streamPrompt, p.steps))}, infer, llamaCpp)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	t = &table{Suite: "streams", setting: s,
		Task:    fmt.Sprintf("prompts of %d tokens; tokens of all streams", streamPrompt),
		Columns: []column{{"tokens per CPU-second", "%.0f"}, {"tokens per second", "%.0f"}}}
	var compared []comparedRows
	for _, n := range streamCounts {
		compared = append(compared, comparedRows{Name: fmt.Sprintf("infer / llama.cpp, %s", countStreams(n)),
			A: rowOf(infer, n), B: rowOf(llamaCpp, n), Goal: goal{AtLeast: 1}})
	}
	for _, e := range []string{infer, llamaCpp} {
		for _, n := range streamCounts[1:] {
			compared = append(compared, comparedRows{Name: fmt.Sprintf("%s, %s / 1 stream", e, countStreams(n)), A: rowOf(e, n), B: rowOf(e, 1)})
		}
	}
	err = p.collect(ctx, t, compared, func(ctx context.Context, round int, r *rounds) error {
		for _, n := range streamCounts {
			if err := p.takeStreams(ctx, st, n, round, r); err != nil {
				return fmt.Errorf("%s: %w", countStreams(n), err)
			}
		}
		return nil
	})
	return t, err
}

// takeStreams measures n streams of each engine with the same prompts.
func (p *plan) takeStreams(ctx context.Context, st started, n, round int, r *rounds) error {
	got := map[string]sample{}
	steps := p.streamSteps(n)
	if round < 0 {
		steps = min(steps, warmSteps)
	}
	err := untilFit(func() error {
		prompts, err := p.prompts(ctx, st.server, n, streamPrompt)
		if err != nil {
			return err
		}
		for _, e := range turns([]string{infer, llamaCpp}, round) {
			if got[e], err = st.all[e].decode(ctx, prompts, steps); err != nil {
				return fmt.Errorf("%s: %w", e, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range []string{infer, llamaCpp} {
		r.add(rowOf(e, n), got[e].perCPUSecond(), got[e].perSecond())
	}
	return nil
}

// streamSteps is shorter where there are many streams: the window has tokens
// enough, and a round should not take minutes.
func (p *plan) streamSteps(n int) int { return max(min(2*p.steps/n, p.steps), min(16, p.steps)) }

func rowOf(engine string, streams int) string { return engine + ", " + countStreams(streams) }

func countStreams(n int) string {
	if n == 1 {
		return "1 stream"
	}
	return fmt.Sprintf("%d streams", n)
}
