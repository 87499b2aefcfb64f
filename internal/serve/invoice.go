package serve

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	"infer/internal/openai"
)

// maxHeldBytes bounds what an invoice keeps of a body behind its usage, which
// engines write last.
const maxHeldBytes = 64 << 10

// noChoice marks the event of a stream that has the usage of the whole request.
// A quote inside a string is escaped, so that no model can write it.
var noChoice = []byte(`"choices":[]`)

// invoice writes what a request costs into the usage of its answer, as the
// member infer_cost, which OpenAI's clients pass on as a field that they do not
// know. It stands behind the relay, and splices: nothing is encoded again.
type invoice struct {
	http.ResponseWriter
	x     *exchange
	whole bool   // the answer is one JSON object
	find  finder // in that
	found bool
	held  []byte // what follows the brace of its usage; the cost is not known before the end
}

// invoiced puts an invoice in front of w where one is wanted. A translator
// writes a usage of its own, which has no room for more.
func invoiced(x *exchange, w http.ResponseWriter) (http.ResponseWriter, *invoice) {
	if !x.s.cfg.UsageCost || x.s.cfg.Bill == nil {
		return w, nil
	}
	switch x.route {
	case "/v1/chat/completions", "/v1/completions", "/v1/embeddings":
		iv := &invoice{ResponseWriter: w, x: x}
		return iv, iv
	}
	return w, nil
}

// Unwrap implements what http.ResponseController looks for.
func (iv *invoice) Unwrap() http.ResponseWriter { return iv.ResponseWriter }

// WriteError implements what openai.WriteError looks for.
func (iv *invoice) WriteError(e *openai.Error) { openai.WriteError(iv.ResponseWriter, e) }

// WriteHeader implements http.ResponseWriter.
func (iv *invoice) WriteHeader(status int) {
	h := iv.Header()
	iv.whole = status == http.StatusOK && strings.HasPrefix(h.Get("Content-Type"), "application/json") && h.Get("Content-Encoding") == ""
	if iv.whole {
		h.Del("Content-Length")
	}
	iv.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter. Of a stream p is whole events.
func (iv *invoice) Write(p []byte) (int, error) {
	var err error
	switch {
	case iv.found:
		iv.held = append(iv.held, p...)
		if len(iv.held) > maxHeldBytes {
			err = iv.settle()
		}
	case iv.whole:
		at := iv.find.in(p)
		if at < 0 {
			return iv.ResponseWriter.Write(p)
		}
		iv.found = true
		iv.held = append(iv.held, p[at:]...)
		_, err = iv.ResponseWriter.Write(p[:at])
	case bytes.Contains(p, noChoice):
		_, err = iv.ResponseWriter.Write(iv.events(p))
	default:
		return iv.ResponseWriter.Write(p)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// events returns whole events with the cost in the one that has the usage.
func (iv *invoice) events(p []byte) []byte {
	var out []byte
	for len(p) > 0 {
		end := eventEnd(p, 0)
		if end < 0 {
			end = len(p)
		}
		event := p[:end]
		p = p[end:]
		if bytes.Contains(event, noChoice) {
			var f finder
			if at := f.in(event); at >= 0 {
				out = append(out, event[:at]...)
				out = iv.cost(out, event[at:])
				event = event[at:]
			}
		}
		out = append(out, event...)
	}
	return out
}

// settle writes what is held of a whole answer, with the cost before it.
func (iv *invoice) settle() error {
	if iv == nil || !iv.found {
		return nil
	}
	b := append(iv.cost(nil, iv.held), iv.held...)
	iv.found, iv.whole, iv.held = false, false, nil
	_, err := iv.ResponseWriter.Write(b)
	return err
}

// cost appends the member, and its comma when rest, which follows, has another.
// What is not known is left out: a 0 would be believed.
func (iv *invoice) cost(dst, rest []byte) []byte {
	if iv.x.meter == nil {
		return dst
	}
	seconds, joules := iv.x.meter.bill.Cost()
	if seconds <= 0 && joules <= 0 {
		return dst
	}
	dst = append(dst, `"infer_cost":{"gpu_seconds":`...)
	dst = strconv.AppendFloat(dst, seconds, 'f', 6, 64)
	dst = append(dst, `,"joules":`...)
	dst = strconv.AppendFloat(dst, joules, 'f', 3, 64)
	dst = append(dst, '}')
	if next := bytes.TrimLeft(rest, " \t\r\n"); len(next) > 0 && next[0] != '}' {
		dst = append(dst, ',')
	}
	return dst
}

// finder looks for the member usage of a JSON object that comes in pieces, or
// in the data of an event.
type finder struct {
	depth           int
	inside, escaped bool   // a string; its next byte
	text            []byte // the begin of the last string of the object itself
	usage           bool   // it was the member's name
}

// in returns where the inside of the usage begins, and -1 while that has not
// come.
func (f *finder) in(p []byte) int {
	for i, c := range p {
		switch {
		case f.inside:
			f.string(c)
		case c == '"':
			f.inside = true
			if f.depth == 1 {
				f.text = f.text[:0]
			}
		case c == '{' && f.depth == 1 && f.usage:
			return i + 1
		case c == '{', c == '[':
			f.depth++
		case c == '}', c == ']':
			f.depth--
		case f.depth != 1:
		case c == ':':
			f.usage = string(f.text) == "usage"
		case c == ',':
			f.usage = false
		}
	}
	return -1
}

// string takes a byte of a string.
func (f *finder) string(c byte) {
	end := c == '"' && !f.escaped
	f.escaped = c == '\\' && !f.escaped
	if end {
		f.inside = false
	} else if f.depth == 1 && len(f.text) <= len("usage") {
		f.text = append(f.text, c)
	}
}
