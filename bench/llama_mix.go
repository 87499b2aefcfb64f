package main

import (
	"fmt"
	"time"

	"github.com/hybridgroup/yzma/pkg/llama"
)

// mix plays m on the first slots.
func (l *llamaCPP) mix(m mix) (mixTimes, error) {
	if m.slots() > len(l.next) {
		return mixTimes{}, fmt.Errorf("%d sequences, there are %d slots", m.slots(), len(l.next))
	}
	times, err := play(m, l, maxBatch, time.Now)
	for slot := range l.next { // the next order finds them empty
		if err := l.clear(slot); err != nil {
			return times, fmt.Errorf("clear slot: %w", err)
		}
	}
	return times, err
}

func (l *llamaCPP) clear(slot int) error {
	_, err := llama.MemorySeqRm(l.memory, llama.SeqId(slot), -1, -1)
	return err
}

func (l *llamaCPP) compute(batch []entry) ([]int32, error) {
	if err := l.batch.Clear(); err != nil {
		return nil, err
	}
	for _, e := range batch {
		if err := l.batch.Add(llama.Token(e.token), llama.Pos(e.position), []llama.SeqId{llama.SeqId(e.slot)}, e.wanted); err != nil {
			return nil, fmt.Errorf("fill batch: %w", err)
		}
	}
	if code, err := llama.Decode(l.ctx, l.batch); err != nil || code != 0 {
		return nil, fmt.Errorf("llama_decode returned %d: %v", code, err)
	}
	var next []int32
	for i, e := range batch {
		if !e.wanted {
			continue
		}
		logits, err := llama.GetLogitsIth(l.ctx, int32(i), l.vocab)
		if err != nil || logits == nil {
			return nil, fmt.Errorf("llama.cpp has no logits for token %d of a batch: %v", i, err)
		}
		next = append(next, int32(argmax(logits)))
	}
	return next, nil
}
