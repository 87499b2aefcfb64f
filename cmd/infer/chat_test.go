package main

import (
	"bytes"
	"encoding/json/v2"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// wire is an OpenAI server whose chat route a test writes.
func wire(t *testing.T, chat http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"m1"},{"id":"m2"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", chat)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}

// event writes one event and flushes it.
func event(w http.ResponseWriter, data string) {
	_, _ = fmt.Fprintf(w, "data: %s\n\n", data)
	_ = http.NewResponseController(w).Flush()
}

func text(w http.ResponseWriter, s string) {
	content, _ := json.Marshal(s) // text always marshals
	event(w, fmt.Sprintf(`{"choices":[{"delta":{"content":%s}}]}`, content))
}

// chats runs infer chat in this process.
func chats(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	p := in(nil, append([]string{"chat"}, args...)...)
	var out, errOut bytes.Buffer
	p.stdin, p.stdout, p.stderr = stdin, &out, &errOut
	err = run(t.Context(), p)
	return out.String(), errOut.String(), err
}

func TestChatOnce(t *testing.T) {
	var got chatRequest
	url := wire(t, func(w http.ResponseWriter, r *http.Request) {
		if err := json.UnmarshalRead(r.Body, &got); err != nil {
			t.Error(err)
		}
		if auth := r.Header.Get("Authorization"); auth != "Bearer sk-1" {
			t.Errorf("Authorization %q", auth)
		}
		event(w, `{"choices":[{"delta":{"role":"assistant","content":""}}]}`)
		text(w, "Hel")
		text(w, "lo\u001b[2J")
		event(w, `{"choices":[],"usage":{"completion_tokens":3}}`)
		event(w, "[DONE]")
	})
	stdout, stderr, err := chats(t, strings.NewReader(""), "--url", url+"/v1/", "--api-key=sk-1", "--system=brief",
		"--max-tokens=7", "--temperature=0", "say", "hello")
	if stdout != "Hello[2J\n" || err != nil {
		t.Errorf("got %q, %v; want the text without its escape", stdout, err)
	}
	if !regexp.MustCompile(`^\[3 tokens, TTFT \d+ ms, [\d.]+ tokens/s\]\n$`).MatchString(stderr) {
		t.Errorf("stderr %q", stderr)
	}
	want := `{"model":"m1","messages":[{"role":"system","content":"brief"},{"role":"user","content":"say hello"}],` +
		`"max_tokens":7,"temperature":0,"stream":true,"stream_options":{"include_usage":true}}`
	if sent, _ := json.Marshal(got); string(sent) != want {
		t.Errorf("sent %s\nwant %s", sent, want)
	}
}

func TestChatReadsAPipe(t *testing.T) {
	var got chatRequest
	url := wire(t, func(w http.ResponseWriter, r *http.Request) {
		_ = json.UnmarshalRead(r.Body, &got)
		text(w, "ok")
		event(w, "[DONE]")
	})
	if stdout, _, err := chats(t, strings.NewReader("from a pipe\n"), "--url", url, "--model=m2"); stdout != "ok\n" || err != nil {
		t.Errorf("got %q, %v", stdout, err)
	}
	if got.Model != "m2" || got.Messages[0].Content != "from a pipe\n" {
		t.Errorf("sent %+v", got)
	}
}

func TestChatErrors(t *testing.T) {
	reply := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	envelope := `{"error":{"message":"queue full; try later","type":"rate_limit_error","param":null,"code":"queue_full"}}`
	for _, tt := range []struct {
		name string
		url  string
		code int
		want string
	}{
		{"the server refuses", wire(t, reply(429, envelope)), exitRetry, "server: queue full; try later (HTTP 429)"},
		{"not this API", wire(t, reply(404, "<html>")), exitUsage, "is --url an OpenAI API"},
		{"an error inside the stream", wire(t, reply(200, "data: "+envelope+"\n\ndata: [DONE]\n\n")), exitUnavailable, "server: queue full"},
		{"a stream that is cut", wire(t, reply(200, "data: {\"choices\":[]}\n\n")), exitSoftware, "broke off"},
		{"nothing there", "http://127.0.0.1:1", exitUnavailable, "start infer serve"},
		{"not a URL", "http://[", exitUsage, "url: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := chats(t, strings.NewReader(""), "--url", tt.url, "hi")
			if exitCode(err) != tt.code {
				t.Errorf("exit code %d for %v, want %d", exitCode(err), err, tt.code)
			}
			contains(t, fmt.Sprint(err), tt.want)
		})
	}
	if _, _, err := chats(t, strings.NewReader(" \n"), "--url", wire(t, reply(500, ""))); exitCode(err) != exitUsage {
		t.Errorf("an empty prompt: %v", err)
	}
}

// The first Ctrl-C ends the answer, and the connection with it; the second,
// with no answer to end, ends the conversation.
func TestChatInterrupt(t *testing.T) {
	left := make(chan struct{})
	url := wire(t, func(w http.ResponseWriter, r *http.Request) {
		text(w, "endless")
		<-r.Context().Done()
		close(left)
	})
	signals := make(chan os.Signal)
	p := in(nil)
	seen := &signalOn{text: "endless", signals: signals}
	var errOut bytes.Buffer
	stdin, typed := io.Pipe()
	t.Cleanup(func() { _ = typed.Close() })
	p.stdin, p.stdout, p.stderr, p.signals = stdin, seen, &errOut, signals
	conv := conversation{p: p, client: newClient(chatCmd{URL: url, Model: "m1"})}
	go func() { _, _ = io.WriteString(typed, "\ngo on\n") }()
	go func() {
		<-left
		signals <- syscall.SIGINT
	}()
	if err := conv.interactive(t.Context()); err != nil {
		t.Fatal(err)
	}
	contains(t, errOut.String(), "answer cancelled")
	if n := len(conv.said); n != 2 || conv.said[1].Content != "endless" {
		t.Errorf("said %+v; want the question and the part of the answer that was shown", conv.said)
	}
}

// signalOn is a terminal whose user presses Ctrl-C on seeing text.
type signalOn struct {
	text    string
	signals chan<- os.Signal
}

func (s *signalOn) Write(b []byte) (int, error) {
	if string(b) == s.text {
		s.signals <- syscall.SIGINT
	}
	return len(b), nil
}

func TestChatConversation(t *testing.T) {
	var turns []int
	url := wire(t, func(w http.ResponseWriter, r *http.Request) {
		var got chatRequest
		_ = json.UnmarshalRead(r.Body, &got)
		turns = append(turns, len(got.Messages))
		if len(turns) == 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":{"message":"draining"}}`)
			return
		}
		text(w, "fine")
		event(w, "[DONE]")
	})
	p := in(nil)
	var out, errOut bytes.Buffer
	p.stdin, p.stdout, p.stderr = strings.NewReader("one\ntwo\nthree\n/exit\nfour\n"), &out, &errOut
	conv := conversation{p: p, client: newClient(chatCmd{URL: url, Model: "m1"})}
	if err := conv.interactive(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The refused question is forgotten, so that it can be asked again.
	if got := fmt.Sprint(turns); got != "[1 3 3]" {
		t.Errorf("messages a turn: %s, want [1 3 3]", got)
	}
	contains(t, errOut.String(), "server: draining (HTTP 503)")
	if out.String() != "fine\nfine\n" {
		t.Errorf("stdout %q", out.String())
	}
}

func TestSecretIsNotShown(t *testing.T) {
	if got := fmt.Sprintf("%v %+v", secret("sk-123456"), chatCmd{APIKey: "sk-123456"}); strings.Contains(got, "123") {
		t.Errorf("got %s", got)
	}
}
