package serve

import (
	"errors"
	"maps"
	"net/http"
	"time"

	"infer/internal/admission"
	"infer/internal/openai"
	"infer/internal/translate"
)

// Who ended a stream early: labels of infer_streams_cut_total.
const (
	byClient   = "client"
	byEngine   = "engine"
	byDeadline = "deadline"
	byDrain    = "drain"
)

// endedBy says who ends a stream that cause ends.
func endedBy(cause error) string {
	switch {
	case errors.Is(cause, errDeadline), errors.Is(cause, errTimeLimit):
		return byDeadline
	case errors.Is(cause, errDrainCut), errors.Is(cause, admission.ErrDraining):
		return byDrain
	}
	return byEngine
}

func engineBroke() *openai.Error {
	return &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
		Message: "the engine broke off; send the request again, and see the server's log when it repeats"}
}

// admitted notes what was learned when the request got its slot.
func (rl *relay) admitted(model string, queued time.Duration, m *meter) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	rl.x.model, rl.x.queued, rl.x.meter = model, queued, m
}

// refuse ends the answer of a request that does not reach the engine: as a
// status, or as an event when the stream was already kept open.
func (rl *relay) refuse(err error, queued time.Duration) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	rl.close()
	rl.last = true
	rl.x.queued = queued
	s := rl.x.s
	e, reason, ok := s.refusal(err)
	rl.x.after = soonest(err)
	switch {
	case !ok:
		rl.x.gone = true
		if rl.live {
			rl.x.cut = byClient
		}
		return
	case reason == "":
		s.log.Error("request refused for an unknown reason", "request_id", rl.x.id, "err", err)
	default:
		s.metrics.rejected.WithLabelValues(reason).Inc()
	}
	rl.fail(e, endedBy(err))
}

// WriteError implements what openai.WriteError looks for, so that the error of
// an engine in this process passes without being read again.
func (rl *relay) WriteError(e *openai.Error) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	if rl.closed || rl.done {
		return
	}
	rl.head = maps.Clone(rl.header)
	rl.last = true // it is the engine's last word
	rl.passOn(e)
}

// passOn ends the answer with the engine's refusal. rl.mu is held.
func (rl *relay) passOn(e *openai.Error) {
	if !rl.started {
		for _, own := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "X-Request-Id"} {
			rl.head.Del(own)
		}
		maps.Copy(rl.w.Header(), rl.head)
	}
	rl.fail(e, byEngine)
}

// cut ends the answer because of cause, while the engine may still be at it.
func (rl *relay) cut(cause error) {
	rl.mu.Lock()
	defer rl.mu.Unlock()
	if !rl.closed {
		rl.close()
		if !rl.done {
			rl.cutShort(cause)
		}
	}
}

// close lets nothing more through from the engine. rl.mu is held.
func (rl *relay) close() {
	rl.closed = true
	rl.still()
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
	rl.close()
	rl.last = true
	switch {
	case rl.done:
	case rl.shape == shapeWhole && err == nil:
		_ = rl.cost.settle() // the client may have left
	case rl.shape == shapeRefusal && err == nil:
		rl.passOn(translate.ParseError(rl.part, rl.status))
	case rl.shape == shapeEvents && kindOf(rl.part) == eventDone: // the empty line is missing
		_ = rl.send([]byte(terminator)) // the client may have left
	case cause != nil:
		rl.cutShort(cause)
	case rl.x.lost:
		rl.left()
	case errors.Is(err, errPanicked):
		rl.fail(openai.Internal("the engine hit a fault of its own; report it with this answer's X-Request-Id"), byEngine)
	default:
		rl.fail(engineBroke(), byEngine)
	}
	return rl.half
}

// cutShort tells the client, if it is still there, what cut its answer. rl.mu is held.
func (rl *relay) cutShort(cause error) {
	e, _, ok := rl.x.s.refusal(cause)
	if !ok {
		rl.left()
		return
	}
	rl.fail(e, endedBy(cause))
}

// left notes that there is nobody to tell. rl.mu is held.
func (rl *relay) left() {
	rl.x.gone = true
	if rl.x.stream {
		rl.x.cut = byClient
	}
}

// fail ends the answer with e: as a status when none has left, as an event and
// the terminator in a stream. What the engine began of an event is dropped.
// rl.mu is held.
func (rl *relay) fail(e *openai.Error, by string) {
	rl.done = true
	rl.still()
	switch {
	case !rl.started:
		rl.started = true
		openai.WriteError(rl.w, e)
		if !rl.last {
			_ = rl.flush.Flush() // the client may have left
		}
	case rl.live:
		if rl.x.status == http.StatusOK { // a translator may have kept all to itself
			rl.x.cut = by
		}
		_ = rl.send(append(append([]byte("data: "), e.Body()...), "\n\n"+terminator...)) // the client may have left
	default:
		rl.half = true
	}
}
