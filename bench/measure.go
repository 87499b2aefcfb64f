package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
)

// setting is one way to use the cores.
type setting struct {
	Threads int  `json:"threads"`
	Spin    bool `json:"spin"`
}

func (s setting) String() string {
	text := fmt.Sprintf("%d threads", s.Threads)
	if s.Threads == 1 {
		text = "1 thread"
	}
	if s.Spin {
		return text + ", spinning"
	}
	return text
}

// parseSettings reads a list such as 1,2,2+spin.
func parseSettings(text string) ([]setting, error) {
	var list []setting
	for part := range strings.SplitSeq(text, ",") {
		number, spin := strings.CutSuffix(part, "+spin")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("settings: %q is not a number of threads, with +spin or without", part)
		}
		list = append(list, setting{Threads: n, Spin: spin})
	}
	return list, nil
}

// The engines, by their names in tables.
const (
	infer    = "infer"
	bare     = "bare engine"
	llamaCpp = "llama.cpp"
)

var engines = []string{infer, bare, llamaCpp}

// plan is what is measured with each setting.
type plan struct {
	config
	bare   string // path of the bare engine
	stderr io.Writer
	rng    *rand.Rand
}

// tasks are the names of what is measured. One stream and many are two.
const (
	prefill = "prefill"
	decode1 = "decode, 1 stream"
	decodeN = "decode, many streams"
)

var tasks = []string{prefill, decode1, decodeN}

// outcome is all samples of one setting; those of equal index were taken
// right after each other.
type outcome struct {
	setting    setting
	loadBefore float64
	loadAfter  float64
	samples    map[string]map[string][]sample // by task, then engine
}

// started are the engines of one setting. They are loaded at the same time, and
// all but the one that is measured wait for a request or an order.
type started struct {
	server *server
	llama  *piped // nil when it was not asked for
	all    map[string]engine
}

// room is what the engines hold.
type room struct{ slots, context int }

// start loads infer, and those of the others that are named.
func (p *plan) start(ctx context.Context, s setting, have room, names ...string) (st started, err error) {
	st.all = map[string]engine{}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.stop())
		}
	}()
	st.server, err = startServer(ctx, serverConfig{
		program: p.infer, model: p.model, library: p.library, cache: p.cache,
		threads: s.Threads, spin: s.Spin, slots: have.slots, context: have.context,
	}, p.stderr)
	if err != nil {
		return st, err
	}
	st.all[infer] = st.server
	// The first request is held until the model is loaded and imported, so that
	// the bare engine finds it in the cache.
	if _, err := st.server.tokenize(ctx, "ready?", 1); err != nil {
		return st, err
	}
	for _, name := range names {
		var e *piped
		switch name {
		case bare:
			e, err = startBare(ctx, p.bare, bareConfig{
				Model: p.model, Library: p.library, Device: "cpu", CacheDir: p.cache, Slots: have.slots,
				ContextTokens: have.context, Threads: s.Threads, Spin: s.Spin, AccuracyLevel: 4,
			}, p.stderr)
		case llamaCpp:
			e, err = startLlama(ctx, llamaConfig{
				folder: p.llama, model: p.model, threads: s.Threads, slots: have.slots, context: have.context,
			}, p.stderr)
			st.llama = e
		default:
			continue
		}
		if err != nil {
			return st, err
		}
		st.all[name] = e
	}
	return st, nil
}

func (st started) stop() error {
	var errs []error
	for name, e := range st.all {
		if err := e.stop(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// warmSteps are the steps of a warm-up: it plans memory for every shape.
const warmSteps = 4

// measure takes repeats rounds of all tasks, each on all engines in turn.
func (p *plan) measure(ctx context.Context, s setting) (o outcome, err error) {
	o = outcome{setting: s, loadBefore: loadAverage(), samples: map[string]map[string][]sample{}}
	st, err := p.start(ctx, s, room{p.streams, p.context}, engines...)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	for round := -1; round < p.repeats; round++ {
		for _, task := range tasks {
			steps := p.steps
			if round < 0 {
				steps = warmSteps
			}
			got, err := p.takeFit(ctx, st, task, steps, round)
			if err != nil {
				return o, fmt.Errorf("%s, %s: %w", s, task, err)
			}
			if round < 0 {
				continue
			}
			if o.samples[task] == nil {
				o.samples[task] = map[string][]sample{}
			}
			for name, sample := range got {
				o.samples[task][name] = append(o.samples[task][name], sample)
			}
		}
		_, _ = fmt.Fprintf(p.stderr, "%s: round %d of %d\n", s, round+1, p.repeats) // progress only
	}
	o.loadAfter = loadAverage()
	return o, nil
}

// takeFit takes one sample of every engine with the same prompts, which it
// changes until they are fit.
func (p *plan) takeFit(ctx context.Context, st started, task string, steps, round int) (got map[string]sample, err error) {
	err = untilFit(func() error {
		got, err = p.take(ctx, st, task, steps, round)
		return err
	})
	return got, err
}

func (p *plan) take(ctx context.Context, st started, task string, steps, round int) (map[string]sample, error) {
	n := 1
	if task == decodeN {
		n = p.streams
	}
	prompts, err := p.prompts(ctx, st.server, n, p.prompt)
	if err != nil {
		return nil, err
	}
	got := map[string]sample{}
	for _, name := range turns(engines, round) {
		var err error
		if task == prefill {
			got[name], err = st.all[name].prefill(ctx, prompts[0])
		} else {
			got[name], err = st.all[name].decode(ctx, prompts, steps)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return got, nil
}
