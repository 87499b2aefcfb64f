package openai

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// MaxEventBytes bounds one event of a Reader, and so its memory.
const MaxEventBytes = 1 << 20

// ErrEventTooLong is returned by Reader.Next for an event over MaxEventBytes.
var ErrEventTooLong = errors.New("server-sent event is too long")

// Reader reads server-sent events, as the WHATWG standard frames them, up to
// the terminator of OpenAI's streams.
type Reader struct {
	lines   *bufio.Scanner
	data    []byte
	afterCR bool // the last line ended in CR: an LF that follows belongs to it
	done    bool
}

// NewReader returns a Reader over the body of a response.
func NewReader(r io.Reader) *Reader {
	rd := &Reader{lines: bufio.NewScanner(r)}
	rd.lines.Buffer(make([]byte, 0, 4096), MaxEventBytes)
	rd.lines.Split(rd.split)
	return rd
}

// Next returns the data of the next event, valid until the next call. It
// returns io.EOF after [DONE], and io.ErrUnexpectedEOF when the stream ends
// without it: such an answer was cut.
func (r *Reader) Next() ([]byte, error) {
	r.data = r.data[:0]
	pending := false // a data field was seen, even an empty one
	for !r.done && r.lines.Scan() {
		line := r.lines.Bytes()
		if len(line) == 0 {
			if !pending {
				continue
			}
			r.done = string(r.data) == "[DONE]"
			if r.done {
				break
			}
			return r.data, nil
		}
		value, ok := field(line, "data")
		if !ok {
			continue // a comment, or a field that OpenAI's streams do not use
		}
		if len(r.data)+len(value) >= MaxEventBytes {
			return nil, ErrEventTooLong
		}
		if pending {
			r.data = append(r.data, '\n')
		}
		r.data = append(r.data, value...)
		pending = true
	}
	return nil, r.end()
}

func (r *Reader) end() error {
	err := r.lines.Err()
	switch {
	case r.done:
		return io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return ErrEventTooLong
	case err != nil:
		return fmt.Errorf("read event: %w", err)
	default:
		return io.ErrUnexpectedEOF
	}
}

// field returns the value of a line if it is the named field.
func field(line []byte, name string) ([]byte, bool) {
	line = bytes.TrimPrefix(line, []byte("\ufeff")) // a stream may begin with one
	key, value, _ := bytes.Cut(line, []byte(":"))
	return bytes.TrimPrefix(value, []byte(" ")), string(key) == name
}

// split ends lines at LF, CR or CRLF. It does not wait for the byte after a
// CR: that byte may come only with the next token.
func (r *Reader) split(b []byte, atEOF bool) (advance int, line []byte, err error) {
	skip := 0
	if r.afterCR && len(b) > 0 {
		r.afterCR = false
		if b[0] == '\n' {
			skip = 1
		}
	}
	if i := bytes.IndexAny(b[skip:], "\r\n"); i >= 0 {
		r.afterCR = b[skip+i] == '\r'
		return skip + i + 1, b[skip : skip+i], nil
	}
	if atEOF { // a last line without its end belongs to no event
		return len(b), nil, nil
	}
	return skip, nil, nil
}
