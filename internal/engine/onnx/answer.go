package onnx

import (
	"cmp"
	"context"
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
	text   []byte
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
		if j.echo {
			parts[i].text = append(parts[i].text, j.live.tok.Decode(j.prompts[i/j.bestOf], true)...)
		}
	}
	return parts
}

// add takes a piece of a choice that is returned whole.
func (p *part) add(q piece) {
	p.text = append(p.text, q.text...)
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

// choice is the whole choice for the wire.
func (p *part) choice(index int) choice {
	text := string(p.text)
	c := choice{Index: index, FinishReason: &p.finish.finish, StopReason: p.finish.stopReason(p.j)}
	if p.j.chat {
		c.Message = &chatMessage{Role: "assistant", Content: text}
	} else {
		c.Text = &text
	}
	if p.j.reports() {
		c.Logprobs = p.logprobs(p.probs, 0)
	}
	return c
}

// deltas are the events of one piece: role first, text, finish reason last.
func (p *part) deltas(q piece) []choice {
	var list []choice
	if !p.begun && p.j.chat {
		empty := ""
		list = append(list, choice{Index: p.index, Delta: &delta{Role: "assistant", Content: &empty}})
	}
	text := q.text
	if !p.begun {
		text = string(p.text) + text // what is echoed
	}
	p.begun = true
	c := choice{Index: p.index}
	if q.prob != nil && p.j.reports() {
		c.Logprobs = p.logprobs([]piece{q}, p.offset)
		p.offset += len(p.j.live.tokenText(q.prob.id))
	}
	some := text != "" || c.Logprobs != nil
	if !p.j.chat {
		c.Text = &text
		c.FinishReason, c.StopReason = optional(q.finish), q.stopReason(p.j)
		if some || q.finish != "" {
			list = append(list, c)
		}
		return list
	}
	if some {
		c.Delta = &delta{Content: &text}
		list = append(list, c)
	}
	if q.finish != "" {
		list = append(list, choice{Index: p.index, Delta: &delta{}, FinishReason: &q.finish, StopReason: q.stopReason(p.j)})
	}
	return list
}

// stopReason is vLLM's extension: the stop string or token that ended the
// sequence, null when that was the model's own end or the length.
func (q piece) stopReason(j *job) any {
	switch {
	case q.finish != finishStop:
		return nil
	case q.stopText != "":
		return q.stopText
	case slices.Contains(j.live.config.Model.EOS, q.stopToken):
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
