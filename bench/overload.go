package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// The scenario of the overload suite: requests come at fixed times, twice as
// many as the slots serve, whatever becomes of the earlier ones.
const (
	floodSlots    = 4
	floodRequests = 64
	floodPrompt   = 32
	floodAnswer   = 16
	floodOver     = 2
	floodPatience = 4 // times the service time: a later answer is no use
)

// How the overload is met.
const (
	floodUnbounded = "no bound"
	floodBounded   = "queue of 4"
	floodDeadline  = "no bound, X-Request-Timeout"
)

// fate is what became of one request.
type fate struct {
	refused      bool
	first, total time.Duration // from when it was due
}

// measureOverload finds what a bound and a deadline save when twice as many
// requests come as the slots serve.
func (p *plan) measureOverload(ctx context.Context, s setting) (t *table, err error) {
	servers := map[string]*server{}
	defer func() {
		for _, srv := range servers {
			err = errors.Join(err, srv.stop())
		}
	}()
	for name, queue := range map[string]int{floodUnbounded: 1 << 20, floodBounded: floodSlots} {
		srv, err := startServer(ctx, serverConfig{program: p.infer, model: p.model, library: p.library, cache: p.cache,
			threads: s.Threads, spin: s.Spin, slots: floodSlots, context: 2 * (floodPrompt + floodAnswer), queue: queue}, p.stderr)
		if err != nil {
			return nil, err
		}
		servers[name] = srv
		if _, err := srv.tokenize(ctx, "ready?", 1); err != nil {
			return nil, err
		}
	}
	t = &table{Suite: "overload", setting: s,
		Task: fmt.Sprintf("%d requests of %d + %d tokens, %d times as many as %d slots serve; good is an answer within %d service times",
			floodRequests, floodPrompt, floodAnswer, floodOver, floodSlots, floodPatience),
		Columns: []column{{"good a second", "%.2f"}, {"good, share", "%.2f"}, {"refused, share", "%.2f"}, {"TTFT p50, s", "%.2f"}, {"TTFT p99, s", "%.2f"}}}
	// No ratios: without a bound nothing may be good.
	err = p.collect(ctx, t, nil, func(ctx context.Context, round int, r *rounds) error { return p.takeOverload(ctx, servers, round, r) })
	return t, err
}

func (p *plan) takeOverload(ctx context.Context, servers map[string]*server, round int, r *rounds) error {
	for _, name := range turns([]string{floodUnbounded, floodBounded, floodDeadline}, round) {
		srv := servers[name]
		if srv == nil { // the deadline is the client's
			srv = servers[floodUnbounded]
		}
		service, err := p.serviceTime(ctx, srv)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n := floodRequests
		if round < 0 {
			n = floodSlots
		}
		prompts, err := p.prompts(ctx, srv, n, floodPrompt)
		if err != nil {
			return err
		}
		patience := time.Duration(0)
		if name == floodDeadline {
			patience = floodPatience * service
		}
		began := time.Now()
		got, err := srv.flood(ctx, prompts, service/(floodSlots*floodOver), patience)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		good, refused, first := tally(got, floodPatience*service)
		all := float64(len(got))
		r.add(name, good/time.Since(began).Seconds(), good/all, refused/all, quantile(first, 0.5), quantile(first, 0.99))
	}
	return nil
}

// serviceTime is how long a request takes when every slot is taken.
func (p *plan) serviceTime(ctx context.Context, s *server) (time.Duration, error) {
	prompts, err := p.prompts(ctx, s, 2*floodSlots, floodPrompt)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for _, wave := range [][][]int32{prompts[:floodSlots], prompts[floodSlots:]} {
		got, err := s.flood(ctx, wave, 0, 0)
		if err != nil {
			return 0, err
		}
		if _, refused, _ := tally(got, 0); refused > 0 {
			return 0, errors.New("a request was refused while slots were free")
		}
	}
	return time.Since(began) / 2, nil
}

// tally counts what came within patience and what was refused, and lists the
// times to the first token in seconds.
func tally(got []fate, patience time.Duration) (good, refused float64, first []float64) {
	for _, o := range got {
		if o.refused {
			refused++
			continue
		}
		first = append(first, o.first.Seconds())
		if o.total <= patience {
			good++
		}
	}
	return good, refused, first
}

// flood sends a request each interval and waits for all of them. Those who have
// patience say so.
func (s *server) flood(ctx context.Context, prompts [][]int32, every, patience time.Duration) ([]fate, error) {
	got, faults := make([]fate, len(prompts)), make([]error, len(prompts))
	var all sync.WaitGroup
	began := time.Now()
	for i, prompt := range prompts {
		due := began.Add(time.Duration(i) * every)
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		all.Go(func() { got[i], faults[i] = s.oneOfFlood(ctx, prompt, due, patience) })
	}
	all.Wait()
	return got, errors.Join(faults...)
}

func (s *server) oneOfFlood(ctx context.Context, prompt []int32, due time.Time, patience time.Duration) (o fate, err error) {
	text, err := json.Marshal(fields{"model": modelName, "prompt": prompt, "max_tokens": floodAnswer, "ignore_eos": true, "temperature": 0, "stream": true})
	if err != nil {
		return o, fmt.Errorf("write request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/completions", bytes.NewReader(text))
	if err != nil {
		return o, fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	if patience > 0 {
		r.Header.Set("X-Request-Timeout", strconv.FormatFloat(patience.Seconds(), 'f', 3, 64))
	}
	res, err := s.client.Do(r)
	if err != nil {
		return o, fmt.Errorf("ask infer: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // only read from
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusGatewayTimeout:
		return fate{refused: true}, nil
	case http.StatusOK:
	default:
		return o, fmt.Errorf("ask infer: answered %s", res.Status)
	}
	err = readStream(res.Body, func(event) {
		if o.first == 0 {
			o.first = time.Since(due)
		}
	})
	if err != nil && patience > 0 { // the deadline came in the middle
		return fate{refused: true}, nil
	}
	o.total = time.Since(due)
	return o, err
}
