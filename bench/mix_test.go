package main

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// fakeBatcher takes a second for each token, and says what it computed.
type fakeBatcher struct {
	now     time.Time
	batches []string
	fail    bool
}

func (f *fakeBatcher) clear(int) error { return nil }

func (f *fakeBatcher) compute(batch []entry) ([]int32, error) {
	if f.fail {
		return nil, errors.New("no memory")
	}
	f.now = f.now.Add(time.Duration(len(batch)) * time.Second)
	var next []int32
	text := ""
	for _, e := range batch {
		text += fmt.Sprintf(" %d@%d:%d", e.slot, e.position, e.token)
		if e.wanted {
			text += "!"
			next = append(next, int32(100*e.slot+e.position))
		}
	}
	f.batches = append(f.batches, text[1:])
	return next, nil
}

func TestPlayBatchesContinuously(t *testing.T) {
	f := &fakeBatcher{now: time.Unix(0, 0)}
	m := mix{Streams: [][]int32{{7}}, Long: []int32{1, 2, 3, 4}, Shorts: [][]int32{{5, 6}}, Answer: 2, Every: 2 * time.Second}
	got, err := play(m, f, 3, func() time.Time { return f.now })
	if err != nil {
		t.Fatal(err)
	}
	// A batch holds three tokens. The short request, in slot 2, comes two seconds
	// after the long one, in slot 1, and gets what that leaves of a batch.
	want := []string{
		"0@0:7!",
		"0@1:0! 1@0:1 1@1:2",
		"0@2:1! 1@2:3 1@3:4!",
		"0@3:2! 2@0:5 2@1:6!",
		"0@4:3! 2@2:201!",
	}
	if fmt.Sprint(f.batches) != fmt.Sprint(want) {
		t.Errorf("batches\n%q, want\n%q", f.batches, want)
	}
	if got, want := fmt.Sprint(got), "{[7] [3 3 3 2] 6}"; got != want {
		t.Errorf("times %s, want %s", got, want)
	}
}

func TestPlayHoldsBackWhatHasNotCome(t *testing.T) {
	f := &fakeBatcher{now: time.Unix(0, 0)}
	m := mix{Streams: [][]int32{{7}}, Long: []int32{1}, Shorts: [][]int32{{5}}, Answer: 1, Every: 5 * time.Second}
	got, err := play(m, f, 8, func() time.Time { return f.now })
	if err != nil {
		t.Fatal(err)
	}
	if len(f.batches) != 6 || got.Long != 2 || got.TTFT[0] != 2 {
		t.Errorf("batches %q, times %v: want the short request in the sixth batch, after its arrival", f.batches, got)
	}
}

func TestPlayPassesFaultsOn(t *testing.T) {
	f := &fakeBatcher{fail: true}
	if _, err := play(mix{Streams: [][]int32{{7}}}, f, 8, time.Now); err == nil {
		t.Error("a broken batcher played to the end")
	}
}
