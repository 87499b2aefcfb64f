package onnx

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"time"

	"infer/internal/engine"
	"infer/internal/openai"
)

// job is one request of either completion route on its way through the
// scheduler: one sequence a choice, one outbox for all of them.
type job struct {
	options
	live    *live
	chat    bool
	model   string // as the client named it
	prompts [][]int32
	echo    response // id, created, model of every body
}

// newJob checks the prompts against the context.
func (l *live) newJob(o options, chat bool, model string, prompts [][]int32) (*job, *openai.Error) {
	field, prefix, object := "prompt", "cmpl-", "text_completion"
	if chat {
		field, prefix, object = "messages", "chatcmpl-", "chat.completion"
	}
	if len(prompts)*o.n > maxChoices {
		return nil, openai.Invalid("n", openai.CodeInvalidValue, "%d prompts × n = %d is over %d choices; send fewer", len(prompts), o.n, maxChoices)
	}
	for _, p := range prompts {
		if e := l.fits(&o, field, len(p)); e != nil {
			return nil, e
		}
	}
	if !o.seeded {
		o.seed = mathrand.Uint64()
	}
	j := &job{options: o, live: l, chat: chat, model: model, prompts: prompts}
	j.echo = response{ID: prefix + rand.Text(), Object: object, Created: time.Now().Unix(), Model: model}
	return j, nil
}

// fits refuses a prompt that leaves no room for what was asked.
func (l *live) fits(o *options, field string, prompt int) *openai.Error {
	limit := l.model.ContextTokens
	switch {
	case prompt == 0:
		return openai.Invalid(field, openai.CodeInvalidValue, "%s is empty; give at least one token", field)
	case prompt >= limit:
		return openai.Invalid(field, openai.CodeContextLength,
			"the prompt has %d tokens and this model's context is %d tokens, of which at least one is for the answer; shorten the prompt", prompt, limit)
	case prompt+o.maxTokens > limit:
		return openai.Invalid(o.maxField, openai.CodeContextLength,
			"the prompt has %d tokens and %s asks for %d, which together is over this model's context of %d tokens; shorten the prompt or lower %s",
			prompt, o.maxField, o.maxTokens, limit, o.maxField)
	}
	return nil
}

// submit hands the job's sequences to the scheduler. They end with ctx.
func (j *job) submit(ctx context.Context) *outbox {
	out := newOutbox()
	for i := range len(j.prompts) * j.n {
		prompt := j.prompts[i/j.n]
		limit := j.maxTokens
		if limit == 0 {
			limit = j.live.model.ContextTokens - len(prompt)
		}
		j.live.sched.submit(&sequence{
			ctx: ctx, prompt: prompt, maxTokens: limit, eos: j.live.config.Model.EOS,
			sampler: newSampler(j.sampling, uint64(i)), decoder: j.live.tok.NewDecoder(true),
			stop: stopText{stops: j.stops}, index: i, out: out,
		})
	}
	return out
}

// run submits the job and calls each for every piece in order, then returns
// its usage. It meters what was sampled, also for a client that left. When it
// returns, no sequence of the job will be scheduled again.
func (j *job) run(parent context.Context, each func(piece) error) (usage, error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	u := usage{}
	for _, p := range j.prompts {
		u.PromptTokens += len(p)
	}
	meter := engine.MeterFrom(parent)
	meter.Prompt(u.PromptTokens, 0)
	out := j.submit(ctx)
	var spare []piece
	for left := len(j.prompts) * j.n; left > 0; {
		var err error
		select {
		case <-out.ready:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		pieces := out.take(spare)
		for _, p := range pieces {
			if p.tokens > 0 {
				u.CompletionTokens += p.tokens
				meter.Tokens(p.tokens)
			}
			if p.finish != "" {
				left--
			}
			if err == nil {
				err = p.err
			}
			if err == nil {
				err = each(p)
			}
		}
		if err != nil {
			return u, err
		}
		spare = pieces
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u, nil
}

// wireError types an error of run for the client.
func wireError(err error) *openai.Error {
	if errors.Is(err, errStopped) {
		return &openai.Error{Status: http.StatusServiceUnavailable, Type: openai.TypeUnavailable, Code: openai.CodeDraining,
			Message: "the server is stopping; send the request again, to another replica"}
	}
	return &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
		Message: fmt.Sprintf("%v; send the request again, and see the server's log when it repeats", err)}
}

// serve answers w, streaming or not.
func (j *job) serve(w http.ResponseWriter, r *http.Request) {
	if j.stream {
		j.serveStream(w, r.Context())
		return
	}
	texts := make([][]byte, len(j.prompts)*j.n)
	finish := make([]string, len(texts))
	u, err := j.run(r.Context(), func(p piece) error {
		texts[p.index] = append(texts[p.index], p.text...)
		finish[p.index] = p.finish
		return nil
	})
	if r.Context().Err() != nil {
		return // the server answers for a deadline or a drain
	}
	if err != nil {
		openai.WriteError(w, wireError(err))
		return
	}
	body := j.echo
	body.Usage = &u
	for i := range texts {
		body.Choices = append(body.Choices, j.choice(i, string(texts[i]), finish[i]))
	}
	writeJSON(w, body)
}

func (j *job) choice(i int, text, finish string) choice {
	if j.chat {
		return choice{Index: i, Message: &chatMessage{Role: "assistant", Content: text}, FinishReason: &finish}
	}
	return choice{Index: i, Text: &text, FinishReason: &finish}
}

// serveStream answers with events. The first leaves with the first token, so
// that an earlier failure is still a real status.
func (j *job) serveStream(w http.ResponseWriter, ctx context.Context) {
	s := openai.NewStream(w)
	body := j.echo
	if j.chat {
		body.Object = "chat.completion.chunk"
	}
	if j.includeUsage {
		body.Usage = (*usage)(nil) // null in all events but the last, as the wire has it
	}
	begun := make([]bool, len(j.prompts)*j.n)
	u, err := j.run(ctx, func(p piece) error {
		for _, c := range j.deltas(p, !begun[p.index]) {
			body.Choices = []choice{c}
			if err := s.Send(body); err != nil {
				return err
			}
		}
		begun[p.index] = true
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

// deltas are the events of one piece: role first, text, finish reason last.
func (j *job) deltas(p piece, first bool) []choice {
	var list []choice
	if !j.chat {
		if p.text != "" || p.finish != "" {
			list = append(list, choice{Index: p.index, Text: &p.text, FinishReason: optional(p.finish)})
		}
		return list
	}
	if first {
		empty := ""
		list = append(list, choice{Index: p.index, Delta: &delta{Role: "assistant", Content: &empty}})
	}
	if p.text != "" {
		list = append(list, choice{Index: p.index, Delta: &delta{Content: &p.text}})
	}
	if p.finish != "" {
		list = append(list, choice{Index: p.index, Delta: &delta{}, FinishReason: &p.finish})
	}
	return list
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
