package clients

import (
	"bufio"
	"context"
	"encoding/json/v2"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

const model = "smollm2"

// binary is the program under test, cache a folder where the model is already
// imported. TestMain sets both.
var binary, cache string

func TestMain(m *testing.M) {
	os.Exit(build(m))
}

// build builds the program and runs the tests.
func build(m *testing.M) int {
	folder, err := os.MkdirTemp("", "infer-clients")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	binary, cache = filepath.Join(folder, "infer"), filepath.Join(folder, "cache")
	cmd := exec.Command("go", "build", "-C", "../..", "-buildvcs=false", "-o", binary, "./cmd/infer")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build infer: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// fromMake returns a variable that names a real part.
func fromMake(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is empty; run make test, which fetches the real parts", name)
	}
	return v
}

// server is one running program.
type server struct {
	t    *testing.T
	url  string // without /v1
	cmd  *exec.Cmd
	log  *logs
	done chan struct{} // closed when the process has ended
	err  error         // of the process, once done is closed
}

// start runs infer serve on a free port. It does not wait for the model.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	return launch(t, append([]string{"--cache", cache, "--model", fromMake(t, "INFER_TEST_MODEL_GGUF"), "--served-model-name", model,
		"--onnx-library", fromMake(t, "INFER_TEST_ONNXRUNTIME"), "--device=cpu"}, args...)...)
}

// launch runs infer serve on a free port, with no other arguments than these.
func launch(t *testing.T, args ...string) *server {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"serve", "--listen=127.0.0.1:0"}, args...)...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, cmd: cmd, log: &logs{address: make(chan string, 1)}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.log.read(stderr)
		s.err = cmd.Wait()
	}()
	t.Cleanup(s.stop)
	select {
	case addr := <-s.log.address:
		s.url = "http://" + addr
	case <-s.done:
		t.Fatalf("infer ended: %v\n%s", s.err, s.log)
	}
	return s
}

// ready starts a server and waits for its model.
func ready(t *testing.T, args ...string) *server {
	t.Helper()
	s := start(t, args...)
	s.untilReady()
	return s
}

func (s *server) untilReady() {
	s.t.Helper()
	s.until("the model to be ready", func() bool {
		status, _ := s.get("/readyz")
		return status == http.StatusOK
	})
}

// stop ends the process; a test that cares how it ends waits on done first.
func (s *server) stop() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
	if s.t.Failed() {
		s.t.Logf("log of infer:\n%s", s.log)
	}
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// exitCode waits for the end of the process.
func (s *server) exitCode() int {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(3 * time.Minute):
		s.t.Fatal("infer did not end within three minutes")
	}
	status, _ := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return status.ExitStatus()
}

// until polls what can only be seen from outside.
func (s *server) until(what string, ok func() bool) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(3 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-s.done:
			s.t.Fatalf("infer ended while the test waited for %s: %v", what, s.err)
		case <-deadline:
			s.t.Fatalf("waited three minutes for %s", what)
		}
	}
}

func (s *server) get(path string) (int, string) {
	s.t.Helper()
	resp, err := http.Get(s.url + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// metric returns the value of one series, which is spelled as in /metrics.
func (s *server) metric(series string) float64 {
	s.t.Helper()
	_, text := s.get("/metrics")
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return v
		}
	}
	s.t.Fatalf("no series %s in\n%s", series, text)
	return 0
}

// client returns the official client, which asks retries times more.
func (s *server) client(retries int) openai.Client {
	return openai.NewClient(option.WithBaseURL(s.url+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(retries))
}

// logs keeps what infer logs and finds the address in it.
type logs struct {
	address chan string
	mu      sync.Mutex
	text    strings.Builder
}

func (l *logs) read(r io.Reader) {
	for sc := bufio.NewScanner(r); sc.Scan(); {
		l.mu.Lock()
		l.text.WriteString(sc.Text() + "\n")
		l.mu.Unlock()
		var line struct{ Msg, Addr string }
		if json.Unmarshal(sc.Bytes(), &line, json.MatchCaseInsensitiveNames(true)) == nil && line.Msg == "listening" {
			l.address <- line.Addr
		}
	}
}

// String returns all lines so far.
func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// ask returns parameters for a short, repeatable answer.
func ask(prompt string, tokens int64) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model: model, MaxTokens: openai.Int(tokens), Temperature: openai.Float(0),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
	}
}

// warm asks once, so that the answers that a test compares all begin with a
// cached prompt: where two words are as likely as each other, the kernels for a
// long and a short prefill may choose differently.
func (s *server) warm(p openai.ChatCompletionNewParams) {
	s.t.Helper()
	client := s.client(0)
	if _, err := client.Chat.Completions.New(timeout(s.t), p); err != nil {
		s.t.Fatal(err)
	}
}

// count returns parameters for an answer of exactly so many tokens: the model
// goes on counting.
func count(tokens int64) openai.CompletionNewParams {
	return openai.CompletionNewParams{
		Model: model, MaxTokens: openai.Int(tokens), Temperature: openai.Float(0),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("1, 2, 3, 4, 5, 6, 7,")},
	}
}

// endless is an answer that no test waits for.
const endless = 4000

// timeout bounds one test.
func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
