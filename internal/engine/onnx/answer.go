package onnx

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"slices"

	"infer/internal/openai"
)

// serve answers w, streaming or not.
func (j *job) serve(w http.ResponseWriter, r *http.Request) {
	if j.stream {
		j.serveStream(w, r.Context())
		return
	}
	parts := j.newParts()
	u, err := j.run(r.Context(), func(p piece) error {
		parts[p.index].add(p)
		return nil
	})
	if r.Context().Err() != nil {
		return // the server answers for a deadline or a drain
	}
	if err != nil {
		openai.WriteError(w, wireError(err))
		return
	}
	u.CompletionDetails = j.thought(parts)
	body := j.echoed
	body.Usage = &u
	for _, p := range j.best(parts) {
		body.Choices = append(body.Choices, p.choice(len(body.Choices)))
	}
	writeJSON(w, body)
}

// serveStream answers with events. The first leaves with the first token, so
// that an earlier failure is still a real status.
func (j *job) serveStream(w http.ResponseWriter, ctx context.Context) {
	s := openai.NewStream(w)
	body := j.echoed
	if j.chat {
		body.Object = "chat.completion.chunk"
	}
	if j.includeUsage {
		body.Usage = (*usage)(nil) // null in all events but the last, as the wire has it
	}
	parts := j.newParts()
	u, err := j.run(ctx, func(p piece) error {
		for _, c := range parts[p.index].deltas(p) {
			body.Choices = []choice{c}
			if err := s.Send(body); err != nil {
				return err
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return // the server ends the stream for a deadline or a drain
	}
	if err == nil && j.includeUsage {
		u.CompletionDetails = j.thought(parts)
		body.Choices, body.Usage = []choice{}, &u
		err = s.Send(body)
	}
	if err != nil {
		_ = s.Fail(wireError(err)) // when the client cannot be written to, nobody is left to tell
		return
	}
	_ = s.Done()
}

// part is one choice while it grows.
type part struct {
	j      *job
	index  int
	begun  bool
	parser *outputParser // of a chat
	thinks int           // tokens of its thoughts, and of what encloses them
	text   []byte
	think  []byte
	calls  []toolCall
	offset int // of the next token in the text that was sent
	probs  []piece
	finish piece
	weight float64 // sum of the tokens' log-probabilities
	tokens int
}

func (j *job) newParts() []*part {
	parts := make([]*part, j.sequences())
	for i := range parts {
		parts[i] = &part{j: j, index: i}
		if j.chat {
			parts[i].parser = newOutputParser(&j.tools, &j.live.chat.calls, j.thinking)
		}
		if j.echo {
			parts[i].text = append(parts[i].text, j.live.tok.Decode(j.prompts[i/j.bestOf], true)...)
		}
	}
	return parts
}

// add takes a piece of a choice that is returned whole.
func (p *part) add(q piece) {
	if p.parser == nil {
		p.text = append(p.text, q.text...)
	} else {
		for _, s := range p.parse(q) {
			p.collect(s)
		}
	}
	if q.prob != nil {
		p.probs = append(p.probs, q)
		if !q.prompt {
			p.weight += q.prob.logprob
			p.tokens++
		}
	}
	if q.finish != "" {
		p.finish = q
	}
}

// parse reads the piece of a chat, and counts the tokens of thoughts.
func (p *part) parse(q piece) []segment {
	inside := p.parser.thinks()
	list := p.parser.feed(q.text, q.finish != "")
	if inside || p.parser.thinks() {
		p.thinks += q.tokens
	}
	return list
}

// thought is what a chat's answer says of its thoughts in its usage.
func (j *job) thought(parts []*part) *completionDetails {
	if !j.chat {
		return nil
	}
	d := &completionDetails{}
	for _, p := range parts {
		d.ReasoningTokens += p.thinks
	}
	return d
}

// best picks the n likeliest of each prompt's choices, by log-probability a
// token.
func (j *job) best(parts []*part) []*part {
	if j.bestOf == j.n {
		return parts
	}
	var list []*part
	for group := range slices.Chunk(parts, j.bestOf) {
		slices.SortStableFunc(group, func(a, b *part) int {
			return cmp.Compare(b.weight/float64(max(b.tokens, 1)), a.weight/float64(max(a.tokens, 1)))
		})
		list = append(list, group[:j.n]...)
	}
	return list
}

// collect adds a parsed segment to the whole answer.
func (p *part) collect(s segment) {
	switch s.kind {
	case content:
		p.text = append(p.text, s.text...)
	case reasoning:
		p.think = append(p.think, s.text...)
	case callBegin:
		p.calls = append(p.calls, newToolCall(s.name))
	case callArguments:
		p.calls[s.call].Function.Arguments += s.text
	}
}

func newToolCall(name string) toolCall {
	return toolCall{ID: "call_" + rand.Text(), Type: "function", Function: functionCall{Name: name}}
}

// choice is the whole choice for the wire.
func (p *part) choice(index int) choice {
	text, finish := string(p.text), p.reason(p.finish)
	c := choice{Index: index, FinishReason: &finish, StopReason: p.finish.stopReason(p.j)}
	if p.j.chat {
		c.Message = &chatMessage{Role: "assistant", Content: &text, Reasoning: string(p.think), ToolCalls: p.calls}
		if text == "" && len(p.calls) > 0 {
			c.Message.Content = nil
		}
	} else {
		c.Text = &text
	}
	if p.j.reports() {
		c.Logprobs = p.logprobs(p.probs, 0)
	}
	return c
}

// reason is the finish reason on the wire: an answer of calls ends with them.
func (p *part) reason(q piece) string {
	if q.finish == finishStop && p.parser != nil && p.parser.count > 0 {
		return finishCalls
	}
	return q.finish
}

// deltas are the events of one piece.
func (p *part) deltas(q piece) []choice {
	var lp any
	if q.prob != nil && p.j.reports() {
		lp = p.logprobs([]piece{q}, p.offset)
		p.offset += len(p.j.live.tokenText(q.prob.id))
	}
	first := !p.begun
	p.begun = true
	if p.j.chat {
		return p.chatDeltas(q, lp, first)
	}
	text := q.text
	if first {
		text = string(p.text) + text // what is echoed
	}
	if text == "" && lp == nil && q.finish == "" {
		return nil
	}
	return []choice{{Index: p.index, Text: &text, Logprobs: lp, FinishReason: optional(q.finish), StopReason: q.stopReason(p.j)}}
}

// chatDeltas are role first, then thoughts, text and calls, the finish reason
// last. Log-probabilities of a token whose text is held back come alone.
func (p *part) chatDeltas(q piece, lp any, first bool) []choice {
	var list []choice
	put := func(d delta) {
		list = append(list, choice{Index: p.index, Delta: &d, Logprobs: lp})
		lp = nil
	}
	empty := ""
	if first {
		list = append(list, choice{Index: p.index, Delta: &delta{Role: "assistant", Content: &empty}})
	}
	for _, s := range p.parse(q) {
		switch s.kind {
		case content:
			put(delta{Content: &s.text})
		case reasoning:
			put(delta{Reasoning: &s.text})
		case callBegin:
			c := newToolCall(s.name)
			c.Index = &s.call
			put(delta{ToolCalls: []toolCall{c}})
		case callArguments:
			put(delta{ToolCalls: []toolCall{{Index: &s.call, Function: functionCall{Arguments: s.text}}}})
		}
	}
	if lp != nil {
		put(delta{Content: &empty})
	}
	if q.finish != "" {
		finish := p.reason(q)
		list = append(list, choice{Index: p.index, Delta: &delta{}, FinishReason: &finish, StopReason: q.stopReason(p.j)})
	}
	return list
}

// stopReason is vLLM's extension: the stop string or token that ended the
// sequence, null when that was the model's own end, a grammar's or the length.
func (q piece) stopReason(j *job) any {
	switch {
	case q.finish != finishStop:
		return nil
	case q.stopText != "":
		return q.stopText
	case q.complete, slices.Contains(j.live.config.Model.EOS, q.stopToken):
		return nil
	}
	return q.stopToken
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
