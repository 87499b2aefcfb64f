package onnx

// slot is one row of the KV cache: who uses it, and what it holds. What it
// holds stays after its sequence ended, so that a prompt that begins alike
// need not be computed again.
type slot struct {
	seq    *sequence // nil is free
	held   []int32   // tokens whose keys and values are in the cache
	caller string    // whose tokens they are
	used   int       // scheduler.clock when a sequence last left
}

// minReuse is how many tokens a copy from another slot must save.
const minReuse = 16

// common is how many of prompt's tokens c holds that caller may have. The last
// token of a prompt is always computed: its logits are wanted.
func (c *slot) common(prompt []int32, caller string) int {
	if c.caller != caller {
		return 0
	}
	n := min(len(c.held), len(prompt)-1)
	for i := range n {
		if c.held[i] != prompt[i] {
			return i
		}
	}
	return n
}

// place chooses a free slot for q, or returns -1. A slot that holds little but
// the beginning of q's prompt is continued; otherwise the slot that was left
// longest ago is given away, and the beginning is copied when q's turn comes.
func (s *scheduler) place(q *sequence) int {
	best, oldest := -1, -1
	most := 0
	for i := range s.slots {
		c := &s.slots[i]
		if c.seq != nil {
			continue
		}
		if n := c.common(q.prompt, q.caller); n > most && 2*n >= len(c.held) {
			best, most = i, n
		}
		if oldest < 0 || c.used < s.slots[oldest].used {
			oldest = i
		}
	}
	if best >= 0 {
		return best
	}
	return oldest
}

// recall begins the prefill of a slot's sequence with the longest beginning of
// its prompt that any slot of the same caller holds.
func (s *scheduler) recall(slot int) {
	c := &s.slots[slot]
	q := c.seq
	q.begun = true
	prompt := q.prompt
	if q.promptProbs {
		prompt = prompt[:q.told+1] // from there on the logits of each are wanted
	}
	own := c.common(prompt, q.caller)
	from, most := -1, own+minReuse-1
	for i := range s.slots {
		if n := s.slots[i].common(prompt, q.caller); i != slot && n > most {
			from, most = i, n
		}
	}
	if from >= 0 && s.run.copy(from, slot, most) {
		own = most
	}
	c.held, c.caller = append(c.held[:0], q.prompt[:own]...), q.caller
	q.cached, q.reused = own, own
	if !q.admitted {
		q.admitted = true
		q.put(piece{admitted: true, reused: own})
	}
}

// release frees a slot and keeps what it holds.
func (s *scheduler) release(slot int) {
	s.clock++
	c := &s.slots[slot]
	c.seq, c.used = nil, s.clock
	c.held = c.held[:min(len(c.held), s.context-1)] // an idle row writes behind them
}
