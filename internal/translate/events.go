package translate

import (
	"encoding/json/v2"
	"fmt"
)

// events are server-sent events that have not left yet.
type events struct {
	buf []byte
	err error // the first event that could not be written as JSON
}

// send adds one event under its name.
func (e *events) send(name string, v any) {
	b, err := json.Marshal(v, lenient)
	if err != nil {
		if e.err == nil {
			e.err = fmt.Errorf("marshal event %s: %w", name, err)
		}
		return
	}
	e.buf = append(e.buf, "event: "...)
	e.buf = append(e.buf, name...)
	e.buf = append(e.buf, "\ndata: "...)
	e.buf = append(e.buf, b...)
	e.buf = append(e.buf, "\n\n"...)
}

// comment adds a line that clients ignore, which keeps a connection open.
func (e *events) comment(line []byte) {
	e.buf = append(append(e.buf, line...), "\n\n"...)
}

// pending returns the events to be written. A caller that has written them
// calls sent.
func (e *events) pending() *events { return e }

func (e *events) sent() { e.buf = e.buf[:0] }
