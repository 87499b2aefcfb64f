package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"infer/internal/admission"
	"infer/internal/engine"
	"infer/internal/openai"
)

// engine is the way of a request to the model: read and understand it, wait
// for admission, relay. timed routes generate: they count in the latency
// metrics and may stream. Translators stand before admission, so that what they
// refuse waits for nothing.
func (s *Server) engine(admit admit, timed bool, translators ...func(http.Handler) http.Handler) http.HandlerFunc {
	return s.asks(s.understand, admit, timed, translators...)
}

// reading makes sense of a body: it returns what the engine gets, and what was
// learned of it. It has answered when ok is false.
type reading func(ctx context.Context, x *exchange, r *http.Request) (body []byte, req openai.Request, ok bool)

// asks is the way of a request whose body read understands.
func (s *Server) asks(read reading, admit admit, timed bool, translators ...func(http.Handler) http.Handler) http.HandlerFunc {
	var next http.Handler = s.ask(admit, timed)
	for _, translate := range translators {
		next = translate(next)
	}
	next = s.cfg.Extra.before(next)
	return func(_ http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		x.route, x.model, x.modeled, x.timed = routeOf(r.Context()), unknown, true, timed
		if path, ok := aliases[x.route]; ok {
			x.route = path
			r = r.WithContext(r.Context())
			r.URL = &url.URL{Path: path, RawQuery: r.URL.RawQuery}
		}
		ctx, cancel, e := s.deadline(x, r)
		if e != nil {
			openai.WriteError(x, e)
			return
		}
		defer cancel()
		body, req, ok := read(ctx, x, r)
		if !ok {
			return
		}
		if x.settle, e = s.spend(x, &req); e != nil {
			openai.WriteError(x, e)
			return
		}
		defer x.settle()
		x.stream, x.asked = req.Stream, req.Model
		x.measure(&req, len(body))
		x.heed(r)
		r = r.WithContext(ctx)
		r.Header = r.Header.Clone()
		r.Header.Set("X-Request-Id", x.engineID)
		if x.form != "" {
			r.Header.Set("Content-Type", x.form)
		}
		r.Body, r.ContentLength = newBody(body), int64(len(body))
		next.ServeHTTP(x, r)
	}
}

// body is a request's body that was read before. It is let go once the engine
// has read it, which has made its own of it: a stream may last for hours.
type body struct{ bytes.Reader }

func newBody(b []byte) *body {
	var r body
	r.Reset(b)
	return &r
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.Reset(nil)
	}
	return n, err
}

// WriteTo implements io.WriterTo.
func (b *body) WriteTo(w io.Writer) (int64, error) {
	defer b.Reset(nil)
	return b.Reader.WriteTo(w)
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.Reset(nil)
	return nil
}

// ask admits an understood request and relays it. w is the exchange, or a
// translator's writer in front of it.
func (s *Server) ask(admit admit, timed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x, ctx := exchangeOf(r), r.Context()
		rl := newRelay(x, w)
		if timed && x.stream {
			rl.keep()
		}
		release, queued, err := admit(ctx, x.request())
		if timed {
			s.metrics.queue[x.class].Observe(queued.Seconds())
		}
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(err, ctx.Err()) && cause != nil {
				err = cause
			} else if errors.Is(err, admission.ErrDeadline) && x.cause != nil { // the same moment, seen by the gate
				err = x.cause
			}
			rl.refuse(err, queued)
			return
		}
		defer func() { release(x.charge()) }()
		// The engine may have learned its models while the request was held.
		label, e := serves(s.eng.Status().Models, x.asked)
		if e == nil && label != unknown {
			e = s.mayUse(x, label)
		}
		if e != nil {
			rl.admitted(label, queued, nil)
			rl.WriteError(e)
			return
		}
		m := s.metrics.meter(x.start, label)
		m.bill = s.bill(x.label, label)
		defer m.bill.End()
		rl.admitted(label, queued, m)
		ctx = engine.WithMeter(ctx, m)
		if x.class == admission.Batch {
			ctx = engine.WithBatch(ctx)
		}
		s.relay(rl, r.WithContext(ctx))
	}
}

// understand reads the JSON of a body and the fields we need, and holds it to
// the policy.
func (s *Server) understand(ctx context.Context, x *exchange, r *http.Request) (body []byte, req openai.Request, ok bool) {
	e := acceptable(r)
	if e == nil {
		body, e = s.read(x, r)
	}
	if e == nil && !x.gone {
		req, e = openai.Peek(body)
	}
	if e == nil && !x.gone {
		x.model, e = serves(s.eng.Status().Models, req.Model)
	}
	if e != nil {
		openai.WriteError(x, e)
	}
	if e != nil || x.gone {
		return nil, req, false
	}
	body, ok = s.police(ctx, x, body, &req)
	return body, req, ok
}

// acceptable refuses bodies that are not plain JSON. Many clients of curl send
// no type at all, so none is as good as the right one.
func acceptable(r *http.Request) *openai.Error {
	refuse := func(message string) *openai.Error {
		return &openai.Error{Status: http.StatusUnsupportedMediaType, Type: openai.TypeInvalidRequest,
			Code: openai.CodeMediaType, Message: message}
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return refuse("compressed bodies are not accepted; send the JSON without Content-Encoding")
	}
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return nil
	}
	if t, _, err := mime.ParseMediaType(ct); err != nil || t != "application/json" {
		return refuse("the body must be JSON; send Content-Type: application/json")
	}
	return nil
}

// read takes the whole body, within its limits of size and time. It sets
// x.gone when the client left in the middle.
func (s *Server) read(x *exchange, r *http.Request) ([]byte, *openai.Error) {
	limit, flag := s.bodyLimit()
	tooLarge := &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeInvalidRequest, Code: openai.CodeTooLarge,
		Message: "the body is larger than " + strconv.FormatInt(limit, 10) + " bytes; shorten it or raise " + flag}
	if r.ContentLength > limit {
		x.Header().Set("Connection", "close") // the rest of the body is not read
		return nil, tooLarge
	}
	var buf bytes.Buffer
	buf.Grow(int(min(max(r.ContentLength, 0), 64<<10)) + bytes.MinRead) // a claimed length is not a promise
	_, err := buf.ReadFrom(http.MaxBytesReader(x, r.Body, limit))
	var tooBig *http.MaxBytesError
	switch {
	case err == nil:
		return buf.Bytes(), nil
	case errors.As(err, &tooBig):
		x.Header().Set("Connection", "close")
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.Header().Set("Connection", "close")
		return nil, &openai.Error{Status: http.StatusRequestTimeout, Type: openai.TypeTimeout, Code: openai.CodeBodyTimeout,
			Message: "the body did not arrive within " + readBodyTimeout.String() + "; send it faster or in smaller requests"}
	case r.Context().Err() != nil, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		x.gone = true
		return nil, nil
	}
	x.Header().Set("Connection", "close")
	return nil, openai.Invalid("", openai.CodeInvalidJSON, "the body could not be read: its transfer encoding is broken; send it again")
}

// relay lets the engine answer, and ends the answer itself when the engine
// does not: no stream ends without its terminator.
func (s *Server) relay(rl *relay, r *http.Request) {
	ctx := r.Context()
	// An engine that does not heed its context is ended all the same.
	stop := context.AfterFunc(ctx, func() { rl.cut(context.Cause(ctx)) })
	defer stop()
	err := s.call(rl, r)
	if half := rl.finish(err, context.Cause(ctx)); half {
		panic(http.ErrAbortHandler)
	}
}

// errPanicked: the engine's handler panicked.
var errPanicked = errors.New("the engine's handler panicked")

// call runs the engine's handler. Its panic must not take the stream along.
func (s *Server) call(rl *relay, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler: // how a proxy says that its upstream broke off
			err = http.ErrAbortHandler
		default:
			s.panicked(rl.x, p)
			err = errPanicked
		}
	}()
	s.eng.ServeHTTP(rl, r)
	return nil
}
