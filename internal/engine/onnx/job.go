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
	"infer/internal/engine/onnx/grammar"
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
	echoed  response // id, created, model of every body
	// hideLogprobs is set when they serve best_of alone.
	hideLogprobs bool
	tools        toolUse
	thinking     bool             // the prompt ends inside the model's thoughts
	rules        *grammar.Grammar // of the output; nil: any text
}

// newJob checks the prompts against the context.
func (l *live) newJob(o options, chat bool, model string, prompts [][]int32) (*job, *openai.Error) {
	field, prefix, object := "prompt", "cmpl-", "text_completion"
	if chat {
		field, prefix, object = "messages", "chatcmpl-", "chat.completion"
	}
	if len(prompts)*o.bestOf > maxChoices {
		return nil, openai.Invalid("n", openai.CodeInvalidValue, "%d prompts × %d choices is over %d; send fewer", len(prompts), o.bestOf, maxChoices)
	}
	for _, p := range prompts {
		if e := l.fits(&o, field, len(p)); e != nil {
			return nil, e
		}
	}
	if !o.seeded {
		o.seed = mathrand.Uint64()
	}
	hide := o.bestOf > o.n && o.logprobs < 0
	if hide {
		o.logprobs = 0
	}
	j := &job{hideLogprobs: hide, options: o, live: l, chat: chat, model: model, prompts: prompts}
	j.echoed = response{ID: prefix + rand.Text(), Object: object, Created: time.Now().Unix(), Model: model, Fingerprint: l.fingerprint}
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

// sequences is how many run: of each prompt, the best of which are returned.
func (j *job) sequences() int { return len(j.prompts) * j.bestOf }

// submit hands the job's sequences to the scheduler. They end with ctx.
func (j *job) submit(ctx context.Context) *outbox {
	out := newOutbox()
	for i := range j.sequences() {
		prompt := j.prompts[i/j.bestOf]
		limit := j.maxTokens
		if j.maxField == "" {
			limit = j.live.model.ContextTokens - len(prompt)
		}
		q := &sequence{
			ctx: ctx, caller: engine.CallerFrom(ctx), batch: engine.IsBatch(ctx), prompt: prompt, maxTokens: limit, ends: j.sampling.ends,
			sampler: newSampler(j.sampling, uint64(i), prompt), decoder: markedDecoder{j.live.tok.NewDecoder(true), j.live.marks},
			stop:        stopText{stops: j.stops, include: j.includeStop},
			promptProbs: j.echo && j.logprobs >= 0, index: i, out: out,
		}
		if j.rules != nil {
			q.sampler.guide = newGuide(j.rules, j.live.words(), j.live.thoughtsEnd(j.thinking))
		}
		j.live.sched.submit(q)
	}
	return out
}

// thoughtsEnd is the token that ends the thoughts a prompt opened, or -1.
func (l *live) thoughtsEnd(thinking bool) int32 {
	if id, ok := l.tok.ID(thinkClose); ok && thinking {
		return id
	}
	return -1
}

// run submits the job and calls each for every piece in order, then returns
// its usage. It meters what was sampled, also for a client that left. When it
// returns, no sequence of the job will be scheduled again.
func (j *job) run(parent context.Context, each func(piece) error) (u usage, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	for _, p := range j.prompts {
		u.PromptTokens += len(p)
	}
	meter, admitted := engine.MeterFrom(parent), 0
	defer func() { meter.Prompt(admitted, u.PromptDetails.CachedTokens) }()
	out := j.submit(ctx)
	var spare []piece
	for left := j.sequences(); left > 0; {
		var err error
		select {
		case <-out.ready:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		pieces := out.take(spare)
		for _, p := range pieces {
			if p.admitted {
				admitted += len(j.prompts[p.index/j.bestOf])
				u.PromptDetails.CachedTokens += p.reused
				continue
			}
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
	switch {
	case errors.Is(err, errStopped):
		return &openai.Error{Status: http.StatusServiceUnavailable, Type: openai.TypeUnavailable, Code: openai.CodeDraining,
			Message: "the server is stopping; send the request again, to another replica"}
	case errors.Is(err, errSampling):
		return openai.Internal(err.Error() + "; see the server's log")
	}
	return &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
		Message: fmt.Sprintf("%v; send the request again, and see the server's log when it repeats", err)}
}
