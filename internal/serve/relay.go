package serve

import (
	"bytes"
	"errors"
	"net/http"
	"sync"

	"infer/internal/openai"
)

// Who ended a stream early: labels of infer_streams_cut_total.
const (
	byClient   = "client"
	byEngine   = "engine"
	byDeadline = "deadline"
	byDrain    = "drain"
)

const terminator = "data: [DONE]\n\n"

// relay is the http.ResponseWriter of the engine. It knows whether the answer
// is complete, and completes it when the engine does not: from the engine's
// goroutine when the handler returns, or from another one when the request is
// cut while the handler is still in it.
type relay struct {
	x      *exchange
	w      http.ResponseWriter // the exchange, or a translator's writer in front of it
	flush  *http.ResponseController
	header http.Header // the engine's own, so that a cut never races with it

	mu      sync.Mutex
	started bool                  // the status line left
	sse     bool                  // the answer is an event stream
	done    bool                  // its terminator left
	closed  bool                  // the answer is over; the engine writes to nobody
	half    bool                  // the answer is not whole and cannot be made so
	tail    [len(terminator)]byte // the last bytes of the stream
}

func newRelay(x *exchange, w http.ResponseWriter) *relay {
	return &relay{x: x, w: w, flush: http.NewResponseController(w), header: make(http.Header)}
}

// Header implements http.ResponseWriter.
func (rl *relay) Header() http.Header { return rl.header }

// WriteHeader implements http.ResponseWriter.
func (rl *relay) WriteHeader(status int) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	rl.begin(status)
}

// begin sends the status line. rl.mu is held.
func (rl *relay) begin(status int) {
	if rl.started || rl.closed || status < 200 {
		return
	}
	rl.started = true
	rl.sse = isStream(rl.header)
	h := rl.w.Header()
	for k, v := range rl.header {
		if k != "X-Request-Id" { // ours
			h[k] = v
		}
	}
	rl.w.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (rl *relay) Write(p []byte) (int, error) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	if rl.closed {
		return 0, errCut
	}
	rl.begin(http.StatusOK)
	n, err := rl.w.Write(p)
	if rl.sse {
		rl.note(p[:n])
	}
	return n, err
}

// note remembers how the stream ends so far. rl.mu is held.
func (rl *relay) note(p []byte) {
	if cut := len(rl.tail) - len(p); cut <= 0 {
		copy(rl.tail[:], p[-cut:])
	} else {
		copy(rl.tail[:], rl.tail[len(p):])
		copy(rl.tail[cut:], p)
	}
	if string(rl.tail[:]) == terminator {
		rl.done = true
	}
	if bytes.HasPrefix(p, []byte(`data: {"error":`)) {
		rl.x.cut = byEngine // it ends its stream itself, but not well
	}
}

// FlushError implements what http.ResponseController looks for.
func (rl *relay) FlushError() error {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	if rl.closed {
		return errCut
	}
	rl.begin(http.StatusOK)
	return rl.flush.Flush()
}

// Flush implements http.Flusher.
func (rl *relay) Flush() { _ = rl.FlushError() } // the next write reports it

// Unwrap implements what http.ResponseController looks for.
func (rl *relay) Unwrap() http.ResponseWriter { return rl.w }

// cut ends the answer because of cause, while the engine may still be at it.
func (rl *relay) cut(cause error) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	if !rl.closed {
		rl.closed = true
		if !rl.done {
			rl.cutShort(cause)
		}
	}
}

// finish ends the answer once the engine's handler has returned with err, which
// is nil when it did so in good order. It reports whether the answer is only a
// half, which the client must not take for a whole.
func (rl *relay) finish(err, cause error) (half bool) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	if rl.closed {
		return rl.half
	}
	rl.closed = true
	switch whole := rl.started && !rl.sse && err == nil; {
	case rl.done, whole:
	case cause != nil:
		rl.cutShort(cause)
	case errors.Is(err, errPanicked):
		rl.fail(openai.Internal("the engine hit a fault of its own; report it with this answer's X-Request-Id"), byEngine)
	default:
		rl.fail(&openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
			Message: "the engine broke off; send the request again, and see the server's log when it repeats"}, byEngine)
	}
	return rl.half
}

// cutShort tells the client, if it is still there, what cut its answer. rl.mu is held.
func (rl *relay) cutShort(cause error) {
	e, _, ok := rl.x.s.refusal(cause)
	switch {
	case !ok:
		rl.x.gone = true
		if rl.x.stream {
			rl.x.cut = byClient
		}
	case errors.Is(cause, errDeadline):
		rl.fail(e, byDeadline)
	case errors.Is(cause, errDrainCut):
		rl.fail(e, byDrain)
	default:
		rl.fail(e, byEngine)
	}
}

// fail ends the answer with e: as a status when none has left, as an event and
// the terminator in a stream. rl.mu is held.
func (rl *relay) fail(e *openai.Error, by string) {
	switch {
	case !rl.started:
		openai.WriteError(rl.w, e)
	case rl.sse:
		rl.x.cut = by
		var b []byte
		if !bytes.HasSuffix(rl.tail[:], []byte("\n\n")) && rl.tail != [len(terminator)]byte{} {
			b = append(b, "\n\n"...) // ends an event that was left open
		}
		b = append(append(append(b, "data: "...), e.Body()...), "\n\n"+terminator...)
		if _, err := rl.w.Write(b); err == nil {
			_ = rl.flush.Flush() // the client may have left
		}
	default:
		rl.half = true
	}
}
