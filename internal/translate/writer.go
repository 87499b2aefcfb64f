package translate

import (
	"bytes"
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"infer/internal/openai"
)

// errUnreadable is what a chat handler gets whose words were not understood:
// its answer has ended, whatever it still says.
var errUnreadable = errors.New("the chat's answer was not understood")

// writer is the http.ResponseWriter of the chat handler. It turns what is
// written into the client's protocol at once. Its methods are called by one
// goroutine at a time.
type writer struct {
	w         http.ResponseWriter
	d         dialect
	streaming bool // the client asked for a stream
	a         *answer
	steps     steps

	header    http.Header // the chat's own
	status    int         // of the chat; 0 until known
	sse       bool        // the chat writes a stream
	feed      feed
	buf       bytes.Buffer // what the chat writes, unless it is a stream
	committed bool         // the client's status line left
	done      bool         // the client's answer is complete; what follows is not heard
	broken    error        // what the chat handler is told from now on
}

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status = status
	w.sse = status == http.StatusOK && strings.HasPrefix(w.header.Get("Content-Type"), "text/event-stream")
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.broken != nil {
		return 0, w.broken
	}
	if !w.sse {
		return w.buf.Write(p)
	}
	if err := w.feed.write(p, w.event, w.comment); err != nil {
		w.fault(brokeOff("the engine's stream cannot be read: " + err.Error()))
	}
	if err := w.deliver(); err != nil {
		w.broken = err
	}
	if w.broken != nil {
		return 0, w.broken
	}
	return len(p), nil
}

// FlushError implements what http.ResponseController looks for.
func (w *writer) FlushError() error {
	if !w.committed {
		return nil // the status may still become another
	}
	err := http.NewResponseController(w.w).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() } // the next write reports it

// event takes one event of the chat's stream.
func (w *writer) event(data []byte) error {
	switch {
	case w.done: // nothing counts after the end
	case string(data) == "[DONE]":
		w.finish()
	default:
		w.take(data)
	}
	return nil
}

func (w *writer) comment(line []byte) error {
	if w.streaming && !w.done {
		w.d.pending().comment(line)
	}
	return nil
}

// take reads one JSON text of the chat: a chunk, a completion or an error.
func (w *writer) take(data []byte) {
	var r reply
	if err := json.Unmarshal(data, &r, lenient, jsontext.AllowDuplicateNames(true)); err != nil {
		w.fault(brokeOff("the engine wrote what is no chat completion"))
		return
	}
	if !absent(r.Error) {
		w.fail(parseError(r.Error, 0))
		return
	}
	if e := w.a.take(&r, w.steps); e != nil {
		w.fault(e)
	}
}

// finish ends the answer in good order.
func (w *writer) finish() {
	if e := w.a.done(w.steps); e != nil {
		w.fault(e)
		return
	}
	w.done = true
	if w.streaming {
		w.d.end(w.a)
		return
	}
	v, e := w.d.whole(w.a)
	if e != nil {
		w.refuse(e)
		return
	}
	w.whole(v)
}

// whole answers with one JSON body.
func (w *writer) whole(v any) {
	body, err := json.Marshal(v, lenient)
	if err != nil {
		w.refuse(openai.Internal("the answer cannot be written as JSON"))
		return
	}
	w.commit("application/json")
	w.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.w.WriteHeader(http.StatusOK)
	_, _ = w.w.Write(body) // the client may have left; there is nobody to tell
}

// fault ends the answer because of what the chat handler wrote.
func (w *writer) fault(e *openai.Error) {
	w.broken = errUnreadable
	w.fail(e)
}

// fail ends the answer with e: as a status when none has left, otherwise as
// the protocol's own event.
func (w *writer) fail(e *openai.Error) {
	if w.done {
		return
	}
	w.done = true
	if w.committed { // what was open stays so: half a tool call must not look whole
		w.d.cut(w.a, e)
		return
	}
	w.refuse(e)
}

// refuse answers with an error instead of events that have not left.
func (w *writer) refuse(e *openai.Error) {
	w.d.pending().sent()
	w.commit("")
	translated(e, w.d.names())
	w.d.refuse(w.w, e)
}

// commit gives the client the chat's headers. Those of its body are ours.
func (w *writer) commit(contentType string) {
	w.committed = true
	h := w.w.Header()
	own := maps.Clone(w.header)
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding"} {
		own.Del(name)
	}
	maps.Copy(h, own)
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
}

// deliver writes the events of one call.
func (w *writer) deliver() error {
	ev := w.d.pending()
	if ev.err != nil {
		w.done = true
		return ev.err
	}
	if len(ev.buf) == 0 {
		return nil
	}
	if !w.committed {
		w.commit("text/event-stream; charset=utf-8")
		w.w.Header().Set("Cache-Control", "no-cache")
		w.w.Header().Set("X-Accel-Buffering", "no")
		w.w.WriteHeader(http.StatusOK)
	}
	_, err := w.w.Write(ev.buf)
	ev.sent()
	if err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	return nil
}

// close ends the answer once the chat handler has returned.
func (w *writer) close(ctx context.Context, aborted bool) {
	switch {
	case w.done:
	case w.sse || w.status == 0 || aborted:
		if context.Cause(ctx) == context.Canceled {
			return // the client left
		}
		w.fail(brokeOff("the engine broke off"))
	case w.status == http.StatusOK:
		w.take(w.buf.Bytes())
		if !w.done {
			w.finish()
		}
	default:
		w.fail(w.refusal())
	}
	if w.deliver() == nil {
		_ = w.FlushError() // the client may have left
	}
}

// refusal is the chat's answer with another status than 200.
func (w *writer) refusal() *openai.Error {
	var body struct {
		Error jsontext.Value `json:"error"`
	}
	_ = json.Unmarshal(w.buf.Bytes(), &body, lenient) // what is no envelope has only its status
	return parseError(body.Error, w.status)
}

// translated gives an error of the chat the names that the client used.
func translated(e *openai.Error, names [][2]string) {
	for _, pair := range names {
		chat, own := pair[0], pair[1]
		if rest, ok := strings.CutPrefix(e.Param, chat); ok && (rest == "" || rest[0] == '[' || rest[0] == '.') {
			e.Message = strings.Replace(e.Message, e.Param, own, 1)
			e.Param = own
		}
		if strings.Contains(chat, "_") {
			e.Message = strings.ReplaceAll(e.Message, chat, own)
		}
	}
}
