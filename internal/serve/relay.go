package serve

import (
	"errors"
	"maps"
	"net/http"
	"sync"
	"time"

	"infer/internal/openai"
)

// shape is what an engine answers with, known from its headers.
type shape int

const (
	shapeUnknown shape = iota
	shapeEvents        // a stream of events
	shapeWhole         // a body that passes as it is
	shapeRefusal       // an error body, which is read before it passes
	shapeUnheard       // what is no stream, after the client was promised one
)

// Bounds of what a relay keeps of an answer.
const (
	maxEventBytes   = 16 << 20 // an image in base64 is the largest event
	maxRefusalBytes = 1 << 20
)

// errTooLong is what an engine gets that writes an event without an end.
var errTooLong = errors.New("the event is too long")

// relay is the http.ResponseWriter of the engine. It passes whole events only,
// holds the status line back until the first, keeps a silent stream open, and
// completes the answer when the engine does not: from the engine's goroutine
// when the handler returns, or from another one when the request is cut while
// the handler is still in it. It exists before the request is admitted, so that
// a stream can be kept open in the queue.
type relay struct {
	x      *exchange
	w      http.ResponseWriter // the exchange, or a translator's writer in front of it
	flush  *http.ResponseController
	header http.Header   // the engine's own, so that a cut never races with it
	keeper *time.Timer   // of a stream's silence; nil when none was asked for
	commit time.Duration // from the exchange's start, until a stream without an event begins with a comment
	cost   *invoice      // between w and the client; nil when nobody wants one

	mu      sync.Mutex
	shape   shape
	head    http.Header // the headers when the engine wrote its status line
	status  int         // the engine's, of a refusal
	part    []byte      // of the event, or the refusal, whose end has not come
	started bool        // the status line left
	live    bool        // it was that of a stream
	done    bool        // the answer is complete; what the engine still writes is not heard
	closed  bool        // the answer is over; the engine writes to nobody
	last    bool        // nothing runs any more that could delay the answer
	half    bool        // the answer is not whole and cannot be made so
}

func newRelay(x *exchange, w http.ResponseWriter) *relay {
	w, cost := invoiced(x, w)
	return &relay{x: x, w: w, flush: http.NewResponseController(w), header: make(http.Header), cost: cost}
}

// Header implements http.ResponseWriter.
func (rl *relay) Header() http.Header { return rl.header }

// WriteHeader implements http.ResponseWriter.
func (rl *relay) WriteHeader(status int) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	rl.answers(status)
}

// answers takes the engine's status line. rl.mu is held.
func (rl *relay) answers(status int) {
	if rl.shape != shapeUnknown || rl.closed || rl.done || status < 200 {
		return
	}
	rl.head = maps.Clone(rl.header)
	delete(rl.head, "X-Request-Id") // ours
	switch {
	case status >= 400:
		rl.shape, rl.status = shapeRefusal, status
	case isStream(rl.head):
		rl.shape = shapeEvents
	case rl.live:
		rl.shape = shapeUnheard
	default:
		rl.shape, rl.started = shapeWhole, true
		maps.Copy(rl.w.Header(), rl.head)
		rl.w.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (rl *relay) Write(p []byte) (int, error) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	switch {
	case rl.closed:
		return 0, errCut
	case rl.done:
		return len(p), nil
	}
	rl.answers(http.StatusOK)
	switch rl.shape {
	case shapeEvents:
		return len(p), rl.events(p)
	case shapeRefusal:
		rl.part = append(rl.part, p[:min(len(p), maxRefusalBytes-len(rl.part))]...)
		return len(p), nil
	case shapeUnheard:
		return len(p), nil
	}
	return rl.w.Write(p)
}

// events passes the events that p completes. rl.mu is held.
func (rl *relay) events(p []byte) error {
	if len(rl.part) == 0 {
		if rl.live && plain(p) { // an engine in this process writes event by event
			return rl.send(p)
		}
		n, err := rl.pass(p, 0)
		rl.part = append(rl.part, p[n:]...)
		return err
	}
	known := max(len(rl.part)-2, 0) // before it no event ends
	rl.part = append(rl.part, p...)
	n, err := rl.pass(rl.part, known)
	if rl.part = rl.part[:copy(rl.part, rl.part[n:])]; len(rl.part) > maxEventBytes {
		rl.part = nil
		rl.fail(&openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
			Message: "the engine wrote an event that is too long"}, byEngine)
		return errTooLong
	}
	return err
}

// pass writes the whole events of b and returns where they end: before the
// first with data nothing, an error before it as a status, and nothing after
// the terminator. No event ends before known. rl.mu is held.
func (rl *relay) pass(b []byte, known int) (n int, err error) {
	from, at, spoke := 0, 0, rl.started
	for {
		end := eventEnd(b, max(at, known))
		if end < 0 {
			return at, rl.send(b[from:at])
		}
		switch kindOf(b[at:end]) {
		case eventComment:
			if !spoke {
				from = end
			}
		case eventFault:
			err := rl.send(b[from:at])
			rl.fail(faultOf(b[at:end]), byEngine) // it ends its stream itself, but not well
			return len(b), err
		case eventDone:
			rl.done = true
			rl.still()
			return len(b), rl.send(b[from:end])
		default:
			spoke = true
		}
		at = end
	}
}

// send writes and flushes events. rl.mu is held.
func (rl *relay) send(events []byte) error {
	if len(events) == 0 {
		return nil
	}
	rl.begin()
	_, err := rl.w.Write(events)
	if err == nil {
		err = rl.flush.Flush()
	}
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// begin sends the status line of a stream. rl.mu is held.
func (rl *relay) begin() {
	if rl.started {
		return
	}
	rl.started, rl.live = true, true
	h := rl.w.Header()
	if rl.shape == shapeEvents {
		maps.Copy(h, rl.head)
	} else {
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no")
	}
	h.Del("Content-Length")
	rl.w.WriteHeader(http.StatusOK)
}

// FlushError implements what http.ResponseController looks for. Events leave
// when they are whole, whether the engine flushes or not.
func (rl *relay) FlushError() error {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	if rl.closed {
		return errCut
	}
	rl.answers(http.StatusOK)
	if rl.shape == shapeWhole {
		return rl.flush.Flush()
	}
	return nil
}

// Flush implements http.Flusher.
func (rl *relay) Flush() { _ = rl.FlushError() } // the next write reports it

// Unwrap implements what http.ResponseController looks for.
func (rl *relay) Unwrap() http.ResponseWriter { return rl.w }
