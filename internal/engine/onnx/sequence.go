package onnx

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// finish reasons of the OpenAI wire.
const (
	finishStop   = "stop"
	finishLength = "length"
	finishCalls  = "tool_calls"
)

var (
	// errStopped ends a sequence because the engine ends.
	errStopped = errors.New("the engine is stopping")
	// errRun ends a sequence because the run it was part of broke.
	errRun = errors.New("the model run broke off")
	// errNumbers ends a sequence whose logits were no numbers.
	errNumbers = errors.New("the model returned no logits that can be used")
	// errSampling ends a sequence whose next token met a fault of this program.
	errSampling = errors.New("a token could not be chosen")
)

// textDecoder turns ids into text, whole characters at a time; see
// tokenizer.Decoder.
type textDecoder interface {
	Add(id int32) string
	Flush() string
}

// sequence is one prompt on its way to a completion. Its maker fills the first
// part, the scheduler's goroutine owns the second, outbox joins the two.
type sequence struct {
	ctx       context.Context
	caller    string  // whose cached tokens it may reuse
	batch     bool    // nobody waits for it
	prompt    []int32 // at least one token, fewer than the context
	maxTokens int     // at least 1
	ends      []int32 // tokens that end the sequence
	sampler   *sampler
	decoder   textDecoder
	stop      stopText
	// promptProbs asks for the log-probability of each prompt token, which
	// costs a run a token.
	promptProbs bool

	number   int   // in the order of arrival
	cached   int   // tokens of this sequence in the KV cache
	next     int32 // sampled, not yet in the cache; valid once decoding
	begun    bool  // its prefill has begun
	admitted bool  // and had begun before it was parked
	decoding bool
	parked   bool // while decoding; prompt is what the cache held then
	told     int  // prompt tokens after the first whose probability was reported
	reused   int  // of cached, what was not computed
	lost     int  // computed in vain since it last got on
	goal     int  // of produced: there it has got on
	produced int

	index int // of the choice
	out   *outbox
}

// left is how many prompt tokens are still to be computed.
func (q *sequence) left() int { return len(q.prompt) - q.cached }

// Work that is parked again and again before it gets on keeps its slot, once it
// has computed in vain what would have computed its prompt maxLost times, until
// it has produced getsOn tokens. So the time in which nobody else needed the
// engine is at least maxLost times what others wait for it.
const (
	maxLost = 3
	getsOn  = 64
)

// stays says whether q keeps its slot.
func (q *sequence) stays() bool {
	return q.produced < q.goal && q.lost > maxLost*len(q.prompt)
}

// park takes q back to where its prefill begins, with what the cache holds of
// it as the prompt.
func (q *sequence) park(held []int32) {
	if q.produced >= q.goal {
		q.lost, q.goal = 0, q.produced+getsOn
	}
	q.lost += q.cached - q.reused
	if q.decoding {
		q.prompt, q.parked = slices.Clone(held), true
		q.promptProbs = false // all were told
	}
	q.begun, q.decoding, q.cached, q.reused = false, false, 0, 0
}

// accept takes one sampled token and reports whether it was the last. limit is
// the context of the model.
func (q *sequence) accept(d drawn, limit int) (done bool) {
	q.produced++
	q.next, q.decoding = d.id, true
	if slices.Contains(q.ends, d.id) {
		q.end(piece{tokens: 1, prob: d.prob, finish: finishStop, stopToken: d.id})
		return true
	}
	p := piece{tokens: 1, prob: d.prob}
	found := false
	if text := q.decoder.Add(d.id); q.produced < q.sampler.minTokens {
		p.text = q.stop.skip(text)
	} else if p.text, found = q.stop.add(text); found {
		p.finish, p.stopText = finishStop, q.stop.matched
		q.put(p)
		return true
	}
	if d.last {
		p.finish, p.complete = finishStop, true
		q.end(p)
		return true
	}
	// The token just sampled will take position cached; there must be room.
	if q.produced >= q.maxTokens || q.cached+1 > limit {
		p.finish = finishLength
		q.end(p)
		return true
	}
	q.put(p)
	return false
}

// end puts the last piece, with the text that was held back.
func (q *sequence) end(p piece) {
	rest, found := q.stop.add(q.decoder.Flush())
	if p.text += rest; found {
		p.finish, p.stopText = finishStop, q.stop.matched
	} else {
		p.text += q.stop.flush()
	}
	q.put(p)
}

// promptProb reports the probability of the next prompt token, when asked for,
// once.
func (q *sequence) promptProb(logits []float32) {
	if q.promptProbs && q.cached > q.told {
		q.told = q.cached
		q.put(piece{prompt: true, prob: probability(logits, q.prompt[q.cached], q.sampler.logprobs)})
	}
}

func (q *sequence) put(p piece) {
	p.index = q.index
	q.out.put(p)
}

// piece is what one step added to a sequence.
type piece struct {
	index    int // of the choice
	text     string
	tokens   int  // sampled in this step
	admitted bool // the prefill begins; reused of the prompt's tokens come from the cache
	reused   int
	prob     *tokenProb // of the token, when asked for
	prompt   bool       // prob is of a prompt token
	finish   string     // set on the last piece
	err      error      // set on the last piece instead of finish

	stopText  string // the stop string that ended the sequence
	stopToken int32  // the token that did, when stopText is empty and it is not complete
	complete  bool   // the grammar of the output ended the sequence
}

// outbox hands the pieces of one request's sequences from the scheduler, which
// never waits, to the reader. It is bounded by the sequences' own maximum of
// tokens.
type outbox struct {
	mu     sync.Mutex
	pieces []piece
	ready  chan struct{} // holds a mark while pieces wait
}

func newOutbox() *outbox { return &outbox{ready: make(chan struct{}, 1)} }

func (o *outbox) put(p piece) {
	o.mu.Lock()
	o.pieces = append(o.pieces, p)
	o.mu.Unlock()
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// take returns all waiting pieces; spare is reused for the next ones.
func (o *outbox) take(spare []piece) []piece {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.pieces
	o.pieces = spare[:0]
	return p
}
