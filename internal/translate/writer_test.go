package translate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"infer/internal/openai"
)

// sides are both protocols with a streaming request.
func sides() []struct {
	name, body string
	wrap       func(http.Handler) http.Handler
} {
	return []struct {
		name, body string
		wrap       func(http.Handler) http.Handler
	}{{"responses", askResponse, Responses}, {"messages", askMessage, Messages}}
}

// Every chunk has left as events before the next is written.
func TestStreamsAtOnce(t *testing.T) {
	for _, side := range sides() {
		t.Run(side.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			chat := streaming(t, "text.sse")
			var seen []int
			chat.hook = func(int) {
				if !w.Flushed {
					t.Error("not flushed")
				}
				w.Flushed = false
				seen = append(seen, strings.Count(w.Body.String(), "\n\n"))
			}
			side.wrap(chat).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(side.body)))
			want := map[string][]int{"responses": {2, 5, 6, 6, 6, 10}, "messages": {1, 4, 5, 5, 5, 8}}[side.name]
			if !slices.Equal(seen, want) {
				t.Errorf("events after each chunk: %v, want %v", seen, want)
			}
		})
	}
}

// However the chat's bytes arrive, the client reads the same.
func TestAnySplit(t *testing.T) {
	for _, side := range sides() {
		for _, name := range []string{"tools.sse", "broken.sse"} {
			want := settled(post(side.wrap(streaming(t, name)), side.body).Body.String())
			for _, size := range []int{1, 7, 100, 1 << 20} {
				text := strings.ReplaceAll(readFile(t, "chat", name), "\n", "\r\n")
				chat := &fakeChat{header: http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}}
				for piece := range slices.Chunk([]byte(text), size) {
					chat.pieces = append(chat.pieces, string(piece))
				}
				w := post(side.wrap(chat), side.body)
				got := settled(w.Body.String())
				if size == 1<<20 && name == "broken.sse" { // nothing had left: a real status
					if w.Code != http.StatusBadGateway {
						t.Errorf("%s in one piece: %d %s", name, w.Code, got)
					}
				} else if got != want {
					t.Errorf("%s %s in pieces of %d:\n%s", side.name, name, size, got)
				}
			}
		}
	}
}

// An error that comes before any word is a status, also out of a stream.
func TestRefusedStream(t *testing.T) {
	w := post(Responses(streaming(t, "refused.sse")), askResponse)
	if want := `{"error":{"message":"over the limit","type":"rate_limit_error","param":null,"code":null}}`; w.Code != 429 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = post(Messages(streaming(t, "refused.sse")), askMessage)
	if want := `{"type":"error","error":{"type":"rate_limit_error","message":"over the limit"},"request_id":"req"}`; w.Code != 429 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What no engine should do still ends as the protocol says.
func TestChatMisbehaves(t *testing.T) {
	const chunk = `data: {"model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\n"
	tool := func(index, name string) string {
		return `data: {"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":` + index + `,"id":"t","function":{"name":"` + name + `","arguments":"{}"}}]}}]}` + "\n\n"
	}
	for _, tt := range []struct{ name, stream, want string }{
		{"silence", "", "the engine broke off"},
		{"no JSON", chunk + "data: {\n\n", "the engine wrote what is no chat completion"},
		{"no reason", chunk + "data: [DONE]\n\n", "the engine ended its answer without saying why"},
		{"nothing but the end", "data: [DONE]\n\n", "the engine ended its answer without saying why"},
		{"too long", chunk + "data: " + strings.Repeat("x", openai.MaxEventBytes), "the engine's stream cannot be read: server-sent event is too long"},
		{"call without a name", chunk + tool("0", ""), "the engine began a tool call without a name"},
		{"back to a call", tool("0", "f") + tool("1", "g") + tool("0", "f"), "the engine went back to a tool call that had ended"},
	} {
		for _, side := range sides() {
			t.Run(tt.name+"/"+side.name, func(t *testing.T) {
				chat := &fakeChat{header: http.Header{"Content-Type": {"text/event-stream"}}, pieces: strings.SplitAfter(tt.stream, "\n\n")}
				w := post(side.wrap(chat), side.body)
				last := `"type":"response.failed"`
				if side.name == "messages" {
					last = `{"type":"error"`
				}
				if w.Code != http.StatusOK && w.Code != http.StatusBadGateway {
					t.Errorf("status %d", w.Code)
				}
				got := w.Body.String()
				if i := strings.LastIndex(got, "data: "); w.Code == http.StatusOK && !strings.Contains(got[i:], last) {
					t.Errorf("ends with %s", got[i:])
				}
				if !strings.Contains(got, tt.want) {
					t.Errorf("no %q in %s", tt.want, got)
				}
			})
		}
	}
}

// A handler that was not understood is told so, to stop it.
func TestUnreadableChatIsStopped(t *testing.T) {
	var first, second error
	chat := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, first = io.WriteString(w, "data: x\n\n")
		_, second = io.WriteString(w, "data: y\n\n")
	})
	if w := post(Responses(chat), askResponse); w.Code != http.StatusBadGateway {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !errors.Is(first, errUnreadable) || !errors.Is(second, errUnreadable) {
		t.Errorf("wrote with %v, %v", first, second)
	}
}

func TestChatBreaksOff(t *testing.T) {
	for _, side := range sides() {
		chat := streaming(t, "cut.sse")
		chat.abort = true
		w := post(side.wrap(chat), side.body)
		wantFile(t, settled(w.Body.String()), side.name, "cut.sse")
		half := answering(200, `{"model":`)
		half.abort = true
		if w := post(side.wrap(half), side.body); w.Code != http.StatusBadGateway {
			t.Errorf("half an answer: %d %s", w.Code, w.Body)
		}
	}
	defer func() {
		if p := recover(); p != "own" {
			t.Errorf("recovered %v", p)
		}
	}()
	post(Messages(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("own") })), askMessage)
}

// Nobody is left to be told when the client has gone.
func TestClientLeaves(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	chat := streaming(t, "cut.sse")
	chat.hook = func(int) { cancel() }
	w := httptest.NewRecorder()
	Messages(chat).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(askMessage)).WithContext(ctx))
	if strings.Contains(w.Body.String(), "event: error") {
		t.Errorf("told the client that left:\n%s", w.Body)
	}
}

// brokenWriter is a client whose connection is lost.
type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("connection lost") }

func TestLostConnectionReachesTheChat(t *testing.T) {
	chat := streaming(t, "text.sse")
	told := 0
	chat.hook = func(int) { told++ }
	Responses(chat).ServeHTTP(brokenWriter{httptest.NewRecorder()}, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(askResponse)))
	if told != 0 {
		t.Errorf("the chat went on for %d chunks", told)
	}
}

// Comments keep a connection open before the first word, and pass.
func TestComments(t *testing.T) {
	for _, side := range sides() {
		chat := streaming(t, "broken.sse")
		chat.pieces[0] = ": wait\n\n"
		w := post(side.wrap(chat), side.body)
		if got := w.Body.String(); w.Code != 200 || !strings.HasPrefix(got, ": wait\n\nevent: ") || !strings.Contains(got, "event: error\n") {
			t.Errorf("%d %s", w.Code, got)
		}
	}
}

func TestBodyCannotBeRead(t *testing.T) {
	for _, wrap := range []func(http.Handler) http.Handler{Responses, Messages, CountTokens} {
		w := httptest.NewRecorder()
		wrap(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", iotest.ErrReader(io.ErrUnexpectedEOF)))
		if w.Code != 400 || !strings.Contains(w.Body.String(), "the body cannot be read") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// feed reads as openai.Reader does, in any pieces.
func FuzzFeed(f *testing.F) {
	for _, s := range []string{"data: a\r\n\r\ndata: b\n\ndata: [DONE]\n\n", "data:a\r\rdata:[DONE]\r\r", ": c\nevent: e\ndata: 1\ndata: 2\n\n", "data\n\n", "\r\n\r\n"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		in = bytes.ReplaceAll(in, []byte("\ufeff"), nil) // only Reader is told to expect one
		var want, got []string
		for r := openai.NewReader(bytes.NewReader(in)); ; {
			data, err := r.Next()
			if err != nil {
				break
			}
			want = append(want, string(data))
		}
		var fd feed
		ended := false
		for piece := range slices.Chunk(in, 1+max(size, -size)&63) {
			err := fd.write(piece, func(b []byte) error {
				ended = ended || string(b) == "[DONE]"
				if !ended {
					got = append(got, string(b))
				}
				return nil
			}, func([]byte) error { return nil })
			if err != nil {
				return
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	})
}

// FuzzRequest holds that any body is either refused with a short 400 or
// becomes a chat that can be asked.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{askResponse, askMessage, `{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}]}`,
		`{"input":"q","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[]}}`,
		`{"max_tokens":1,"system":[{"type":"text","text":"s"}],"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]}]}`,
		`{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","is_error":true,"content":[{"type":"text","text":"x"}]}]}],"thinking":{"type":"enabled"}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, wrap := range []func(http.Handler) http.Handler{Responses, Messages, CountTokens} {
			chat := answering(200, okAnswer)
			w := httptest.NewRecorder()
			wrap(chat).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body)))
			switch asked := chat.path != ""; {
			case asked && chat.asked == "", !asked && (w.Code != 400 || w.Body.Len() > 4096):
				t.Errorf("asked %q, answered %d %s", chat.asked, w.Code, w.Body)
			}
		}
	})
}
