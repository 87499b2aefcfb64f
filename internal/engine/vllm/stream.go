package vllm

import (
	"bytes"
	"errors"
)

// maxEventBytes bounds one event, and so the memory of a stream. A chunk that
// says the prompt's own log probabilities is the largest that vLLM sends.
const maxEventBytes = 16 << 20

// errEventTooLong ends a stream whose event is over maxEventBytes.
var errEventTooLong = errors.New("an event of the engine's stream is too long")

// wish is what the client asked to see of usage.
type wish struct {
	last       bool // stream_options.include_usage: the last chunk has it
	continuous bool // stream_options.continuous_usage_stats: every chunk has it
}

// stream turns the bytes of vLLM's event stream into the client's: whole
// events only, without the usage that we asked for and the client did not.
type stream struct {
	protocol protocol
	steps    bool // the engine process works for it
	wish     wish
	tally    tally

	buf    []byte // what has come of events that are not whole yet
	from   int    // where the search for the end of the event goes on
	events uint64 // whole events so far that show life
	done   bool   // the protocol's last event was seen
	failed bool   // vLLM reported an error inside the stream
	dead   bool   // that error is the death of its engine
}

// feed takes bytes as they come and appends to dst what the client gets.
func (s *stream) feed(dst, p []byte) ([]byte, error) {
	s.buf = append(s.buf, p...)
	rest := s.buf
	for {
		end := eventEnd(rest, s.from)
		if end < 0 {
			break
		}
		dst = s.event(dst, rest[:end])
		rest, s.from = rest[end:], 0
	}
	s.from = max(len(rest)-2, 0) // an end may begin in the last two bytes
	s.buf = s.buf[:copy(s.buf, rest)]
	if len(s.buf) > maxEventBytes {
		return dst, errEventTooLong
	}
	return dst, nil
}

// eventEnd returns the index after the blank line that ends an event, or -1.
// Lines end in LF or CRLF. A line that ends in CR alone is not understood: its
// end would depend on a byte that may come only with the next token.
func eventEnd(b []byte, from int) int {
	for i := from; ; i++ {
		lf := bytes.IndexByte(b[i:], '\n')
		if lf < 0 {
			return -1
		}
		i += lf
		switch {
		case i+1 < len(b) && b[i+1] == '\n':
			return i + 2
		case i+2 < len(b) && b[i+1] == '\r' && b[i+2] == '\n':
			return i + 3
		}
	}
}

// event appends what the client gets of one whole event.
func (s *stream) event(dst, ev []byte) []byte {
	data, at := eventData(ev)
	switch {
	case data == nil:
		return append(dst, ev...)
	case string(data) == "[DONE]":
		s.done = true
		return append(dst, ev...)
	case s.isError(data):
		return s.error(dst, data)
	}
	s.events++
	if s.protocol == other {
		return append(dst, ev...)
	}
	return s.chunk(dst, ev, data, at)
}

// eventData returns the data of an event and where it begins. It is nil for a
// comment and for data of several lines, which vLLM does not send.
func eventData(ev []byte) (data []byte, begin int) {
	for at := 0; at < len(ev); {
		line, _, _ := bytes.Cut(ev[at:], []byte("\n")) // every line of an event has one
		next := at + len(line) + 1
		line = bytes.TrimSuffix(line, []byte("\r"))
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if data != nil {
				return nil, 0
			}
			data = bytes.TrimPrefix(value, []byte(" "))
			begin = at + len(line) - len(data)
		}
		at = next
	}
	return data, begin
}

// chunk handles one chunk of chat or text completions.
func (s *stream) chunk(dst, ev, data []byte, at int) []byte {
	m := lastMember(data, `"usage"`)
	u, known := readUsage(m.of(data))
	whole := bytes.Contains(data, []byte(`"choices":[]`)) // a quote inside a string is escaped
	switch {
	case known && whole:
		s.tally.sum(u)
		if !s.wish.last {
			return dst
		}
	case known:
		s.tally.chunk(indexOf(data), u)
		if !s.wish.continuous {
			dst = append(dst, ev[:at]...)
			dst = appendWithout(dst, data, m)
			return append(dst, ev[at+len(data):]...)
		}
	case !whole && member(data, "choices").ok():
		s.tally.guess(1)
	}
	return append(dst, ev...)
}

func (s *stream) isError(data []byte) bool {
	if !bytes.Contains(data, []byte(`"error"`)) { // nearly every event
		return false
	}
	v := member(data, "error").of(data)
	return len(v) > 0 && v[0] != 'n' // null is no error
}

// error replaces vLLM's error event, which names its insides.
func (s *stream) error(dst, data []byte) []byte {
	e := wireError(500, data, "")
	s.failed = true
	s.dead = s.dead || engineDead(data)
	dst = append(dst, "data: "...)
	dst = append(dst, e.Body()...)
	return append(dst, "\n\n"...)
}

// whole says whether the stream may end here.
func (s *stream) whole() bool {
	return s.done || (s.protocol == other && len(s.buf) == 0)
}
