package openai

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"net/http"
)

// lenient lets text from outside that is not UTF-8 through, as U+FFFD.
var lenient = jsontext.AllowInvalidUTF8(true)

// Stream writes server-sent events. Each event is one write and one flush,
// because some parsers lose an event that arrives in two reads. The headers
// leave with the first event, so an error before it can still be a real status.
type Stream struct {
	w       http.ResponseWriter
	flush   *http.ResponseController
	buf     []byte
	started bool
}

// NewStream returns a Stream over w and writes nothing.
func NewStream(w http.ResponseWriter) *Stream {
	return &Stream{w: w, flush: http.NewResponseController(w)}
}

// Started says whether the status line has left.
func (s *Stream) Started() bool { return s.started }

// Send writes v as one event.
func (s *Stream) Send(v any) error {
	b, err := json.Marshal(v, lenient)
	if err != nil {
		return fmt.Errorf("marshal event: %w", err)
	}
	return s.event(b)
}

// Fail ends the stream with an error: a real status when nothing was sent yet,
// otherwise an error event and the terminator.
func (s *Stream) Fail(e *Error) error {
	if !s.started {
		s.started = true
		WriteError(s.w, e)
		return nil
	}
	if err := s.event(e.Body()); err != nil {
		return err
	}
	return s.Done()
}

// Done writes the terminator that OpenAI's clients wait for.
func (s *Stream) Done() error { return s.event([]byte("[DONE]")) }

func (s *Stream) event(b []byte) error {
	if !s.started {
		s.started = true
		h := s.w.Header()
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no")
	}
	s.buf = append(append(append(s.buf[:0], "data: "...), b...), "\n\n"...)
	if _, err := s.w.Write(s.buf); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if err := s.flush.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("flush event: %w", err)
	}
	return nil
}
