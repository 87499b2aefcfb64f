package serve

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"

	"infer/internal/caller"
	"infer/internal/openai"
)

// exchange is one request and its answer so far. It is the http.ResponseWriter
// of every handler: it adds the headers that all answers have and counts what
// leaves.
type exchange struct {
	s       *Server
	w       http.ResponseWriter
	flusher interface{ FlushError() error }
	setter  interface{ SetWriteDeadline(time.Time) error }

	id       string
	engineID string                     // what the engine is told: id, made unique
	errors   func(*openai.Error) []byte // the shape of error bodies
	form     string                     // Content-Type of the form that the engine gets; empty for JSON
	asked    string                     // the model that the request names
	route    string                     // the pattern; empty until known
	model    string                     // a served name, or unknown
	start    time.Time
	extent                   // what it asks for
	standing                 // of the caller
	label    string          // of the caller, for metrics
	account  *caller.Account // nil when everybody may call
	limits   caller.Limits   // of the account
	counted  bool            // it takes no request of the account's minute
	settle   func()          // corrects what the account was charged; nil until it was
	queued   time.Duration   // negative until admitted
	meter    *meter          // nil unless the engine was asked
	after    time.Duration   // before which it is no use to come back; known with a refusal
	modeled  bool            // a route of the engine
	timed    bool            // one whose latency is measured
	stream   bool            // the caller asked for a stream
	gone     bool            // the client left before its answer was complete
	lost     bool            // a write to it failed
	cut      string          // who ended a stream early; empty when nobody did
	status   int             // 0 until the status line left
	written  int64
	wrote    time.Duration // when the last byte was handed over, from start
	renew    time.Duration // when the client's time to read is next renewed
}

type exchangeKey struct{}

func newExchange(s *Server, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{s: s, w: w, start: time.Now(), queued: -1}
	x.id, x.engineID = requestID(r)
	if d, ok := w.(interface{ SetWriteDeadline(time.Time) error }); ok {
		x.setter = d
	}
	if f, ok := w.(interface{ FlushError() error }); ok {
		x.flusher = f
	}
	if r.ContentLength != 0 {
		// A body that nobody wants is read, too, before the connection is
		// reused. net/http lifts the deadline once the body is read. Not
		// every writer has deadlines, and those without have no slow clients.
		_ = http.NewResponseController(w).SetReadDeadline(x.start.Add(readBodyTimeout))
	}
	w.Header().Set("X-Request-Id", x.id)
	x.speak(r.URL.Path)
	return x
}

// exchangeOf returns the exchange that observe put into the request.
func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

func (x *exchange) into(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
}

// Header implements http.ResponseWriter.
func (x *exchange) Header() http.Header { return x.w.Header() }

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && status >= 200 {
		x.status = status
		x.advise(status)
		if t := x.timing(); x.modeled && t != "" {
			x.w.Header().Set("Server-Timing", t)
		}
		if x.s.gate.Draining() {
			x.w.Header().Set("Connection", "close")
		}
	}
	x.w.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	x.await()
	n, err := x.w.Write(p)
	x.written += int64(n)
	x.lost = x.lost || err != nil
	return n, err
}

// await gives the client its time to read what comes now. Moving a deadline
// costs more than writing a token, so that it is done once a second, or four times
// in the time that a client has.
func (x *exchange) await() {
	x.wrote = time.Since(x.start)
	if x.setter != nil && x.wrote >= x.renew {
		x.renew = x.wrote + min(time.Second, x.s.cfg.ClientStall/4)
		_ = x.setter.SetWriteDeadline(x.start.Add(x.wrote + x.s.cfg.ClientStall)) // without deadlines nobody is slow
	}
}

// leave is the last use of x by its request: net/http has the end of the answer
// still to write, which may be long after the last byte.
func (x *exchange) leave() {
	if x.renew > 0 {
		x.renew = 0
		x.await()
	}
}

// quiet is how long nothing was written.
func (x *exchange) quiet() time.Duration { return time.Since(x.start) - x.wrote }

// FlushError implements what http.ResponseController looks for.
func (x *exchange) FlushError() error {
	if x.flusher == nil {
		return http.ErrNotSupported
	}
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	err := x.flusher.FlushError()
	x.lost = x.lost || err != nil
	return err
}

// Unwrap implements what http.ResponseController looks for.
func (x *exchange) Unwrap() http.ResponseWriter { return x.w }

// timing is what is known when the headers leave. The total of a stream is not.
func (x *exchange) timing() string {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	var known []string
	add := func(name string, d time.Duration) { known = append(known, fmt.Sprintf("%s;dur=%.1f", name, ms(d))) }
	if x.queued >= 0 {
		add("queue", x.queued)
	}
	if x.meter != nil {
		if ttft, ok := x.meter.ttft(); ok {
			add("ttft", ttft)
		}
	}
	if !isStream(x.w.Header()) {
		add("total", time.Since(x.start))
	}
	return strings.Join(known, ", ")
}

func isStream(h http.Header) bool {
	return strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
}

// uniqueLength is of the part, 5 bits a letter, that makes a caller's id unique.
const uniqueLength = 10

// requestID takes the caller's id when it can do no harm in a log or a header.
// The engine gets one of ours that begins with it: engines take an id for the
// request itself, end it by that, and callers send one twice.
func requestID(r *http.Request) (id, engineID string) {
	id = r.Header.Get("X-Request-Id")
	own := rand.Text()
	if !sane(id) {
		return own, own
	}
	return id, id + "-" + own[:uniqueLength]
}

func sane(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
