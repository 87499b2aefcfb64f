package encoder

import (
	"context"
	"slices"
	"sort"

	"infer/internal/engine/onnx/tokenizer"
)

// call is one call of Vectors. After submit, only the goroutine of Run touches
// it, until done is closed.
type call struct {
	ctx     context.Context
	inputs  []tokenizer.Framed
	pending []int // inputs that have not run, the longest first
	tokens  int   // of pending
	running int   // inputs in the batch of now
	out     [][]float32
	err     error
	done    chan struct{}
}

func newCall(ctx context.Context, inputs []tokenizer.Framed) *call {
	c := &call{ctx: ctx, inputs: inputs, out: make([][]float32, len(inputs)), done: make(chan struct{})}
	for i := range inputs {
		c.pending = append(c.pending, i)
		c.tokens += len(inputs[i].IDs)
	}
	slices.SortStableFunc(c.pending, func(a, b int) int { return len(inputs[b].IDs) - len(inputs[a].IDs) })
	return c
}

func (c *call) length(at int) int { return len(c.inputs[c.pending[at]].IDs) }

// item is one input of a batch.
type item struct {
	call  *call
	input int
}

// queue holds the calls that have inputs left. The first has its turn.
type queue struct {
	calls []*call
	limit int
}

func (q *queue) add(c *call) error {
	n := c.tokens
	for _, other := range q.calls {
		n += other.tokens
	}
	if n > q.limit && len(q.calls) > 0 {
		return ErrBusy
	}
	q.calls = append(q.calls, c)
	return nil
}

// next takes the next batch: the longest input of the call whose turn it is,
// then of all calls what is about as long, as far as the padded batch stays
// within tokens. Callers that left are dropped.
func (q *queue) next(tokens int) []item {
	q.calls = slices.DeleteFunc(q.calls, func(c *call) bool { return c.ctx.Err() != nil })
	if len(q.calls) == 0 {
		return nil
	}
	width := q.calls[0].length(0)
	room := max(tokens/width, 1)
	var batch []item
	for _, c := range q.calls {
		if batch = c.take(batch, width, room); len(batch) == room {
			break
		}
	}
	q.calls = append(q.calls[1:], q.calls[0])
	q.calls = slices.DeleteFunc(q.calls, func(c *call) bool { return len(c.pending) == 0 })
	return batch
}

// slack is how much shorter than its batch an input may be: padding is
// computed like any other token.
func slack(width int) int { return max(width/4, 8) }

// take moves what fits from c to batch.
func (c *call) take(batch []item, width, room int) []item {
	from := sort.Search(len(c.pending), func(i int) bool { return c.length(i) <= width })
	to := from
	for to < len(c.pending) && len(batch) < room && c.length(to) >= width-slack(width) {
		batch = append(batch, item{c, c.pending[to]})
		c.tokens -= c.length(to)
		c.running++
		to++
	}
	c.pending = slices.Delete(c.pending, from, to)
	return batch
}

func (q *queue) remove(c *call) {
	q.calls = slices.DeleteFunc(q.calls, func(other *call) bool { return other == c })
}
