package onnx

import "strings"

// What separates a model's thoughts from its answer, in the families that
// think aloud.
const (
	thinkOpen  = "<think>"
	thinkClose = "</think>"
)

// segment is a part of an answer, in the order of the text.
type segment struct {
	kind segmentKind
	text string // of content, reasoning or arguments
	call int    // which call, counted from 0
	name string // with callBegin
}

type segmentKind int

const (
	content segmentKind = iota
	reasoning
	callBegin
	callArguments
)

// outputParser separates thoughts, text and tool calls while they are written.
// What may be the beginning of a marker is held back until more text decides.
type outputParser struct {
	calls   *callFormat // nil when the request has no tools
	once    bool        // only one call is wanted
	state   parseState
	pending string // not yet given out
	trim    string // leading characters that belong to nobody, until another comes
	scan    callScanner
	count   int // calls begun
}

const (
	lineEnds = "\r\n"
	spaces   = " \t\r\n"
)

type parseState int

const (
	atStart parseState = iota
	inThought
	afterThought
	inText
	inCall    // after an open marker
	afterCall // behind a call's object
)

func newOutputParser(u *toolUse, f *callFormat, thinking bool) *outputParser {
	p := &outputParser{}
	if u != nil && len(u.tools) > 0 && u.choice != "none" {
		p.calls, p.once = f, !u.parallel || u.named
	}
	if thinking {
		p.state, p.trim = inThought, lineEnds
	}
	return p
}

// thinks says whether the text goes on inside the model's thoughts.
func (p *outputParser) thinks() bool { return p.state == inThought }

// feed takes more text and returns what it decides. final says that no more
// will come.
func (p *outputParser) feed(text string, final bool) []segment {
	p.pending += text
	var out []segment
	for p.step(&out, final) {
	}
	if final && p.pending != "" {
		kind := content
		if p.state == inThought {
			kind = reasoning
		}
		p.emit(kind, p.pending, &out)
		p.pending = ""
	}
	return out
}

// step moves on by one decision and reports whether another may follow.
func (p *outputParser) step(out *[]segment, final bool) bool {
	switch p.state {
	case atStart:
		return p.start(final)
	case inThought:
		if !p.until(thinkClose, reasoning, out, final) {
			return false
		}
		p.state = afterThought
	case afterThought:
		if p.pending = strings.TrimLeft(p.pending, lineEnds); p.pending == "" {
			return false
		}
		p.state = atStart
	case inText:
		if p.calls == nil || p.once && p.count > 0 {
			p.emit(content, p.pending, out)
			p.pending = ""
			return false
		}
		if !p.until(p.calls.open, content, out, final) {
			return false
		}
		p.begin(p.calls.open)
	case inCall:
		return p.call(out, final)
	case afterCall:
		return p.between(final)
	}
	return true
}

// start looks at the first text of an answer: thoughts, a bare call, or text.
func (p *outputParser) start(final bool) bool {
	head := strings.TrimLeft(p.pending, spaces)
	switch {
	case strings.HasPrefix(head, thinkOpen):
		p.pending, p.state, p.trim = head[len(thinkOpen):], inThought, lineEnds
	case !final && strings.HasPrefix(thinkOpen, head): // also when it is empty
		return false
	case p.calls != nil && p.calls.bare && strings.HasPrefix(head, "{"):
		p.begin("")
	default:
		p.state = inText
	}
	return true
}

// until emits what lies before mark and reports whether mark was found, and
// dropped.
func (p *outputParser) until(mark string, kind segmentKind, out *[]segment, final bool) bool {
	before, after, found := strings.Cut(p.pending, mark)
	if !found && !final {
		before = p.pending[:len(p.pending)-overlap(p.pending, mark)]
		after = p.pending[len(before):]
	}
	p.emit(kind, before, out)
	p.pending = after
	return found
}

func (p *outputParser) emit(kind segmentKind, text string, out *[]segment) {
	if p.trim != "" {
		if text = strings.TrimLeft(text, p.trim); text == "" {
			return
		}
		p.trim = ""
	}
	if text != "" {
		*out = append(*out, segment{kind: kind, text: text})
	}
}

func (p *outputParser) begin(marker string) {
	p.state = inCall
	p.scan = callScanner{arguments: p.calls.arguments, list: p.calls.list && !p.scan.inList, inList: p.scan.inList,
		id: p.calls.id, headed: p.calls.headed, raw: marker}
}

// call feeds the scanner. What turns out to be no call becomes text again.
func (p *outputParser) call(out *[]segment, final bool) bool {
	n, state := p.scan.feed(p.pending)
	p.pending = p.pending[n:]
	if name, ok := p.scan.announce(); ok {
		*out = append(*out, segment{kind: callBegin, call: p.count, name: name})
		p.count++
	}
	if state == scanBad || final && state == scanMore && !p.scan.announced {
		raw := p.scan.raw
		p.state, p.scan = inText, callScanner{}
		p.emit(content, raw, out)
		return true
	}
	if args := p.scan.take(); args != "" {
		*out = append(*out, segment{kind: callArguments, call: p.count - 1, text: args})
	}
	if state == scanMore {
		return false
	}
	p.state = afterCall
	return true
}

// between decides what follows a call's object: another of the list, the end
// marker, or text.
func (p *outputParser) between(final bool) bool {
	head := strings.TrimLeft(p.pending, spaces)
	close := p.calls.close
	p.trim = spaces
	switch {
	case p.scan.inList && strings.HasPrefix(head, ","):
		p.pending = head[1:]
		p.begin("")
	case p.scan.inList && strings.HasPrefix(head, "]"):
		p.pending, p.scan.inList = head[1:], false
	case p.calls.bare && strings.HasPrefix(head, ";"): // Llama parts several calls so
		p.pending = head[1:]
		p.begin("")
	case close != "" && strings.HasPrefix(head, close):
		p.pending, p.state = head[len(close):], inText
	case !final && (head == "" || strings.HasPrefix(close, head)):
		return false
	default:
		p.state = inText
	}
	return true
}
