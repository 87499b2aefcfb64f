package serve

import (
	"bytes"

	"infer/internal/openai"
	"infer/internal/translate"
)

// terminator ends every stream of the OpenAI wire.
const terminator = "data: [DONE]\n\n"

// The prefixes of data that mean more than a token. A JSON text has no line
// ends of its own, so that at the begin of a line they are not a model's words.
var (
	dataField = []byte("data:")
	faultMark = []byte(`{"error":`)
	doneMark  = []byte("[DONE]")
)

// eventKind says what an event means to the relay.
type eventKind int

const (
	eventData    eventKind = iota
	eventComment           // nothing but comments
	eventFault             // the engine's own error
	eventDone              // the terminator
)

// plain says that p is one event of one line with data, as an engine in this
// process writes it: the way of nearly every token.
func plain(p []byte) bool {
	n := len(p)
	return n > 2 && p[n-1] == '\n' && bytes.IndexByte(p, '\n') == n-2 && bytes.HasPrefix(p, dataField) &&
		dataKind(p[len(dataField):n-2]) == eventData
}

// kindOf reads one whole event.
func kindOf(event []byte) eventKind {
	kind := eventComment
	for len(event) > 0 {
		line := event
		if end := bytes.IndexAny(event, "\r\n"); end >= 0 {
			line, event = event[:end], event[end+1:]
		} else {
			event = nil
		}
		if data, ok := bytes.CutPrefix(line, dataField); ok {
			return dataKind(data)
		}
		if len(line) > 0 && line[0] != ':' {
			kind = eventData // a field that says nothing here
		}
	}
	return kind
}

func dataKind(data []byte) eventKind {
	data = bytes.TrimPrefix(data, []byte(" "))
	switch {
	case bytes.Equal(data, doneMark):
		return eventDone
	case bytes.HasPrefix(data, faultMark):
		return eventFault
	}
	return eventData
}

// faultOf is the error of an event that carries one.
func faultOf(event []byte) *openai.Error {
	data, err := openai.NewReader(bytes.NewReader(event)).Next()
	if err != nil { // too long for any client's patience
		return engineBroke()
	}
	return translate.ParseError(data, 0)
}

// ends are the ways to end an event: an empty line after any line's end. The
// CR of an empty line waits for its LF, unless the line before ended in CR.
var ends = [][]byte{[]byte("\n\n"), []byte("\n\r\n"), []byte("\r\r")}

// eventEnd returns where the first event of b that ends after from ends, and
// -1 when none does. It is the same however b comes in pieces.
func eventEnd(b []byte, from int) int {
	first := -1
	for i, end := range ends {
		if i > 0 && bytes.IndexByte(b[from:], '\r') < 0 {
			break
		}
		if at := bytes.Index(b[from:], end); at >= 0 && (first < 0 || from+at+len(end) < first) {
			first = from + at + len(end)
		}
	}
	return first
}
