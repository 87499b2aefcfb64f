package main

import (
	"fmt"
	"slices"
	"time"
)

// mix is a scenario: while streams decode, a long prompt comes, and after it
// short requests at fixed intervals, however busy the engine is.
type mix struct {
	Streams [][]int32     `json:"streams"`
	Long    []int32       `json:"long"`
	Shorts  [][]int32     `json:"shorts"`
	Answer  int           `json:"answer"` // tokens of a short request
	Every   time.Duration `json:"every"`  // between the arrivals of two short requests
}

// slots is how many sequences may run at once.
func (m mix) slots() int { return len(m.Streams) + 1 + len(m.Shorts) }

// mixTimes are what the clients of a mix see, in seconds, from the arrival of
// the long prompt to the end of the last request but the streams.
type mixTimes struct {
	TTFT []float64 `json:"ttft"` // of the short requests
	ITL  []float64 `json:"itl"`  // of the streams
	Long float64   `json:"long"` // TTFT of the long prompt
}

// entry is one token of a batch. Wanted says that the logits after it matter.
type entry struct {
	slot, position int
	token          int32
	wanted         bool
}

// batcher computes one batch and returns the greedy next token of each wanted
// entry, in their order.
type batcher interface {
	compute(batch []entry) ([]int32, error)
	clear(slot int) error
}

// sequence is one request of a mix on its way.
type sequence struct {
	slot    int
	prompt  []int32
	limit   int // tokens of the answer; 0 is no limit
	arrives time.Time
	done    int // tokens in the KV cache
	got     int // tokens of the answer
	next    int32
	last    time.Time // arrival of the last token
}

func (q *sequence) ended() bool { return q.limit > 0 && q.got == q.limit }

// batching schedules as llama.cpp's own server does: each batch has the next
// token of all sequences that decode, and is filled up with prompts in the order
// of their arrival.
type batching struct {
	batcher
	size int // tokens of a batch
	now  func() time.Time
	seqs []*sequence
}

// add makes a sequence that starts over in the next slot.
func (b *batching) add(prompt []int32, limit int, arrives time.Time) (*sequence, error) {
	q := &sequence{slot: len(b.seqs), prompt: prompt, limit: limit, arrives: arrives}
	b.seqs = append(b.seqs, q)
	if err := b.clear(q.slot); err != nil {
		return nil, fmt.Errorf("clear slot: %w", err)
	}
	return q, nil
}

// step computes one batch and calls token for each sequence that got one.
func (b *batching) step(token func(q *sequence)) error {
	var batch []entry
	var wanted []*sequence
	for _, q := range b.seqs {
		if q.got > 0 && !q.ended() {
			batch = append(batch, entry{q.slot, q.done, q.next, true})
			wanted = append(wanted, q)
			q.done++
		}
	}
	now := b.now()
	for _, q := range b.seqs {
		if q.got > 0 || q.arrives.After(now) {
			continue
		}
		for q.done < len(q.prompt) && len(batch) < b.size {
			last := q.done == len(q.prompt)-1
			batch = append(batch, entry{q.slot, q.done, q.prompt[q.done], last})
			if last {
				wanted = append(wanted, q)
			}
			q.done++
		}
	}
	next, err := b.compute(batch)
	if err != nil {
		return err
	}
	now = b.now()
	for i, q := range wanted {
		q.next = next[i]
		q.got++
		token(q)
		q.last = now
	}
	return nil
}

// play runs m on a batcher.
func play(m mix, on batcher, size int, now func() time.Time) (mixTimes, error) {
	var times mixTimes
	b := &batching{batcher: on, size: size, now: now}
	for _, prompt := range m.Streams {
		if _, err := b.add(prompt, 0, now()); err != nil {
			return times, err
		}
	}
	streams := slices.Clone(b.seqs)
	for slices.ContainsFunc(streams, func(q *sequence) bool { return q.got == 0 }) {
		if err := b.step(func(*sequence) {}); err != nil {
			return times, err
		}
	}
	began := now()
	long, err := b.add(m.Long, 1, began)
	if err != nil {
		return times, err
	}
	for i, prompt := range m.Shorts {
		if _, err := b.add(prompt, m.Answer, began.Add(time.Duration(i+1)*m.Every)); err != nil {
			return times, err
		}
	}
	rest := b.seqs[len(streams):]
	for slices.ContainsFunc(rest, func(q *sequence) bool { return !q.ended() }) {
		err := b.step(func(q *sequence) {
			at := now()
			switch {
			case q.slot < len(streams):
				times.ITL = append(times.ITL, at.Sub(q.last).Seconds())
			case q == long:
				times.Long = at.Sub(began).Seconds()
			case q.got == 1:
				times.TTFT = append(times.TTFT, at.Sub(q.arrives).Seconds())
			}
		})
		if err != nil {
			return times, err
		}
	}
	return times, nil
}
