package serve

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"infer/internal/openai"
)

// notes is a client's end that remembers each write and each flush.
type notes struct {
	header  http.Header
	status  int
	writes  []string
	flushed int // writes that have left
}

func (n *notes) Header() http.Header    { return n.header }
func (n *notes) WriteHeader(status int) { n.status = status }
func (n *notes) FlushError() error      { n.flushed = len(n.writes); return nil }
func (n *notes) Write(p []byte) (int, error) {
	n.writes = append(n.writes, string(p))
	return len(p), nil
}

// relayed gives pieces to a relay, with a flush behind each that flush names,
// and returns what the client saw. The engine's buffer is used again at once.
func relayed(t interface {
	Helper()
	Fatalf(string, ...any)
}, f *fixture, pieces [][]byte, flush func(i int) bool) *notes {
	t.Helper()
	n := &notes{header: http.Header{}}
	x := newExchange(f.Server, n, httptest.NewRequest(http.MethodPost, "/v1/chat/completions", nil))
	rl := newRelay(x, x)
	rl.Header().Set("Content-Type", "text/event-stream")
	buf := make([]byte, 0, 1024)
	for i, p := range pieces {
		buf = append(buf[:0], p...)
		if got, err := rl.Write(buf); got != len(p) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", p, got, err)
		}
		for j := range buf {
			buf[j] = '#'
		}
		if flush(i) {
			rl.Flush()
		}
		if n.flushed != len(n.writes) {
			t.Fatalf("%q was written and not flushed", n.writes)
		}
	}
	rl.finish(nil, nil)
	return n
}

func (n *notes) body() string { return strings.Join(n.writes, "") }

// answer is the model of a relay: what comes of whole events and a last part.
func answer(events []string, part string) (status int, body string) {
	fail := func(e string) (int, string) {
		if body == "" {
			return 502, e
		}
		return 200, body + "data: " + e + "\n\n" + done
	}
	for _, ev := range events {
		switch {
		case strings.HasPrefix(ev, ":"):
			if body != "" {
				body += ev
			}
		case strings.Contains(ev, "[DONE]") && !strings.Contains(ev, `"`):
			return 200, body + ev
		case strings.HasPrefix(ev, `data: {"error"`):
			return fail(fault)
		default:
			body += ev
		}
	}
	if part == "data: [DONE]\n" {
		return 200, body + done
	}
	if body == "" {
		return 502, brokeOff
	}
	return fail(brokeOff)
}

const fault = `{"error":{"message":"no","type":"server_error","param":null,"code":"internal_error"}}`

// Whatever the engine's writes and flushes, the client gets the same bytes,
// and every write to it is of whole events.
func TestAnySplitIsTheSame(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	rapid.Check(t, func(t *rapid.T) {
		event := rapid.SampledFrom([]string{
			"data: 1\n\n", "data: {\"a\":\"data: [DONE]\"}\n\n", "data: {\"a\":\"\\n\\n\"}\n\n", ": c\n\n", "event: x\ndata: 1\ndata: 2\n\n", "data: ü\r\n\r\n",
			"id: 7\r\ndata:3\r\n\r\n", "data: 4\r\r", "data: {\"object\":\"error\"}\n\n", "data: " + fault + "\n\n", done, "data:[DONE]\r\n\r\n",
		})
		events := rapid.SliceOfN(event, 0, 8).Draw(t, "events")
		part := rapid.SampledFrom([]string{"", "", "data: 5", "data: 5\n", ":", "data: [DONE]\n", "event: x\r\n"}).Draw(t, "part")
		text := strings.Join(events, "") + part
		var pieces [][]byte
		for rest := []byte(text); len(rest) > 0; {
			n := rapid.IntRange(0, min(len(rest), 40)).Draw(t, "n")
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		flushes := rapid.SliceOfN(rapid.Bool(), len(pieces), len(pieces)).Draw(t, "flushes")
		got := relayed(t, f, pieces, func(i int) bool { return flushes[i] })
		status, body := answer(events, part)
		if got.body() != body || got.status != status {
			t.Fatalf("%d %q\nwant %d %q", got.status, got.body(), status, body)
		}
		for _, w := range got.writes {
			if status == 200 && !strings.HasSuffix(w, "\n\n") && !strings.HasSuffix(w, "\n\r\n") && !strings.HasSuffix(w, "\r\r") {
				t.Fatalf("half an event was written: %q", w)
			}
		}
	})
}

// The same for bytes that nobody should send.
func FuzzRelay(f *testing.F) {
	for _, seed := range []string{"data: 1\n\n" + done, "\n\r\n\n\ndata\r\r\r\n:\n\n\r", "data: {\"error\":\n\n", "data: [DONE]\r\n", "\ufeffdata:\n\n"} {
		f.Add([]byte(seed), uint8(3))
	}
	fix := newFixture(f, config(), ready(1), say)
	never := func(int) bool { return false }
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		whole := relayed(t, fix, [][]byte{text}, never)
		var pieces [][]byte
		for rest := text; len(rest) > 0; {
			n := min(len(rest), int(size)+1)
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		split := relayed(t, fix, pieces, never)
		if whole.body() != split.body() || whole.status != split.status {
			t.Errorf("in one piece %d %q\nin pieces of %d: %d %q", whole.status, whole.body(), int(size)+1, split.status, split.body())
		}
		if whole.status == 200 && !strings.HasSuffix(whole.body(), done) && !bytes.Contains([]byte(whole.body()), []byte("[DONE]")) {
			t.Errorf("no terminator: %q", whole.body())
		}
	})
}

// More than one event in a write is one write and one flush to the client.
func TestCoalesced(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	n := relayed(t, f, [][]byte{[]byte("data: 1\n\ndata: 2\n\ndata: 3"), []byte("\n\ndata: 4\n\n" + done)}, func(int) bool { return true })
	if len(n.writes) != 2 || n.writes[0] != "data: 1\n\ndata: 2\n\n" {
		t.Errorf("writes: %q", n.writes)
	}
}

// An event may be large, but has a bound.
func TestEventTooLong(t *testing.T) {
	serve := func(first string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, first)
			piece := bytes.Repeat([]byte("x"), 1<<20)
			for range maxEventBytes>>20 + 1 {
				if _, err := w.Write(piece); err != nil {
					break
				}
			}
		}
	}
	const want = `{"error":{"message":"the engine wrote an event that is too long","type":"server_error","param":null,"code":"engine_broke_off"}}`
	f := newFixture(t, config(), ready(1), serve("data: "))
	if w := f.do("POST", "/v1/chat/completions", chat); w.Code != 502 || w.Body.String() != want {
		t.Errorf("%d %.200q", w.Code, w.Body)
	}
	f = newFixture(t, config(), ready(1), serve("data: 1\n\n"))
	if w := f.do("POST", "/v1/chat/completions", chat); w.Code != 200 || w.Body.String() != "data: 1\n\ndata: "+want+"\n\n"+done {
		t.Errorf("%d %.200q", w.Code, w.Body)
	}
}

// What an engine says beside its refusal reaches the client, in our shape.
func TestRefusalKeepsItsHeaders(t *testing.T) {
	for name, refuse := range map[string]http.HandlerFunc{
		"own words": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(429)
			write(w, `{"error":{"message":"busy","type":"TooManyRequests","code":429}}`)
		},
		"ours": func(w http.ResponseWriter, _ *http.Request) {
			openai.WriteError(w, &openai.Error{Status: 429, Type: openai.TypeRateLimit, Message: "busy"})
		},
	} {
		for _, path := range []string{"/v1/chat/completions", "/v1/messages"} {
			f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "77")
				w.Header().Set("X-Request-Id", "mine")
				w.Header().Set("Content-Length", "9")
				w.Header().Set("Content-Type", "text/plain")
				refuse(w, r)
			})
			w := f.do("POST", path, helloLive, "X-Request-Id", "theirs")
			h := w.Header()
			if w.Code != 429 || h.Get("Retry-After") != "77" || h.Get("X-Request-Id") != "theirs" || h.Get("Content-Type") != "application/json" || h.Get("Content-Length") != "" {
				t.Errorf("%s %s: %d %v %s", name, path, w.Code, h, w.Body)
			}
			if want := map[bool]string{false: `{"error":{"message":"busy","type":"rate_limit_error","param":null,"code":null}}`,
				true: `{"type":"error","error":{"type":"rate_limit_error","message":"busy"},"request_id":"theirs"}`}[path == "/v1/messages"]; w.Body.String() != want {
				t.Errorf("%s %s: %s", name, path, w.Body)
			}
		}
	}
}

// The engine's log shall name the request as ours does, and by nothing worse.
// Two requests are two, whatever their callers call them.
func TestRequestIDReachesTheEngine(t *testing.T) {
	var got []string
	f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Values("X-Request-Id")
		say(w, r)
	})
	seen := map[string]bool{}
	for _, path := range []string{"/v1/chat/completions", "/v1/messages"} {
		for _, sent := range [][]string{nil, {"sane"}, {"in sane"}, {"one", "two"}} {
			req := httptest.NewRequest("POST", path, strings.NewReader(hello))
			req.Header["X-Request-Id"] = sent
			w := httptest.NewRecorder()
			f.Handler().ServeHTTP(w, req)
			if id := w.Header().Get("X-Request-Id"); len(got) != 1 || !strings.HasPrefix(got[0], id) || strings.Contains(id, " ") || seen[got[0]] {
				t.Errorf("%s: sent %q, answered %q, the engine got %q", path, sent, id, got)
			} else {
				seen[got[0]] = true
			}
		}
	}
}

// gone is a client's end whose context does not end with it.
type gone struct{ notes }

func (*gone) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A client that cannot be written to has left, whatever the engine says then.
func TestLostClient(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	for name, contentType := range map[string]string{"stream": "text/event-stream", "whole": "application/json"} {
		x := newExchange(f.Server, &gone{notes{header: http.Header{}}}, httptest.NewRequest(http.MethodPost, "/v1/chat/completions", nil))
		x.stream = true
		rl := newRelay(x, x)
		rl.Header().Set("Content-Type", contentType)
		if _, err := rl.Write([]byte("data: 1\n\n")); err == nil {
			t.Errorf("%s: the engine was not told", name)
		}
		if half := rl.finish(http.ErrAbortHandler, nil); half || !x.gone || x.cut != byClient {
			t.Errorf("%s: half %v, gone %v, cut by %q", name, half, x.gone, x.cut)
		}
	}
}

// The bytes of a prompt are let go when the engine has them, also when it reads
// them as an io.Copy does.
func TestBodyIsLetGo(t *testing.T) {
	for name, read := range map[string]func(io.Reader) (string, error){
		"ReadAll": func(r io.Reader) (string, error) { b, err := io.ReadAll(r); return string(b), err },
		"WriteTo": func(r io.Reader) (string, error) {
			var b strings.Builder
			_, err := io.Copy(&b, r)
			return b.String(), err
		},
	} {
		b := newBody([]byte("prompt"))
		if got, err := read(b); got != "prompt" || err != nil || b.Size() != 0 {
			t.Errorf("%s: %q, %v, %d bytes held", name, got, err, b.Size())
		}
	}
	b := newBody([]byte("prompt"))
	if err := b.Close(); err != nil || b.Size() != 0 {
		t.Errorf("Close: %v, %d bytes held", err, b.Size())
	}
}
