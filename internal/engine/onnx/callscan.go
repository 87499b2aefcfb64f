package onnx

import (
	"bytes"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"strings"
)

type scanState int

const (
	scanMore scanState = iota // the object goes on
	scanDone                  // the object is complete
	scanBad                   // this is no call
)

// callScanner reads one call's JSON object byte by byte, so that its arguments
// can be given out while they are written.
type callScanner struct {
	arguments string // the member that holds them
	list      bool   // a list's bracket comes first
	inList    bool   // the bracket was read
	id        string // what may part a call's id from the name before it
	headed    string // the name ends with this, and the arguments follow; empty: all is one object
	raw       string // all that was read, marker included

	depth    int
	inString bool
	escaped  bool
	inKey    bool // the string being read is a member's name
	afterKey bool // a colon was read, the value not yet
	word     []byte
	key      string

	name      string
	hasName   bool
	value     bool // the bytes read belong to the arguments
	args      []byte
	given     int // bytes of args that were taken
	announced bool
	done      bool
}

// feed reads text up to the end of the object and returns how much.
func (c *callScanner) feed(text string) (n int, state scanState) {
	for i := range len(text) {
		b := text[i]
		c.raw += text[i : i+1]
		switch c.one(b) {
		case scanDone:
			c.done = true
			return i + 1, scanDone
		case scanBad:
			return i + 1, scanBad
		}
	}
	return len(text), scanMore
}

// one reads one byte.
func (c *callScanner) one(b byte) scanState {
	if c.headed != "" && len(c.args) == 0 {
		return c.head(b)
	}
	if c.depth == 0 {
		switch {
		case strings.IndexByte(" \t\r\n", b) >= 0:
		case b == '[' && c.list:
			c.list, c.inList = false, true
		case b == '{' && !c.list:
			c.depth, c.inKey = 1, true
		default:
			return scanBad
		}
		return scanMore
	}
	if c.value {
		return c.argument(b)
	}
	if c.inString {
		c.text(b)
		return scanMore
	}
	return c.structure(b)
}

// maxHead bounds the bytes before the arguments, so that text is not held back
// for long.
const maxHead = 256

// head reads what stands before the arguments.
func (c *callScanner) head(b byte) scanState {
	if c.hasName {
		switch {
		case b == '{':
			c.depth, c.value = 1, true
			return c.argument(b)
		case strings.IndexByte(" \t\r\n", b) < 0:
			return scanBad
		}
		return scanMore
	}
	c.word = append(c.word, b)
	if name, ok := bytes.CutSuffix(c.word, []byte(c.headed)); ok {
		name, _, _ = bytes.Cut(name, []byte(c.id))
		c.name, c.hasName = string(bytes.TrimSpace(name)), true
		if !functionName.MatchString(c.name) {
			return scanBad
		}
	}
	if len(c.word) > maxHead {
		return scanBad
	}
	return scanMore
}

// text reads a byte of a string outside the arguments.
func (c *callScanner) text(b byte) {
	c.word = append(c.word, b)
	switch {
	case c.escaped:
		c.escaped = false
	case b == '\\':
		c.escaped = true
	case b == '"':
		c.inString = false
		if c.depth == 1 {
			c.member()
		}
	}
}

// member takes a complete string of the object itself: a name or a value.
func (c *callScanner) member() {
	var s string
	if json.Unmarshal(c.word, &s) != nil {
		return
	}
	switch {
	case c.inKey:
		c.key = s
	case c.key == "name":
		c.name, c.hasName = s, true
	}
}

// structure reads a byte outside strings and arguments.
func (c *callScanner) structure(b byte) scanState {
	if c.afterKey && c.depth == 1 && strings.IndexByte(" \t\r\n", b) < 0 {
		c.afterKey = false
		if c.key == c.arguments {
			c.value = true
			return c.argument(b)
		}
	}
	switch b {
	case '"':
		c.inString, c.word = true, append(c.word[:0], b)
	case ':':
		c.inKey, c.afterKey = false, c.depth == 1
	case ',':
		c.inKey = c.depth == 1
	case '{', '[':
		c.depth++
	case '}', ']':
		if c.depth--; c.depth == 0 {
			if !c.hasName {
				return scanBad
			}
			return scanDone
		}
	}
	return scanMore
}

// argument reads a byte of the arguments' value. A value that is no object ends
// before the comma or brace that follows it.
func (c *callScanner) argument(b byte) scanState {
	if c.inString {
		c.args = append(c.args, b)
		switch {
		case c.escaped:
			c.escaped = false
		case b == '\\':
			c.escaped = true
		case b == '"':
			c.inString = false
		}
		return scanMore
	}
	if c.depth == 1 && (b == ',' || b == '}') {
		c.value = false
		return c.structure(b)
	}
	c.args = append(c.args, b)
	switch b {
	case '"':
		c.inString = true
	case '{', '[':
		c.depth++
	case '}', ']':
		if c.depth--; c.depth == 1 {
			c.value = false
			if c.headed != "" {
				return scanDone
			}
		}
	}
	return scanMore
}

// announce returns the function's name once, when arguments or the end follow.
func (c *callScanner) announce() (string, bool) {
	if c.announced || !c.hasName || !c.done && !c.objectArguments() {
		return "", false
	}
	c.announced = true
	return c.name, true
}

// objectArguments says whether the arguments are written as an object, which
// can be given out as it grows. Some models write them as a string of JSON.
func (c *callScanner) objectArguments() bool { return len(c.args) > 0 && c.args[0] == '{' }

// take returns the arguments that were not given out yet.
func (c *callScanner) take() string {
	switch {
	case !c.announced:
		return ""
	case c.done && c.given == 0 && !c.objectArguments():
		c.given = len(c.args) + 1
		return wholeArguments(c.args)
	case !c.objectArguments():
		return ""
	}
	s := string(c.args[min(c.given, len(c.args)):])
	c.given = max(c.given, len(c.args))
	return s
}

// wholeArguments turns arguments that are no object into the text of one.
func wholeArguments(raw []byte) string {
	var s string
	if json.Unmarshal(raw, &s) == nil && jsontext.Value(s).IsValid() {
		return s
	}
	return "{}"
}
