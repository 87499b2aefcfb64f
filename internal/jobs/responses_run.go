package jobs

import (
	"bytes"
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"net/http"
	"strings"
	"time"

	"infer/internal/store"
	"infer/internal/translate"
)

// Bounds of what waits to be written into a log.
const (
	logEvery = 250 * time.Millisecond
	logBytes = 64 << 10
)

// runResponse asks for a background response until it has ended.
func (s *Service) runResponse(ctx context.Context, h *holding, t *task) {
	defer h.keepLease(ctx, t.Until)()
	l, err := s.openLog(ctx, t, h.holder) // also of one whose time was up before it ran, to write its end
	if err != nil {
		s.log.Warn("response's log cannot be read, trying again", "key", h.key, "err", err)
		if ctx.Err() != nil {
			s.stopped(ctx, h)
		} else {
			s.release(ctx, h, 5*time.Second, func(*task) {})
		}
		return
	}
	if l.end != nil { // whoever wrote it could not say so
		s.settle(ctx, h, t, l.end)
		return
	}
	ctx, cancel := context.WithDeadlineCause(ctx, t.Deadline, errExpired)
	defer cancel()
	if t.Faults >= maxFaults {
		s.failResponse(ctx, h, t, l, unkeptMessage)
		return
	}
	body, err := s.get(ctx, t.Response.Body)
	if err != nil {
		s.log.Error("response's body cannot be read", "key", h.key, "err", err)
		switch {
		case s.responseOver(ctx, h, t, l):
		case errors.Is(err, store.ErrNotFound):
			s.failResponse(ctx, h, t, l, "the request of the response is no longer there; send it again")
		default: // the store may be back soon
			s.release(ctx, h, 5*time.Second, func(*task) {})
		}
		return
	}
	w := &logWriter{ctx: ctx, lock: make(chan struct{}, 1), l: l, next: l.next, recorder: recorder{header: http.Header{}}}
	aborted := w.serve(s.chain(t.Owner, true), body, &translate.Turn{ID: t.ID, Created: t.Created.Unix(), Background: true,
		Again: l.index > 0, First: l.next})
	s.concludeResponse(ctx, h, t, w, aborted)
}

// concludeResponse ends what was asked, or gives it back to be asked again.
func (s *Service) concludeResponse(ctx context.Context, h *holding, t *task, w *logWriter, aborted bool) {
	a := w.answer()
	if w.object() == nil && (aborted || a.status == http.StatusOK) {
		a.status = http.StatusBadGateway
	}
	bad := a.broken() || w.failed
	switch {
	case s.responseOver(ctx, h, t, w.l):
	case w.err != nil: // an older run wrote into the log: the next one begins after that
		s.log.Info("response begins anew", "key", h.key, "cause", w.err.Error())
		s.release(ctx, h, time.Second, func(*task) {})
	case a.busy():
		s.release(ctx, h, a.pause(), func(*task) {})
	case bad && t.Faults+1 < maxFaults:
		s.release(ctx, h, a.pause(), func(t *task) { t.Faults++ })
	case w.object() != nil:
		s.endWith(ctx, h, t, w.l, func(ctx context.Context) error { return w.l.finish(ctx, w.last(), w.next, w.object()) })
	default:
		s.failResponse(ctx, h, t, w.l, messageOf(a.body))
	}
}

// responseOver ends the run of a response whose time is up, or whose process
// stops.
func (s *Service) responseOver(ctx context.Context, h *holding, t *task, l *responseLog) bool {
	switch {
	case context.Cause(ctx) == errExpired:
		s.failResponse(ctx, h, t, l, "the response did not end within its time; raise --job-deadline or add replicas")
	case ctx.Err() != nil:
		s.stopped(ctx, h)
	default:
		return false
	}
	return true
}

// messageOf is what an error's body says.
func messageOf(body []byte) string {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) != nil || e.Error.Message == "" {
		return "the engine broke off"
	}
	return e.Error.Message
}

// failResponse ends a response that has no answer.
func (s *Service) failResponse(ctx context.Context, h *holding, t *task, l *responseLog, message string) {
	s.endWith(ctx, h, t, l, func(ctx context.Context) error { return l.close(ctx, t, responseFailed, "server_error", message) })
}

// endWith writes the end into the log, and then the task.
func (s *Service) endWith(ctx context.Context, h *holding, t *task, l *responseLog, write func(context.Context) error) {
	// What was computed is worth a moment of a shutdown.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseFor)
	defer cancel()
	err := write(ctx)
	if err == nil {
		s.settle(ctx, h, t, l.end)
		return
	}
	s.log.Warn("response's end cannot be written, trying again", "key", h.key, "err", err)
	s.release(ctx, h, unkeptPause(t.Faults), func(t *task) {
		if !errors.Is(err, errLost) { // somebody else was first
			t.Faults++
		}
	})
}

// settle lets the task follow its log.
func (s *Service) settle(ctx context.Context, h *holding, t *task, end *entry) {
	s.finish(ctx, h, func(t *task) { t.Response.ended(end) })
	s.followers.call(logPrefix(t))
	s.drop(context.WithoutCancel(ctx), t.Response.Body)
}

// ended takes over how a log ended. What ran is no longer needed.
func (r *response) ended(end *entry) { r.Status, r.Final, r.Body = end.Status, end.Final, content{} }

// giveUpResponse ends a response whose process has ended too often.
func (s *Service) giveUpResponse(ctx context.Context, h *holding, t *task, message string) {
	l, err := s.openLog(ctx, t, h.holder)
	switch {
	case err != nil:
		s.release(ctx, h, 5*time.Second, func(*task) {})
	case l.end != nil:
		s.settle(ctx, h, t, l.end)
	default:
		s.failResponse(ctx, h, t, l, message)
	}
}

// logWriter is the http.ResponseWriter of a background response: events go to
// its log a few at a time, the last ones only when it is known that they are.
type logWriter struct {
	recorder // for what is no stream
	ctx      context.Context
	half     []byte // of an event

	lock    chan struct{} // holds a value while somebody has what follows, also during a write to the store
	l       *responseLog
	pending bytes.Buffer // whole events that are not logged
	at      int          // sequence number after pending
	err     error        // why nothing more is taken

	next   int    // sequence number after all events, also the last
	tail   []byte // from the first event that says that it is the end
	failed bool   // the tail tells a failure
	final  []byte // the object in it
}

// serve lets the chain answer, and the log grow meanwhile.
func (w *logWriter) serve(chain http.Handler, body []byte, turn *translate.Turn) (aborted bool) {
	r, err := post(translate.WithTurn(w.ctx, turn), responsesPath, body)
	if err != nil {
		return true
	}
	w.at = w.next
	done, quiet := make(chan struct{}), make(chan struct{})
	go func() { // ends when the chain has answered
		defer close(quiet)
		tick := time.NewTicker(logEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				w.lock <- struct{}{}
				w.flush()
				<-w.lock
			}
		}
	}()
	defer func() { close(done); <-quiet }()
	return serve(chain, w, r)
}

// flush logs what is pending.
func (w *logWriter) flush() {
	if w.pending.Len() == 0 || w.err != nil {
		return
	}
	if w.err = w.ctx.Err(); w.err == nil {
		w.err = w.l.append(w.ctx, w.pending.Bytes(), w.at, entry{})
	}
	w.pending.Reset()
}

// Write implements http.ResponseWriter.
func (w *logWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !strings.HasPrefix(w.header.Get("Content-Type"), "text/event-stream") {
		return w.recorder.Write(p)
	}
	w.lock <- struct{}{}
	defer func() { <-w.lock }()
	w.half = append(w.half, p...)
	for w.err == nil {
		i := bytes.Index(w.half, []byte("\n\n"))
		if i < 0 {
			break
		}
		w.event(w.half[:i+2])
		w.half = w.half[i+2:]
	}
	return len(p), w.err
}

// Flush implements http.Flusher: the log has its own pace.
func (w *logWriter) Flush() {}

// event takes one whole event, or a comment, which is dropped.
func (w *logWriter) event(text []byte) {
	line, data, _ := bytes.Cut(text, []byte("\n"))
	name, ok := bytes.CutPrefix(line, []byte("event: "))
	if !ok {
		return
	}
	w.next++
	switch string(name) {
	case "error", "response.failed":
		w.failed = true
		fallthrough
	case "response.completed", "response.incomplete":
		w.tail = append(w.tail, text...)
		var o struct {
			Response jsontext.Value `json:"response"`
		}
		if json.Unmarshal(bytes.TrimPrefix(data, []byte("data: ")), &o, jsontext.AllowInvalidUTF8(true)) == nil && len(o.Response) > 0 {
			w.final = o.Response
		}
		return
	}
	w.pending.Write(text)
	if w.at = w.next; w.pending.Len() >= logBytes {
		w.flush()
	}
}

// last are the events that go with the end.
func (w *logWriter) last() []byte { return append(w.pending.Bytes(), w.tail...) }

// object is the whole response, nil without one.
func (w *logWriter) object() []byte {
	if w.final != nil || w.status != http.StatusOK || w.body.Len() == 0 {
		return w.final
	}
	if o := bytes.TrimSpace(w.body.Bytes()); statusOf(o) != "" {
		return o
	}
	return nil
}
