//go:build real

package vllm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	question = `"messages":[{"role":"user","content":"Name the capital of France in one short sentence."}],"temperature":0`
	story    = `"messages":[{"role":"user","content":"Tell me a long story about a ship."}],"temperature":0,"ignore_eos":true`
	running  = `vllm:num_requests_running{`
	waiting  = `vllm:num_requests_waiting{`
)

// One life of infer over a real vLLM, in its order: every step needs what the
// step before left.
func TestRealLife(t *testing.T) {
	s := start(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *server)
	}{
		{"start", starts}, {"answers", answers}, {"streams", streams}, {"cancellation", cancels},
		{"engine killed", func(t *testing.T, s *server) {
			dies(t, s, "VLLM::EngineCor", syscall.SIGKILL, "engine_fault")
		}},
		{"api server killed", func(t *testing.T, s *server) { dies(t, s, apiServer, syscall.SIGKILL, "killed") }},
		{"engine frozen", func(t *testing.T, s *server) {
			dies(t, s, "VLLM::EngineCor", syscall.SIGSTOP, "engine_stalled")
		}},
		{"answers after three deaths", answers}, {"stop", stops},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, s) }) && step.name == "start" {
			return
		}
	}
}

func start(t *testing.T) *server {
	t.Helper()
	args := []string{"--engine=vllm", "--model", fromMake(t, "INFER_TEST_VLLM_MODEL"), "--served-model-name=smollm2",
		"--vllm-program", fromMake(t, "INFER_TEST_VLLM"), "--stall-timeout=20s", "--grace=20s", "--hold=10m", "--"}
	return serve(t, append(args, vllmFlags...)...)
}

func starts(t *testing.T, s *server) {
	_, first := s.until("an answer", time.Minute, func(code int, _ state) bool { return code == 503 })
	t.Logf("first answer %v after infer listens", first)
	held := make(chan string, 1)
	go func() {
		_, text := s.post(context.WithoutCancel(t.Context()), "/v1/chat/completions", `{`+question+`,"max_tokens":24}`)
		held <- text
	}()
	phases, took := s.until("ready", startTimeout, ready)
	t.Logf("ready after %v, by way of %v", took, phases)
	for _, want := range []string{"starting", "loading", "compiling", "ready"} {
		if !slices.Contains(phases, want) {
			t.Errorf("phase %s was not seen", want)
		}
	}
	if text := <-held; !strings.Contains(text, "Paris") {
		t.Errorf("the held request got %s", text)
	}
}

func answers(t *testing.T, s *server) {
	for _, tt := range []struct {
		path, body string
		status     int
		says       []string
	}{
		{"/v1/chat/completions", `{"model":"smollm2",` + question + `,"max_tokens":24}`, 200, []string{"The capital of France is Paris.", `"prompt_tokens":40`, `"completion_tokens":8`}},
		{"/v1/completions", `{"prompt":"The capital of France is","max_tokens":4,"temperature":0}`, 200, []string{" Paris", `"completion_tokens":4`}},
		{"/v1/responses", `{"input":"Name the capital of France.","max_output_tokens":12,"temperature":0}`, 200, []string{"Paris", `"output_tokens"`}},
		{"/v1/messages", `{"model":"smollm2","max_tokens":12,` + question + `}`, 200, []string{"Paris", `"input_tokens":40`}},
		{"/v1/messages/count_tokens", `{"model":"smollm2",` + strings.TrimSuffix(question, `,"temperature":0`) + `}`, 200, []string{`"input_tokens":40`}},
		{"/tokenize", `{"model":"smollm2","prompt":"Hello"}`, 200, []string{`"tokens"`}},
		{"/v1/chat/completions", `{"model":"other",` + question + `}`, 404, []string{`"model_not_found"`}},
		{"/v1/chat/completions", `{"model":"smollm2","messages":[{"role":"user","content":"` + strings.Repeat("word ", 2000) + `"}]}`, 400, []string{`"context_length_exceeded"`}},
		{"/v1/chat/completions", `{` + strings.Replace(question, `:0`, `:9`, 1) + `}`, 400, []string{`"invalid_request_error"`, `"param":"temperature"`}},
		{"/v1/chat/completions", `{}`, 400, []string{`"missing_field"`, `"param":"messages"`}},
		{"/v1/chat/completions", `{"messages":7}`, 400, []string{`"invalid_request_error"`}},
		{"/v1/embeddings", `{"input":"x"}`, 404, []string{`"route_not_found"`}},
		{"/invocations", `{` + question + `}`, 404, []string{`"route_not_found"`}},
		{"/sleep", `{}`, 404, []string{`"route_not_found"`}},
	} {
		status, text := s.post(t.Context(), tt.path, tt.body)
		for _, want := range tt.says {
			if status != tt.status || !strings.Contains(text, want) {
				t.Errorf("%s %.80s: HTTP %d %.600s; want %d with %s", tt.path, tt.body, status, text, tt.status, want)
			}
		}
		if strings.Contains(text, `"code":4`) || strings.Contains(text, `"detail"`) {
			t.Errorf("%s: vLLM's own error: %s", tt.path, text)
		}
	}
}

func streams(t *testing.T, s *server) {
	before := s.metric(`infer_tokens_total{kind="completion",model="smollm2"}`)
	_, text := s.post(t.Context(), "/v1/chat/completions", `{"stream":true,"max_tokens":24,`+question+`}`)
	if !strings.Contains(text, `"content":" Paris"`) || !strings.HasSuffix(text, "data: [DONE]\n\n") || strings.Contains(text, "usage") {
		t.Errorf("stream without usage: %s", text)
	}
	if n := s.metric(`infer_tokens_total{kind="completion",model="smollm2"}`) - before; n != 8 {
		t.Errorf("metered %v tokens, want 8", n)
	}
	_, text = s.post(t.Context(), "/v1/chat/completions", `{"stream":true,"stream_options":{"include_usage":true},"max_tokens":24,`+question+`}`)
	if strings.Count(text, `"usage"`) != 1 || !strings.Contains(text, `"completion_tokens":8`) {
		t.Errorf("stream with usage: %s", text)
	}
	for path, end := range map[string]string{"/v1/responses": "event: response.completed", "/v1/messages": "event: message_stop"} {
		body := `{"stream":true,"input":"Name the capital of France.","max_output_tokens":12,"temperature":0}`
		if path == "/v1/messages" {
			body = `{"model":"smollm2","stream":true,"max_tokens":12,` + question + `}`
		}
		if _, text := s.post(t.Context(), path, body); !strings.Contains(text, "Paris") || !strings.Contains(text, end) {
			t.Errorf("%s: %s", path, text)
		}
	}
}

// cancels leaves in the middle of a stream and of a plain answer.
func cancels(t *testing.T, s *server) {
	for _, stream := range []bool{true, false} {
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = s.post(ctx, "/v1/chat/completions", fmt.Sprintf(`{"stream":%v,"max_tokens":900,%s}`, stream, story))
		})
		s.untilMetric(running, 1, 30*time.Second)
		leave()
		t.Logf("stream %v: vLLM's gauge is 0 after %v", stream, s.untilMetric(running, 0, 10*time.Second))
		wg.Wait()
	}
}

// protocols are long streams by their path, what shows that one has begun, and
// how each says that it broke off.
var protocols = map[string]struct {
	long, token, fault string
	last               []string // the names of the last events, or the terminator
}{
	"/v1/chat/completions": {`{"stream":true,"max_tokens":900,` + story + `}`, `"delta"`, `"error"`, []string{"data: [DONE]"}},
	"/v1/completions":      {`{"stream":true,"max_tokens":900,"prompt":"Once upon a time","temperature":0,"ignore_eos":true}`, `"text"`, `"error"`, []string{"data: [DONE]"}},
	"/v1/responses": {`{"stream":true,"max_output_tokens":900,"input":"Tell me a long story about a ship.","temperature":0}`,
		"response.created", "event: response.failed", []string{"event: error", "event: response.failed"}},
	"/v1/messages": {`{"model":"smollm2","stream":true,"max_tokens":900,` + strings.Replace(story, `,"ignore_eos":true`, "", 1) + `}`, "message_start", `"type":"error"`, []string{"event: error"}},
}

// ending is the first lines of the last n events of a whole stream.
func ending(stream string, n int) string {
	whole, ok := strings.CutSuffix(stream, "\n\n")
	events := strings.Split(whole, "\n\n")
	if !ok || len(events) < n {
		return "half an event"
	}
	var firsts []string
	for _, e := range events[len(events)-n:] {
		first, _, _ := strings.Cut(e, "\n")
		firsts = append(firsts, first)
	}
	return strings.Join(firsts, " ")
}

// dies signals a process in the middle of a stream of every protocol and
// follows what happens until the next life.
func dies(t *testing.T, s *server, name string, sig syscall.Signal, cause string) {
	before := descendants(t, s.cmd.Process.Pid)
	var wg sync.WaitGroup
	for path, p := range protocols {
		wg.Go(func() {
			_, text := s.post(context.WithoutCancel(t.Context()), path, p.long)
			if !strings.Contains(text, p.token) || !strings.Contains(text, p.fault) || ending(text, len(p.last)) != strings.Join(p.last, " ") {
				t.Errorf("%s ends with %q, want an error event and the terminator", path, text[max(0, len(text)-400):])
			}
		})
	}
	s.untilMetric(running, float64(len(protocols)), time.Minute)
	kill(t, named(t, s.cmd.Process.Pid, name), sig)
	_, noticed := s.until("the failure", 40*time.Second, func(code int, st state) bool { return code == 503 && (st.Cause == cause || st.Phase == "stalled") })
	wg.Wait()
	s.until("the cause", 40*time.Second, func(_ int, st state) bool { return st.Cause == cause })
	if left := alive(before); len(left) > 0 {
		t.Errorf("left of the former vLLM: %v", left)
	}
	_, took := s.until("ready again", startTimeout, ready)
	t.Logf("%v of %s: noticed after %v, ready again after %v more", sig, name, noticed, took)
	if n := s.metric(`infer_engine_exits_total{cause="` + cause + `"}`); n < 1 {
		t.Errorf("infer_engine_exits_total of %s is %v", cause, n)
	}
}

// stops sends SIGTERM with streams that cannot end in time.
func stops(t *testing.T, s *server) {
	before := descendants(t, s.cmd.Process.Pid)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, text := s.post(context.WithoutCancel(t.Context()), "/v1/chat/completions", `{"stream":true,"max_tokens":900,`+story+`}`)
			if !strings.Contains(text, `"code":"draining"`) || !strings.HasSuffix(text, "data: [DONE]\n\n") {
				t.Errorf("the stream ends with %q", text[max(0, len(text)-300):])
			}
		})
	}
	s.untilMetric(running, 20, 2*time.Minute)
	began := time.Now()
	kill(t, s.cmd.Process.Pid, syscall.SIGTERM)
	wg.Wait()
	err := <-s.ended
	s.ended <- err
	t.Logf("ended after %v: %v", time.Since(began), err)
	if err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("exit: %v after %v, want a clean one within 20s", err, time.Since(began))
	}
	if left := alive(before); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if !strings.Contains(s.log.String(), `msg="drain deadline: cutting open requests" running=20`) {
		t.Error("the log does not say that 20 were cut")
	}
}

// A sidecar is followed and never ended; with time enough no stream is cut.
func TestRealSidecar(t *testing.T) {
	dir, err := os.MkdirTemp("", "v") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	args := append([]string{"serve", fromMake(t, "INFER_TEST_VLLM_MODEL"), "--served-model-name", "smollm2", "--uds", socket, "--scheduling-policy", "priority"}, vllmFlags...)
	sidecar := exec.Command(fromMake(t, "INFER_TEST_VLLM"), args...)
	sidecar.Env = append(os.Environ(), vllmEnv...)
	sidecar.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := sidecar.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		_ = syscall.Kill(-sidecar.Process.Pid, syscall.SIGKILL)
		_ = sidecar.Wait()
	})
	t.Cleanup(end)
	s := serve(t, "--vllm-url=unix://"+socket, "--grace=3m")
	s.until("waiting", 30*time.Second, func(code int, st state) bool { return code == 503 && strings.Contains(st.Detail, "waiting for") })
	s.until("ready", startTimeout, ready)
	if !strings.Contains(s.log.String(), "the number of slots is a guess") || s.metric("infer_capacity_slots") != 22 {
		t.Errorf("%v slots, want 22, as many as the KV cache holds, called a guess", s.metric("infer_capacity_slots"))
	}
	compare(t, "differences.txt", filepath.Join(filepath.Dir(fromMake(t, "INFER_TEST_VLLM")), "python"), "compare.py", socket, s.url)
	compare(t, "differences-go.txt", "go", "-C", "../clients", "run", "./compare", socket, s.url)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, text := s.post(context.WithoutCancel(t.Context()), "/v1/chat/completions", `{"stream":true,"stream_options":{"include_usage":true},"max_tokens":40,`+story+`}`)
			if !strings.Contains(text, `"completion_tokens":40`) || strings.Contains(text, `"error"`) || !strings.HasSuffix(text, "data: [DONE]\n\n") {
				t.Errorf("the stream ends with %q", text[max(0, len(text)-300):])
			}
		})
	}
	s.untilMetric(running, 20, 2*time.Minute)
	kill(t, s.cmd.Process.Pid, syscall.SIGTERM)
	wg.Wait()
	if err := <-s.ended; err != nil {
		t.Errorf("exit: %v", err)
	}
	s.ended <- nil
	if err := syscall.Kill(sidecar.Process.Pid, 0); err != nil {
		t.Errorf("the sidecar was ended: %v", err)
	}
	const day, night, prom = "day-0123456789abcdef0123456789abcdef", "night-0123456789abcdef0123456789abcdef", "prom-0123456789abcdef0123456789abcdef"
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte("day:"+day+"\nnight:"+night+":batch\nprom:"+prom+":metrics\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = serve(t, "--vllm-url=unix://"+socket, "--max-concurrency=60", "--api-keys-file", keys)
	s.key = prom
	_, took := s.until("ready", time.Minute, ready)
	t.Logf("ready over a running sidecar after %v", took)
	overtakes(t, s, day, night)
	end()
	_, took = s.until("the loss", 30*time.Second, func(code int, st state) bool { return code == 503 && st.Phase == "starting" })
	t.Logf("loss of the sidecar noticed after %v", took)
}

// overtakes queues twice as much batch work inside vLLM as it runs at once. A
// request that somebody waits for does not wait for what is queued.
func overtakes(t *testing.T, s *server, day, night string) {
	var wg sync.WaitGroup
	var ended atomic.Int32
	for range 50 {
		wg.Go(func() {
			status, text := s.postAs(context.WithoutCancel(t.Context()), night, "/v1/chat/completions", `{"max_tokens":40,`+story+`}`)
			if ended.Add(1); status != 200 {
				t.Errorf("batch work: HTTP %d %s", status, text)
			}
		})
	}
	s.untilMetric(waiting, 30, 2*time.Minute)
	status, text := s.postAs(t.Context(), day, "/v1/chat/completions", `{"max_tokens":4,`+story+`}`)
	if n := ended.Load(); status != 200 || n > 35 {
		t.Errorf("HTTP %d %s after %d of 50 requests of batch work, want it before the last 15", status, text, n)
	}
	wg.Wait()
}

// compare lets a client of OpenAI's ask vLLM itself and infer in front of it.
// They differ only in how errors are told.
func compare(t *testing.T, golden, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", args, err, &faults)
	}
	golden = filepath.Join("testdata", golden)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != string(want) {
		t.Errorf("the differences are not those of %s:\n%s", golden, out)
	}
}

// An adapter is a model that answers in its own way; vLLM on a CPU, which does
// not start with the flag for sleep, is started without; and a kill of infer
// leaves nothing of it.
func TestRealAdapterAndNoSleep(t *testing.T) {
	model := fromMake(t, "INFER_TEST_VLLM_MODEL")
	adapter := filepath.Join(t.TempDir(), "noise")
	python := filepath.Join(filepath.Dir(fromMake(t, "INFER_TEST_VLLM")), "python")
	if out, err := exec.CommandContext(t.Context(), python, "adapter.py", model, adapter).CombinedOutput(); err != nil {
		t.Fatalf("adapter.py: %v\n%s", err, out)
	}
	args := []string{"--engine=vllm", "--model", model, "--served-model-name=smollm2", "--vllm-program", fromMake(t, "INFER_TEST_VLLM"),
		"--sleep-after=1h", "--lora", "noise=" + adapter, "--"}
	s := serve(t, append(args, vllmFlags...)...)
	s.until("ready", startTimeout, ready)
	answers := map[string]string{}
	for _, name := range []string{"smollm2", "noise"} {
		status, text := s.post(t.Context(), "/v1/completions", `{"model":"`+name+`","prompt":"Once upon a time","temperature":0,"max_tokens":24}`)
		_, answers[name], _ = strings.Cut(text, `"text":`)
		if answers[name], _, _ = strings.Cut(answers[name], `","`); status != 200 || answers[name] == "" {
			t.Errorf("%s: HTTP %d %s", name, status, text)
		}
	}
	if answers["smollm2"] == answers["noise"] {
		t.Errorf("the adapter changes nothing: %s", answers["noise"])
	}
	if n := strings.Count(s.log.String(), "this vllm cannot sleep"); n != 1 {
		t.Errorf("that it cannot sleep is said %d times, want once", n)
	}
	killed(t, s)
}

// killed ends infer as nothing can handle. The kernel ends the API server with
// it; the engine process and its worker would go on.
func killed(t *testing.T, s *server) {
	before := descendants(t, s.cmd.Process.Pid)
	kill(t, s.cmd.Process.Pid, syscall.SIGKILL)
	s.ended <- <-s.ended
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for left := alive(before); len(left) > 0; left = alive(before) {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("left behind: %v", left)
		}
		<-tick.C
	}
	t.Logf("SIGKILL of infer: %d processes gone after %v", len(before), time.Since(began))
}

// What vLLM refuses to start with is said in one line, with exit code 69.
func TestRealRefusal(t *testing.T) {
	s := serve(t, "--engine=vllm", "--model", fromMake(t, "INFER_TEST_VLLM_MODEL"), "--vllm-program", fromMake(t, "INFER_TEST_VLLM"),
		"--", "--no-such-flag")
	err := <-s.ended
	s.ended <- err
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 69 {
		t.Errorf("exit: %v, want code 69", err)
	}
	_, last, _ := strings.Cut(s.log.String(), "\ninfer: ")
	t.Logf("after %v: %s", time.Since(s.began), last)
	if !strings.Contains(last, "--no-such-flag") || strings.Count(last, "\n") != 1 {
		t.Errorf("last words %q", last)
	}
}
