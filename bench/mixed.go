package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The scenario of the mixed suite. The last short request comes when a CPU of
// some years still prefills the long prompt.
const (
	mixStreams     = 3
	mixStreamStart = 64
	mixStreamMost  = 1500 // tokens that a stream may have: more than it needs
	mixLong        = 2000
	mixShorts      = 10
	mixShort       = 64
	mixAnswer      = 16
	mixEvery       = 300 * time.Millisecond
)

// measureMixed finds what requests of different sizes cost each other.
func (p *plan) measureMixed(ctx context.Context, s setting) (t *table, err error) {
	have := room{slots: mixStreams + 1 + mixShorts, context: mixLong + mixStreamStart}
	st, err := p.start(ctx, s, have, infer, llamaCpp)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	t = &table{Suite: "mixed", setting: s,
		Task: fmt.Sprintf("%d streams decode; a prompt of %d tokens comes, then %d requests of %d + %d tokens, one each %v",
			mixStreams, mixLong, mixShorts, mixShort, mixAnswer, mixEvery),
		Columns: []column{
			{"short TTFT median, s", "%.2f"}, {"short TTFT p90, s", "%.2f"}, {"stream ITL median, s", "%.3f"}, {"stream ITL p99, s", "%.3f"},
			{"long TTFT, s", "%.2f"}, {"all, s", "%.2f"}, {"all, CPU s", "%.2f"},
		}}
	compared := []comparedRows{{Name: "infer / llama.cpp", A: infer, B: llamaCpp}}
	err = p.collect(ctx, t, compared, func(ctx context.Context, round int, r *rounds) error { return p.takeMixed(ctx, st, round, r) })
	return t, err
}

func (p *plan) takeMixed(ctx context.Context, st started, round int, r *rounds) error {
	m := mix{Answer: mixAnswer, Every: mixEvery}
	for _, part := range []struct {
		to        *[][]int32
		n, length int
	}{{&m.Streams, mixStreams, mixStreamStart}, {&m.Shorts, mixShorts, mixShort}} {
		var err error
		if *part.to, err = p.prompts(ctx, st.server, part.n, part.length); err != nil {
			return err
		}
	}
	long, err := p.prompts(ctx, st.server, 1, mixLong)
	if err != nil {
		return err
	}
	m.Long = long[0]
	if round < 0 { // a warm-up needs each shape, but not often
		m.Long, m.Shorts = m.Long[:maxBatch], m.Shorts[:1]
	}
	for _, name := range turns([]string{infer, llamaCpp}, round) {
		play := st.server.mix
		if name == llamaCpp {
			play = st.llama.mix
		}
		times, all, err := play(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.add(name, quantile(times.TTFT, 0.5), quantile(times.TTFT, 0.9), quantile(times.ITL, 0.5), quantile(times.ITL, 0.99),
			times.Long, all.Wall.Seconds(), all.CPU.Seconds())
	}
	return nil
}

// mix plays m behind the pipe. Its sample has the prefill of the streams too.
func (p *piped) mix(_ context.Context, m mix) (mixTimes, sample, error) {
	began, err := startMeter(p.cmd.Process.Pid)
	if err != nil {
		return mixTimes{}, sample{}, err
	}
	r, err := p.order(order{Op: "mix", Mix: &m})
	if err != nil {
		return mixTimes{}, sample{}, err
	}
	if r.Mix == nil {
		return mixTimes{}, sample{}, errors.New("the reply to mix has no times")
	}
	all, err := began.stop(1)
	return *r.Mix, all, err
}

// mix plays m over HTTP. Its sample has the prefill of the streams too.
func (s *server) mix(ctx context.Context, m mix) (mixTimes, sample, error) {
	began, err := startMeter(s.cmd.Process.Pid)
	if err != nil {
		return mixTimes{}, sample{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watch{streams: len(m.Streams), ready: make(chan struct{})}
	var streams, rest sync.WaitGroup
	for _, prompt := range m.Streams {
		streams.Go(func() {
			var last time.Time
			err := s.complete(ctx, prompt, mixStreamMost, fields{"ignore_eos": true}, func(e event) {
				if e.Text != "" {
					last = w.token(last)
				}
			})
			if ctx.Err() == nil { // it should outlast the others
				cancel(errors.Join(errUnfit, err))
			}
		})
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
	}
	arrival := time.Now()
	rest.Go(func() {
		ttft, err := s.first(ctx, m.Long, 1)
		if w.long = ttft.Seconds(); err != nil {
			cancel(err)
		}
	})
	for i, prompt := range m.Shorts {
		rest.Go(func() {
			if err := s.short(ctx, prompt, m.Answer, arrival.Add(time.Duration(i+1)*m.Every), w); err != nil {
				cancel(err)
			}
		})
	}
	rest.Wait()
	fault := context.Cause(ctx)
	all, err := began.stop(1)
	times := w.times()
	cancel(nil)
	streams.Wait()
	return times, all, errors.Join(fault, err)
}

// short asks for an answer when it is time and notes its TTFT.
func (s *server) short(ctx context.Context, prompt []int32, answer int, at time.Time, w *watch) error {
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ttft, err := s.first(ctx, prompt, answer)
	w.short(ttft)
	return err
}

// first is the TTFT of a completion, which it reads to its end.
func (s *server) first(ctx context.Context, prompt []int32, tokens int) (ttft time.Duration, err error) {
	began := time.Now()
	err = s.complete(ctx, prompt, tokens, fields{"ignore_eos": true}, func(event) {
		if ttft == 0 {
			ttft = time.Since(began)
		}
	})
	return ttft, err
}

// watch notes what the clients of a mix see; all but long may be called by many.
type watch struct {
	ready   chan struct{} // closed when all streams have begun
	streams int
	long    float64

	mu        sync.Mutex
	begun     int
	ttft, itl []float64
}

// token notes the token of a stream whose token before was at last; zero is
// none. It returns when it was.
func (w *watch) token(last time.Time) time.Time {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if last.IsZero() {
		if w.begun++; w.begun == w.streams {
			close(w.ready)
		}
		return now
	}
	select {
	case <-w.ready: // gaps before are of streams that wait for each other
		w.itl = append(w.itl, now.Sub(last).Seconds())
	default:
	}
	return now
}

func (w *watch) short(ttft time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ttft = append(w.ttft, ttft.Seconds())
}

// times is what was noted so far, once the long prompt has ended.
func (w *watch) times() mixTimes {
	w.mu.Lock()
	defer w.mu.Unlock()
	return mixTimes{TTFT: w.ttft, ITL: w.itl, Long: w.long}
}
