package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The scenario of the batch suite.
const (
	batchLines   = 64
	batchClients = 16 // infer's own default of lines at once
	batchSlots   = 4
	batchPrompt  = 32
	batchAnswer  = 16
	batchAsks    = 12 // interactive requests, one after the other
	batchPoll    = 100 * time.Millisecond
)

// The rows of the batch suite.
const (
	batchPlain  = "all lines, plain client"
	batchBatch  = "all lines, batch"
	batchAlone  = "TTFT p50, alone"
	batchBeside = "TTFT p50, beside a batch"
)

// measureBatch finds what the durable way of a batch costs, and what a batch
// costs those who do not wait for it.
func (p *plan) measureBatch(ctx context.Context, s setting) (t *table, err error) {
	srv, err := startServer(ctx, serverConfig{program: p.infer, model: p.model, library: p.library, cache: p.cache,
		threads: s.Threads, spin: s.Spin, slots: batchSlots, context: 2 * (batchPrompt + batchAnswer)}, p.stderr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	t = &table{Suite: "batch", setting: s,
		Task: fmt.Sprintf("%d lines of %d + %d tokens, %d at once over %d slots; %d interactive requests one after the other",
			batchLines, batchPrompt, batchAnswer, batchClients, batchSlots, batchAsks),
		Columns: []column{{"seconds", "%.3f"}}}
	compared := []comparedRows{
		{Name: "throughput, batch / plain client", A: batchPlain, B: batchBatch, Goal: goal{AtLeast: 0.95}},
		{Name: "TTFT p50, beside a batch / alone", A: batchBeside, B: batchAlone, Goal: goal{AtMost: 1.2}},
	}
	err = p.collect(ctx, t, compared, func(ctx context.Context, _ int, r *rounds) error { return p.takeBatch(ctx, srv, r) })
	return t, err
}

func (p *plan) takeBatch(ctx context.Context, srv *server, r *rounds) error {
	prompts, err := p.prompts(ctx, srv, 3*batchLines+2*batchAsks, batchPrompt)
	if err != nil {
		return err
	}
	take := func(n int) [][]int32 {
		some := prompts[:n]
		prompts = prompts[n:]
		return some
	}
	plain, err := srv.plain(ctx, take(batchLines))
	if err != nil {
		return err
	}
	batch, err := srv.batch(ctx, take(batchLines), func() error { return nil })
	if err != nil {
		return err
	}
	alone, err := srv.asks(ctx, take(batchAsks))
	if err != nil {
		return err
	}
	var beside []float64
	asks := take(batchAsks)
	_, err = srv.batch(ctx, take(batchLines), func() (err error) { beside, err = srv.asks(ctx, asks); return err })
	if err != nil {
		return err
	}
	if len(beside) == 0 {
		return errors.New("the batch ended before anybody could ask beside it")
	}
	r.add(batchPlain, plain.Seconds())
	r.add(batchBatch, batch.Seconds())
	r.add(batchAlone, quantile(alone, 0.5))
	r.add(batchBeside, quantile(beside, 0.5))
	return nil
}

func batchRequest(prompt []int32) fields {
	return fields{"model": modelName, "prompt": prompt, "max_tokens": batchAnswer, "ignore_eos": true, "temperature": 0}
}

// plain sends the lines as clients would that have no batch.
func (s *server) plain(ctx context.Context, prompts [][]int32) (time.Duration, error) {
	lines := make(chan []int32, len(prompts))
	for _, p := range prompts {
		lines <- p
	}
	close(lines)
	faults := make([]error, batchClients)
	var all sync.WaitGroup
	began := time.Now()
	for i := range batchClients {
		all.Go(func() {
			for p := range lines {
				var answer struct{}
				if err := s.ask(ctx, "/v1/completions", batchRequest(p), &answer); err != nil {
					faults[i] = err
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(began), errors.Join(faults...)
}

// ask posts a request and reads the answer to its end.
func (s *server) ask(ctx context.Context, path string, body, answer any) error {
	text, err := s.post(ctx, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = text.Close() }() // only read from
	if err := json.NewDecoder(text).Decode(answer); err != nil {
		return fmt.Errorf("parse answer of %s: %w", path, err)
	}
	return nil
}

// asks returns the times to the first token of requests one after the other.
func (s *server) asks(ctx context.Context, prompts [][]int32) ([]float64, error) {
	var first []float64
	for _, p := range prompts {
		began, at := time.Now(), time.Duration(0)
		err := s.complete(ctx, p, batchAnswer, fields{"ignore_eos": true}, func(event) {
			if at == 0 {
				at = time.Since(began)
			}
		})
		if err != nil {
			return nil, err
		}
		first = append(first, at.Seconds())
	}
	return first, nil
}

// batchState is what the benchmark reads of a batch.
type batchState struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Counts struct {
		Completed int `json:"completed"`
	} `json:"request_counts"`
}

// batch sends the lines as a batch and returns how long it took from its
// creation to its end. meanwhile is called once it runs.
func (s *server) batch(ctx context.Context, prompts [][]int32, meanwhile func() error) (time.Duration, error) {
	file, err := s.upload(ctx, prompts)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	var b batchState
	if err := s.ask(ctx, "/v1/batches", fields{"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}, &b); err != nil {
		return 0, err
	}
	for called := false; b.Status != "completed"; {
		switch b.Status {
		case "failed", "expired", "cancelled":
			return 0, fmt.Errorf("the batch is %s", b.Status)
		}
		if !called && b.Counts.Completed > 0 {
			called = true
			if err := meanwhile(); err != nil {
				return 0, err
			}
		}
		select {
		case <-time.After(batchPoll):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		if err := s.get(ctx, "/v1/batches/"+b.ID, &b); err != nil {
			return 0, err
		}
	}
	if b.Counts.Completed != len(prompts) {
		return 0, fmt.Errorf("%d of %d lines were answered", b.Counts.Completed, len(prompts))
	}
	return time.Since(began), nil
}

func (s *server) get(ctx context.Context, path string, answer any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	return s.read(r, answer)
}

// read sends a request and parses the body of its 200.
func (s *server) read(r *http.Request, answer any) error {
	res, err := s.client.Do(r)
	if err != nil {
		return fmt.Errorf("ask infer: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // only read from
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask infer: %s answered %s: %s", r.URL.Path, res.Status, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("parse answer of %s: %w", r.URL.Path, err)
	}
	return nil
}

// upload makes the lines' file and returns its id.
func (s *server) upload(ctx context.Context, prompts [][]int32) (string, error) {
	var lines strings.Builder
	enc := json.NewEncoder(&lines)
	for i, p := range prompts {
		line := fields{"custom_id": fmt.Sprint(i), "method": "POST", "url": "/v1/completions", "body": batchRequest(p)}
		if err := enc.Encode(line); err != nil {
			return "", fmt.Errorf("write line: %w", err)
		}
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", "in.jsonl")
	if err == nil {
		_, err = io.WriteString(part, lines.String())
	}
	if err = errors.Join(err, w.WriteField("purpose", "batch"), w.Close()); err != nil {
		return "", fmt.Errorf("write form: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/files", &form)
	if err != nil {
		return "", fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Content-Type", w.FormDataContentType())
	var file struct {
		ID string `json:"id"`
	}
	err = s.read(r, &file)
	return file.ID, err
}
