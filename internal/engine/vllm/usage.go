package vllm

import (
	"bytes"

	"infer/internal/engine"
)

// usage is what vLLM says a request has cost so far.
type usage struct{ prompt, cached, completion int }

// readUsage reads the usage of a chunk or of a whole answer. ok is false for null.
func readUsage(text []byte) (u usage, ok bool) {
	if len(text) == 0 || text[0] != '{' {
		return usage{}, false
	}
	for i := 0; ; {
		m, nameEnd := nextMember(text, i)
		if !m.ok() {
			return u, true
		}
		i = m.end
		switch string(text[m.at:nameEnd]) {
		case `"prompt_tokens"`:
			u.prompt = number(m.of(text))
		case `"completion_tokens"`:
			u.completion = number(m.of(text))
		case `"prompt_tokens_details"`:
			u.cached = number(member(m.of(text), "cached_tokens").of(m.of(text)))
		}
	}
}

// tally turns the usage of a stream's chunks into the calls of a Meter.
// vLLM's continuous usage counts a chunk's own choice only, so the choices are
// kept apart and summed; its last chunk has the sum.
type tally struct {
	meter  engine.Meter
	first  usage         // of choice 0
	others map[int]usage // of the further ones
	total  usage
	told   int // completion tokens that the meter knows of
	final  bool
	closed bool
}

// chunk takes the usage of one chunk of choice index.
func (t *tally) chunk(index int, u usage) {
	old := t.first
	if index == 0 {
		t.first = u
	} else {
		if t.others == nil {
			t.others = make(map[int]usage)
		}
		old = t.others[index]
		t.others[index] = u
	}
	if !t.final {
		t.total.completion += max(u.completion-old.completion, 0)
		t.total.prompt = max(t.total.prompt, u.prompt)
		t.total.cached = max(t.total.cached, u.cached)
		t.tell()
	}
}

// guess counts tokens whose usage is not told until the end.
func (t *tally) guess(n int) {
	if !t.final {
		t.total.completion += n
		t.tell()
	}
}

// sum takes the usage of the whole request, which the meter knows before the
// client does.
func (t *tally) sum(u usage) {
	t.final = true
	t.total = u
	t.tell()
	t.close()
}

func (t *tally) tell() {
	if n := t.total.completion - t.told; n > 0 {
		t.told += n
		t.meter.Tokens(n)
	}
}

// close tells the prompt, whose cached tokens only the last chunk knows. It is
// for the stream that ends without one, too.
func (t *tally) close() {
	if !t.closed {
		t.closed = true
		if t.total != (usage{}) {
			t.meter.Prompt(t.total.prompt, t.total.cached)
		}
	}
}

// indexOf reads the choice that a chunk is about. vLLM writes it first.
func indexOf(chunk []byte) int {
	const before = `"choices":[{"index":`
	at := bytes.Index(chunk, []byte(before))
	if at < 0 {
		return 0
	}
	rest := chunk[at+len(before):]
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	return number(rest[:end])
}
