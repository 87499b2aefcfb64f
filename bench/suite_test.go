package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestParseSuites(t *testing.T) {
	if got, err := parseSuites("mixed,base"); err != nil || fmt.Sprint(got) != "[mixed base]" {
		t.Errorf("parseSuites = %v, %v, want the order that was given", got, err)
	}
	for _, text := range []string{"", "base,", "all", "base streams"} {
		if got, err := parseSuites(text); err == nil || !strings.Contains(err.Error(), "base, batch, embeddings, mixed, overload, prefix, streams, structured") {
			t.Errorf("parseSuites(%q) = %v, %v, want an error that lists the suites", text, got, err)
		}
	}
}

func TestSuitesNeedOnlyTheirOwn(t *testing.T) {
	for text, want := range map[string]string{
		"base":              "[--llama]",
		"prefix,structured": "[]",
		"mixed":             "[--llama]",
		"embeddings":        "[--encoder --python]",
		"prefix,embeddings": "[--encoder --python]",
	} {
		_, err := parseConfig([]string{"--suite", text}, func(string) string { return "" }, io.Discard)
		lacks := []string{}
		for _, name := range []string{"--llama", "--encoder", "--python"} {
			if strings.Contains(err.Error(), name+": ") {
				lacks = append(lacks, name)
			}
		}
		if fmt.Sprint(lacks) != want {
			t.Errorf("%s lacks %v, want %s: %v", text, lacks, want, err)
		}
	}
}

func TestCollectThrowsTheWarmUpAway(t *testing.T) {
	p := &plan{config: config{repeats: 2}, stderr: io.Discard}
	tab := &table{Columns: []column{{"rate", "%.0f"}}}
	err := p.collect(t.Context(), tab, nil, func(_ context.Context, n int, r *rounds) error {
		r.add("infer", float64(n))
		return nil
	})
	if want := (summary{0.5, 0, 1, 2}); err != nil || tab.Rows[0].Values[0] != want {
		t.Errorf("collect kept %v, %v, want %v", tab.Rows, err, want)
	}
	fault := errors.New("broken")
	if err := p.collect(t.Context(), tab, nil, func(context.Context, int, *rounds) error { return fault }); !errors.Is(err, fault) {
		t.Errorf("collect = %v, want the round's error", err)
	}
}

func TestTurnsGoAround(t *testing.T) {
	list := []string{"a", "b", "c"}
	for round, want := range map[int]string{-1: "[a b c]", 0: "[a b c]", 1: "[b c a]", 5: "[c a b]"} {
		if got := fmt.Sprint(turns(list, round)); got != want {
			t.Errorf("turns in round %d = %s, want %s", round, got, want)
		}
	}
}

func TestUntilFit(t *testing.T) {
	calls := 0
	if err := untilFit(func() error {
		if calls++; calls < 3 {
			return fmt.Errorf("infer: %w", errUnfit)
		}
		return nil
	}); err != nil || calls != 3 {
		t.Errorf("%d calls, %v, want 3", calls, err)
	}
	calls = 0
	if err := untilFit(func() error { calls++; return errUnfit }); !errors.Is(err, errUnfit) || calls != maxAttempts {
		t.Errorf("%d calls, %v, want %d and errUnfit", calls, err, maxAttempts)
	}
	calls = 0
	if err := untilFit(func() error { calls++; return io.EOF }); !errors.Is(err, io.EOF) || calls != 1 {
		t.Errorf("%d calls, %v, want 1: another prompt does not help", calls, err)
	}
}

func TestStreamStepsShrinkWithStreams(t *testing.T) {
	p := &plan{config: config{steps: 64}}
	for n, want := range map[int]int{1: 64, 4: 32, 8: 16, 16: 16} {
		if got := p.streamSteps(n); got != want {
			t.Errorf("%d streams have %d steps, want %d", n, got, want)
		}
	}
	p.steps = 8
	if got := p.streamSteps(16); got != 8 {
		t.Errorf("16 streams have %d steps, want the 8 that were asked for", got)
	}
}

func TestFormSchemasDiffer(t *testing.T) {
	p := &plan{rng: newRNG(1)}
	if p.ask(formFree) != nil {
		t.Error("the free form asks for something")
	}
	seen, seen2 := fmt.Sprint(p.ask(formSeen)), fmt.Sprint(p.ask(formSeen))
	new1, new2 := fmt.Sprint(p.ask(formNew)), fmt.Sprint(p.ask(formNew))
	if seen != seen2 || new1 == new2 || new1 == seen {
		t.Errorf("schemas %s, %s, %s, %s: want two alike and two new", seen, seen2, new1, new2)
	}
}
