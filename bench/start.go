package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// startTimes say how soon a new process is of use, in seconds from its exec.
type startTimes struct {
	FirstAnswer summary `json:"first_answer_seconds"` // of a liveness probe
	FirstToken  summary `json:"first_token_seconds"`  // of a streamed completion
}

// measureStart starts infer repeats times with its own defaults for everything
// but the files. The model is imported and the files are in the page cache.
func (p *plan) measureStart(ctx context.Context) (startTimes, error) {
	var answers, tokens []float64
	for range p.repeats {
		answer, token, err := p.startOnce(ctx)
		if err != nil {
			return startTimes{}, fmt.Errorf("measure start: %w", err)
		}
		answers, tokens = append(answers, answer.Seconds()), append(tokens, token.Seconds())
	}
	return startTimes{FirstAnswer: summarize(answers), FirstToken: summarize(tokens)}, nil
}

func (p *plan) startOnce(ctx context.Context) (answer, token time.Duration, err error) {
	s, err := startServer(ctx, serverConfig{program: p.infer, model: p.model, library: p.library, cache: p.cache}, p.stderr)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.live(ctx); err != nil {
		return 0, 0, err
	}
	answer = time.Since(s.began)
	err = s.complete(ctx, []int32{1, 2, 3, 4}, 1, nil, func(event) {
		if token == 0 {
			token = time.Since(s.began)
		}
	})
	return answer, token, err
}

// live is one liveness probe.
func (s *server) live(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/livez", nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	res, err := s.client.Do(r)
	if err != nil {
		return fmt.Errorf("probe infer: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // only read from
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("probe infer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("probe infer: /livez answered %s", res.Status)
	}
	return nil
}
