package encoder

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"infer/internal/engine/onnx/tokenizer"
)

// texts makes inputs of the given lengths.
func texts(lengths ...int) []tokenizer.Framed {
	var list []tokenizer.Framed
	for _, n := range lengths {
		list = append(list, tokenizer.Framed{IDs: make([]int32, n), Types: make([]int32, n)})
	}
	return list
}

// drain spells the batches that a queue gives: name and length of each input.
func drain(q *queue, names map[*call]string, tokens int) string {
	var batches []string
	for batch := q.next(tokens); len(batch) > 0; batch = q.next(tokens) {
		var items []string
		for _, it := range batch {
			items = append(items, fmt.Sprintf("%s%d", names[it.call], len(it.call.inputs[it.input].IDs)))
		}
		batches = append(batches, strings.Join(items, " "))
	}
	return strings.Join(batches, " | ")
}

func TestBatches(t *testing.T) {
	for _, tt := range []struct {
		calls [][]int
		want  string
	}{
		{[][]int{{5}}, "a5"},
		{[][]int{{5, 100, 90, 40}}, "a100 a90 | a40 | a5"}, // alike only
		{[][]int{{100, 100, 100}}, "a100 a100 | a100"},     // within 250 tokens
		{[][]int{{400, 8}}, "a400 | a8"},                   // one over the bound runs alone
		{[][]int{{100}, {80, 30}, {101}}, "a100 b80 | b30 | c101"},
		{[][]int{{100, 100, 100, 100, 100}, {10}}, "a100 a100 | b10 | a100 a100 | a100"}, // turns
		{[][]int{{10}, {12, 3}, {11}}, "a10 b3 | b12 c11"},
	} {
		q := &queue{limit: 1 << 20}
		names := map[*call]string{}
		for i, lengths := range tt.calls {
			c := newCall(context.Background(), texts(lengths...))
			names[c] = string(rune('a' + i))
			if err := q.add(c); err != nil {
				t.Fatal(err)
			}
		}
		if got := drain(q, names, 250); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.calls, got, tt.want)
		}
	}
}

func TestQueueDropsThoseWhoLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	q := &queue{limit: 1 << 20}
	gone, here := newCall(ctx, texts(9, 9)), newCall(context.Background(), texts(9))
	for _, c := range []*call{gone, here} {
		if err := q.add(c); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if got := drain(q, map[*call]string{gone: "gone", here: "here"}, 100); got != "here9" {
		t.Errorf("ran %q", got)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := &queue{limit: 100}
	for i, tt := range []struct {
		n    int
		want error
	}{{150, nil}, {1, ErrBusy}} { // one over the bound is taken when nothing waits
		if err := q.add(newCall(context.Background(), texts(tt.n))); !errors.Is(err, tt.want) {
			t.Errorf("call %d: %v, want %v", i, err, tt.want)
		}
	}
	q.next(1000)
	if err := q.add(newCall(context.Background(), texts(40, 40))); err != nil {
		t.Fatal(err)
	}
	q.next(40) // the half of it runs
	if err := q.add(newCall(context.Background(), texts(60))); err != nil {
		t.Errorf("60 beside 40 that wait: %v", err)
	}
	q.calls = nil
	for _, tt := range []struct {
		n    int
		want error
	}{{60, nil}, {60, ErrBusy}, {40, nil}} {
		if err := q.add(newCall(context.Background(), texts(tt.n))); !errors.Is(err, tt.want) {
			t.Errorf("%d more: %v, want %v", tt.n, err, tt.want)
		}
	}
}

// A run ends when nobody waits for it any more, and not before.
func TestRunEndsWithTheLastWhoWaits(t *testing.T) {
	first, leaveFirst := context.WithCancel(context.Background())
	second, leaveSecond := context.WithCancel(context.Background())
	a, b := newCall(first, texts(1, 1)), newCall(second, texts(1))
	ctx, free := whileAnyWaits(context.Background(), []item{{a, 0}, {a, 1}, {b, 0}})
	defer free()
	leaveFirst()
	if err := ctx.Err(); err != nil {
		t.Errorf("one left: %v", err)
	}
	leaveSecond()
	<-ctx.Done()
}
