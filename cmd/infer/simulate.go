package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"infer/internal/simulate"
)

// simulateCmd replays traffic through scaling rules.
type simulateCmd struct {
	Trace []string `variable:"-" help:"diurnal, burst, ramp, or a CSV file with the columns time, prompt_tokens, completion_tokens and perhaps rate; may be repeated. Default: the three built-in ones."`
	Peak  float64  `variable:"-" default:"100" help:"Requests a second at the height of the built-in traffic."`
	Rules []string `variable:"-" name:"rule" placeholder:"FILE" help:"YAML file of one more rule: name, query, target, type; may be repeated."`
	World string   `variable:"-" name:"config" placeholder:"FILE" help:"YAML file of numbers of the fleet and the scaler; --print-config shows them."`
	Print bool     `variable:"-" name:"print-config" help:"Print the numbers as YAML and exit."`
	Plot  string   `variable:"-" placeholder:"FILE" help:"Write charts as SVG; with several traces, the trace's name is put before the end of the name."`
}

func (c *simulateCmd) run(ctx context.Context, p process) error {
	cfg, traces, rules, err := c.read()
	if err != nil {
		return usageError{err}
	}
	if c.Print {
		return yaml.NewEncoder(p.stdout).Encode(cfg)
	}
	for _, t := range traces {
		results := make([]simulate.Result, len(rules))
		g, ctx := errgroup.WithContext(ctx)
		for i, rule := range rules {
			g.Go(func() (err error) {
				results[i], err = simulate.Run(ctx, cfg, t, rule)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return usageError{err}
		}
		if _, err := fmt.Fprintf(p.stdout, "%s, %.1f hours\n", t.Name, t.Seconds/3600); err != nil {
			return err
		}
		if err := simulate.Table(p.stdout, results); err != nil {
			return err
		}
		if err := c.plot(t.Name, len(traces) > 1, results, cfg.Slots); err != nil {
			return usageError{fmt.Errorf("plot: %w", err)}
		}
	}
	return nil
}

// read loads what the flags name, and reports every fault at once.
func (c *simulateCmd) read() (simulate.Config, []simulate.Trace, []simulate.Rule, error) {
	cfg, rules := simulate.Default(), simulate.Builtin()
	var faults []error
	if c.World != "" {
		if err := readYAML(c.World, &cfg); err != nil {
			faults = append(faults, fmt.Errorf("config: %s: %w", c.World, err))
		}
	}
	if err := cfg.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("config: %w", err))
	}
	if !(c.Peak >= 0 && c.Peak <= 1e5) {
		faults = append(faults, fmt.Errorf("peak: %v is not between 0 and 100000", c.Peak))
	}
	for _, name := range c.Rules {
		text, err := os.ReadFile(name)
		if err == nil {
			var rule simulate.Rule
			rule, err = simulate.ReadRule(text)
			rules = append(rules, rule)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("rule: %s: %w", name, err))
		}
	}
	builtin := simulate.Traces(c.Peak)
	traces := slices.Clone(builtin)
	if len(c.Trace) > 0 {
		traces = nil
	}
	for _, name := range c.Trace {
		i := slices.IndexFunc(builtin, func(t simulate.Trace) bool { return t.Name == name })
		if i >= 0 {
			traces = append(traces, builtin[i])
			continue
		}
		t, err := readTrace(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("trace: %w", err))
		}
		traces = append(traces, t)
	}
	return cfg, traces, rules, errors.Join(faults...)
}

func readTrace(name string) (simulate.Trace, error) {
	f, err := os.Open(name)
	if err != nil {
		return simulate.Trace{}, fmt.Errorf("%w; the built-in ones are diurnal, burst and ramp", err)
	}
	defer func() { _ = f.Close() }() // only read
	t, err := simulate.ReadCSV(name, f)
	if err != nil {
		return t, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

// readYAML reads a file whose unknown keys are faults.
func readYAML(name string, into any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// plot writes the charts of one trace, if they are wanted.
func (c *simulateCmd) plot(trace string, several bool, results []simulate.Result, slots int) error {
	if c.Plot == "" {
		return nil
	}
	name := c.Plot
	if several {
		name = plotName(name, trace)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(simulate.Plot(f, results, slots), f.Close())
}

// plotName is scale-burst.svg for scale.svg and burst.
func plotName(name, trace string) string {
	end := filepath.Ext(name)
	return strings.TrimSuffix(name, end) + "-" + strings.TrimSuffix(filepath.Base(trace), filepath.Ext(trace)) + end
}
