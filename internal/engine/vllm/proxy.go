package vllm

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"infer/internal/engine"
	"infer/internal/openai"
)

const (
	chunkBytes    = 4 << 10  // one read of a stream
	maxAnswerByte = 64 << 20 // of an answer whose usage is read
)

// load is what is asked of the engine, and how it gets on.
type load struct {
	inFlight atomic.Int64  // requests that wait for the engine process, and not for their client
	progress atomic.Uint64 // events relayed and answers finished
}

// proxy relays requests to one upstream.
type proxy struct {
	up   *upstream
	load *load
	salt *salt // nil puts none
	log  *slog.Logger
}

var chunks = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// ServeHTTP answers one request. It panics with http.ErrAbortHandler when
// vLLM broke off in the middle of an answer, as httputil.ReverseProxy does.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to, e := lookup(r)
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if r.Context().Err() == nil {
			openai.WriteError(w, openai.Invalid("", openai.CodeInvalidJSON, "the body could not be read; send it again"))
		}
		return
	}
	var wanted wish
	switch to.protocol {
	case chat:
		body, wanted = askUsage(body)
	case audio: // a form, whose usage is the client's own wish
		wanted = wish{last: true, continuous: true}
	}
	if to.steps {
		body = p.salt.put(body, engine.CallerFrom(r.Context()))
		p.load.inFlight.Add(1)
		defer p.load.inFlight.Add(-1)
	}
	ctx, leave := p.up.join(r.Context())
	defer leave()
	resp, err := p.send(ctx, r, body)
	if err != nil {
		if r.Context().Err() == nil { // otherwise the client left, or the server answers
			p.log.Warn("engine request", "path", r.URL.Path, "engine_request_id", r.Header.Get("X-Request-Id"), "err", err)
			openai.WriteError(w, brokeOff())
		}
		return
	}
	defer func() { _ = resp.Body.Close() }() // also ends the request when it is not over
	p.answer(w, r, resp, to, wanted)
}

// lookup finds the route, or says why there is none.
func lookup(r *http.Request) (route, *openai.Error) {
	methods, ok := routes[r.URL.Path]
	if !ok {
		return route{}, &openai.Error{Status: http.StatusNotFound, Type: openai.TypeNotFound, Code: openai.CodeRouteNotFound,
			Message: "no such path; GET / lists the endpoints"}
	}
	to, ok := methods[r.Method]
	if !ok {
		return route{}, &openai.Error{Status: http.StatusMethodNotAllowed, Type: openai.TypeInvalidRequest,
			Code:    openai.CodeMethodNotAllowed,
			Message: "this path does not answer that method; use " + strings.Join(slices.Sorted(maps.Keys(methods)), " or ")}
	}
	return to, nil
}

func brokeOff() *openai.Error {
	return &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
		Message: "the engine broke off; send the request again, and see the server's log when it repeats"}
}

// passed are the only headers of a request that vLLM sees. Its others change
// priorities, ranks and sessions, or carry the client's key. vLLM makes the
// answer's id of X-Request-Id, and aborts by it: whoever calls ServeHTTP must
// send no id twice.
var passed = []string{"Content-Type", "Accept", "Traceparent", "Tracestate", "X-Request-Id"}

func (p *proxy) send(ctx context.Context, r *http.Request, body []byte) (*http.Response, error) {
	out, err := p.up.request(ctx, r.Method, r.URL.Path, body)
	if err != nil {
		return nil, err
	}
	for _, name := range passed {
		if v, ok := r.Header[name]; ok {
			out.Header[name] = v
		}
	}
	if engine.IsBatch(r.Context()) { // the others have 0; lower goes first, where the scheduling policy is priority
		out.Header["X-Vllm-Priority"] = []string{"1"}
	}
	if out.Header.Get("Content-Type") == "" { // vLLM insists on it
		out.Header.Set("Content-Type", "application/json")
	}
	return p.up.transport.RoundTrip(out)
}

// answer passes on what vLLM answers.
func (p *proxy) answer(w http.ResponseWriter, r *http.Request, resp *http.Response, to route, wanted wish) {
	switch {
	case resp.StatusCode != http.StatusOK:
		p.refused(w, r, resp)
	case strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream"):
		p.stream(w, r, resp, to, wanted)
	default:
		p.whole(w, r, resp, to)
	}
}

// refused gives an error of vLLM our shape.
func (p *proxy) refused(w http.ResponseWriter, r *http.Request, resp *http.Response) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if r.Context().Err() != nil {
		return
	}
	if err != nil {
		openai.WriteError(w, brokeOff())
		return
	}
	if resp.StatusCode >= 500 {
		p.log.Warn("engine error", "status", resp.StatusCode, "path", r.URL.Path, "engine_request_id", r.Header.Get("X-Request-Id"), "message", oneLine(readComplaint(body).message))
		if engineDead(body) {
			p.up.markSick()
		}
	}
	openai.WriteError(w, wireError(resp.StatusCode, body, r.Method+" "+r.URL.Path))
}

// whole passes on an answer that is no stream. It is read to its end first, so
// that one which breaks off can still be a real status.
func (p *proxy) whole(w http.ResponseWriter, r *http.Request, resp *http.Response, to route) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerByte))
	if err != nil {
		if r.Context().Err() == nil {
			p.log.Warn("engine answer", "path", r.URL.Path, "engine_request_id", r.Header.Get("X-Request-Id"), "err", err)
			openai.WriteError(w, brokeOff())
		}
		return
	}
	if to.steps {
		p.load.progress.Add(1)
	}
	if u, ok := readUsage(member(body, "usage").of(body)); ok {
		t := tally{meter: engine.MeterFrom(r.Context())}
		t.sum(u)
	}
	copyHeader(w.Header(), resp.Header)
	if len(body) < maxAnswerByte {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(resp.StatusCode)
	err = p.write(w, http.NewResponseController(w), body, to.steps)
	if err == nil && len(body) == maxAnswerByte {
		_, err = io.Copy(w, resp.Body)
	}
	if err != nil && r.Context().Err() == nil {
		panic(http.ErrAbortHandler)
	}
}

// copyHeader takes the headers that mean something to a client. vLLM puts what
// describes the bytes of encoding_format "bytes" into metadata.
func copyHeader(to, from http.Header) {
	for _, name := range []string{"Content-Type", "Metadata"} {
		if v, ok := from[name]; ok {
			to[name] = v
		}
	}
}

// stream passes on whole events as they come. The status line waits for the
// first: vLLM sends its own at once, even when its engine hangs.
func (p *proxy) stream(w http.ResponseWriter, r *http.Request, resp *http.Response, to route, wanted wish) {
	s := stream{protocol: to.protocol, steps: to.steps, wish: wanted, tally: tally{meter: engine.MeterFrom(r.Context())}}
	defer s.tally.close()
	err := p.copy(w, resp, &s)
	if s.dead {
		p.up.markSick()
	}
	switch {
	case err == nil && s.whole(), s.done, r.Context().Err() != nil:
	default:
		p.log.Warn("engine stream broke off", "path", r.URL.Path, "engine_request_id", r.Header.Get("X-Request-Id"), "err", err)
		panic(http.ErrAbortHandler)
	}
}

// write passes bytes on at once. A client that does not read keeps it waiting, which
// says nothing of the engine.
func (p *proxy) write(w io.Writer, flush *http.ResponseController, b []byte, steps bool) error {
	if steps {
		p.load.inFlight.Add(-1)
		defer p.load.inFlight.Add(1)
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	if err := flush.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// copy returns nil at the end of the upstream's bytes.
func (p *proxy) copy(w http.ResponseWriter, resp *http.Response, s *stream) error {
	flush := http.NewResponseController(w)
	in := chunks.Get().(*[chunkBytes]byte)
	defer chunks.Put(in)
	var out []byte
	started := false
	for {
		n, err := resp.Body.Read(in[:])
		var fed error
		events := s.events
		out, fed = s.feed(out[:0], in[:n])
		p.load.progress.Add(s.events - events)
		if len(out) > 0 {
			if !started {
				started = true
				copyHeader(w.Header(), resp.Header)
				w.Header().Set("Cache-Control", "no-cache")
				w.Header().Set("X-Accel-Buffering", "no")
				w.WriteHeader(resp.StatusCode)
			}
			if err := p.write(w, flush, out, s.steps); err != nil {
				return err
			}
		}
		switch {
		case fed != nil:
			return fed
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}
