package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// serverConfig is how infer is started. Context 0 leaves it to infer.
type serverConfig struct {
	program, model, library, cache string
	threads, slots, context        int
	queue                          int // 0 leaves it to infer
	spin                           bool
}

func (c serverConfig) args() []string {
	args := []string{"serve", "--listen", "127.0.0.1:0", "--engine", "onnx", "--device", "cpu", "--log-format", "json",
		"--model", c.model, "--served-model-name", modelName, "--onnx-library", c.library, "--cache", c.cache,
		"--threads", fmt.Sprint(c.threads), "--slots", fmt.Sprint(c.slots), "--context", fmt.Sprint(c.context)}
	if c.slots > 0 { // else infer's defaults are measured
		args = append(args, "--kv-bytes", kvBytes)
	}
	if c.queue > 0 {
		args = append(args, "--max-queue", fmt.Sprint(c.queue))
	}
	if c.spin {
		args = append(args, "--spin")
	}
	return args
}

const modelName = "bench"

// kvBytes is only a bound, which must not cut what is measured.
const kvBytes = "16GiB"

// server is infer behind its HTTP API.
type server struct {
	cmd    *exec.Cmd
	client *http.Client
	url    string
	log    sync.WaitGroup
	began  time.Time // just before the exec
}

// startServer returns when infer listens, which is before it has loaded the
// model: the first request is held until then. infer ends with ctx or stop.
func startServer(ctx context.Context, c serverConfig, stderr io.Writer) (*server, error) {
	cmd := exec.CommandContext(ctx, c.program, c.args()...)
	cmd.WaitDelay = stopGrace
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	s := &server{cmd: cmd, client: &http.Client{Transport: new(http.Transport)}, began: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start infer: %w; build it with make build and name it with --infer", err)
	}
	addr := make(chan string, 1)
	s.log.Go(func() {
		defer close(addr)
		followLog(out, stderr, addr)
	})
	listening, ok := <-addr
	if !ok {
		return nil, fmt.Errorf("infer ended before it listened: %w; see its log above", errors.Join(s.cmd.Wait(), context.Cause(ctx)))
	}
	s.url = "http://" + listening
	return s, nil
}

// followLog sends the address infer says it listens on, once, and passes on
// what tells of trouble.
func followLog(log io.Reader, stderr io.Writer, addr chan<- string) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var l struct {
			Level   string `json:"level"`
			Message string `json:"msg"`
			Addr    string `json:"addr"`
		}
		err := json.Unmarshal(lines.Bytes(), &l)
		switch {
		case err == nil && l.Message == "listening":
			addr <- l.Addr
		case err != nil, l.Level == "WARN", l.Level == "ERROR":
			_, _ = fmt.Fprintf(stderr, "infer: %s\n", lines.Bytes()) // nobody to tell
		}
	}
	_, _ = io.Copy(stderr, log) // after a line that is too long
}

func (s *server) stop() error {
	s.client.CloseIdleConnections()
	err := s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopGrace, func() { _ = s.cmd.Process.Signal(syscall.SIGKILL) })
	defer kill.Stop()
	s.log.Wait() // Wait closes the pipe, so everything must have been read
	return errors.Join(err, s.cmd.Wait())
}

// post sends a request and returns the body of its 200.
func (s *server) post(ctx context.Context, path string, body any) (io.ReadCloser, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("write request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := s.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask infer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		defer func() { _ = res.Body.Close() }() // only read from
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, fmt.Errorf("ask infer: %s answered %s: %s", path, res.Status, text)
	}
	return res.Body, nil
}

// tokenize returns the first n ids of text.
func (s *server) tokenize(ctx context.Context, text string, n int) ([]int32, error) {
	body, err := s.post(ctx, "/tokenize", map[string]any{"model": modelName, "prompt": text})
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // only read from
	var answer struct {
		Tokens []int32 `json:"tokens"`
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("parse tokens: %w", err)
	}
	if len(answer.Tokens) < n {
		return nil, fmt.Errorf("a text has %d tokens, want at least %d", len(answer.Tokens), n)
	}
	return answer.Tokens[:n], nil
}

// fields are what a request has besides the usual.
type fields map[string]any

// complete streams a greedy completion and calls each for every event.
func (s *server) complete(ctx context.Context, prompt []int32, tokens int, more fields, each func(event)) error {
	request := fields{
		"model": modelName, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
		"stream": true, "stream_options": fields{"include_usage": true},
	}
	maps.Copy(request, more)
	body, err := s.post(ctx, "/v1/completions", request)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // only read from
	return readStream(body, each)
}

// prefill is a request for one token. Its wall time is the TTFT.
func (s *server) prefill(ctx context.Context, prompt []int32) (sample, error) {
	got, _, err := s.turn(ctx, prompt)
	return got, err
}

// errUnfit says that another prompt must be taken: the stream ended by itself
// before it was measured, or its tokens did not each come with text, so that
// arrivals do not count tokens.
var errUnfit = errors.New("the model's answer cannot be timed")

// headStart is how many tokens a stream may get while another prefills: one
// for each of infer's chunks of the other's prompt, with room to spare.
func headStart(prompt int) int {
	const chunk = 64
	return 2 * (prompt/chunk + 1)
}

func (s *server) decode(ctx context.Context, prompts [][]int32, steps int) (sample, error) {
	return s.decodeWith(ctx, prompts, steps, nil)
}

// windowTokens is how many tokens each of streams with prompts of a length has
// at most, when steps of them are measured.
func windowTokens(streams, prompt, steps int) int {
	return prompt + steps + 1 + headStart(prompt)*(streams-1)
}

// decodeWith streams all prompts at once and measures inside the window. more
// is part of every request.
func (s *server) decodeWith(ctx context.Context, prompts [][]int32, steps int, more fields) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit := windowTokens(len(prompts), len(prompts[0]), steps) - len(prompts[0])
	request := fields{"ignore_eos": true}
	maps.Copy(request, more)
	arrivals := make(chan int, len(prompts)*(limit+2))
	errs := make([]error, len(prompts))
	texts, tokens := make([]int, len(prompts)), make([]int, len(prompts))
	var streams sync.WaitGroup
	for i, prompt := range prompts {
		streams.Go(func() {
			errs[i] = s.complete(ctx, prompt, limit, request, func(e event) {
				tokens[i] = max(tokens[i], e.Tokens)
				if e.Text != "" {
					texts[i]++
					arrivals <- i
				}
			})
			arrivals <- streamEnded
		})
	}
	go func() {
		streams.Wait()
		close(arrivals)
	}()
	got, err := s.observe(&window{streams: len(prompts), steps: steps}, arrivals)
	if err != nil {
		cancel()
	}
	for range arrivals { // until all streams have ended
	}
	// Of all together, since among many streams one is always a little silent.
	if err == nil && silent(texts, tokens) > mostSilent {
		err = errUnfit
	}
	return got, errors.Join(append(errs, err)...)
}

// mostSilent is the share of tokens without text that makes no difference.
const mostSilent = 0.02

// silent is the share of tokens of all streams that came without text.
func silent(texts, tokens []int) float64 {
	came, all := 0, 0
	for i := range tokens {
		came, all = came+texts[i], all+tokens[i]
	}
	return 1 - float64(came)/float64(max(all, 1))
}

// streamEnded arrives after a stream's last token.
const streamEnded = -1

// observe measures from the begin to the end of w. A stream that ends before
// would leave a smaller batch to measure.
func (s *server) observe(w *window, arrivals <-chan int) (sample, error) {
	var m meter
	for stream := range arrivals {
		if stream == streamEnded {
			break
		}
		begins, ends := w.add(stream)
		var err error
		switch {
		case begins:
			m, err = startMeter(s.cmd.Process.Pid)
		case ends:
			return m.stop(w.tokens())
		}
		if err != nil {
			return sample{}, err
		}
	}
	return sample{}, errUnfit
}
