package translate

import (
	"bytes"

	"infer/internal/openai"
)

// feed splits a stream of server-sent events that arrives in any pieces.
// openai.Reader does the same for who can wait for more bytes; a writer that
// is called with them cannot.
type feed struct {
	line    []byte // of which the end has not come yet
	data    []byte // of the event so far
	pending bool   // a data field was seen
	afterCR bool   // an LF that follows belongs to the last line's end
}

// write calls event for the data of every event that p completes, and comment
// for every comment line. Both are valid during the call only. It stops at the
// first error, which is openai.ErrEventTooLong for an event over
// openai.MaxEventBytes.
func (f *feed) write(p []byte, event, comment func([]byte) error) error {
	for len(p) > 0 {
		if f.afterCR && p[0] == '\n' {
			p = p[1:]
		}
		f.afterCR = false
		end := bytes.IndexAny(p, "\r\n")
		rest := p
		if end >= 0 {
			rest = p[:end]
		}
		if len(f.line)+len(f.data)+len(rest) >= openai.MaxEventBytes {
			return openai.ErrEventTooLong
		}
		f.line = append(f.line, rest...)
		if end < 0 {
			return nil
		}
		f.afterCR = p[end] == '\r'
		p = p[end+1:]
		if err := f.endLine(event, comment); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) endLine(event, comment func([]byte) error) error {
	line := f.line
	f.line = f.line[:0]
	if len(line) == 0 {
		data, pending := f.data, f.pending
		f.data, f.pending = f.data[:0], false
		if !pending {
			return nil
		}
		return event(data)
	}
	if line[0] == ':' {
		return comment(line)
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	if string(name) != "data" {
		return nil
	}
	if f.pending {
		f.data = append(f.data, '\n')
	}
	f.data = append(f.data, bytes.TrimPrefix(value, []byte(" "))...)
	f.pending = true
	return nil
}
