package onnx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/engine"
	"infer/internal/openai"
)

// letters decodes token n as the nth letter.
type letters struct{}

func (letters) Add(id int32) string { return string(rune('a' + id)) }
func (letters) Flush() string       { return "" }

const eosToken = 25

// fakeModel is a runner on the fake clock: a millisecond a prompt token, ten a
// decode step. Row i's next token is always (token+1) mod 26, so that a row
// given another row's state shows in the text.
type fakeModel struct {
	t     *testing.T
	held  [][]int32 // tokens each slot's cache holds
	steps []string  // what ran, for order
	fail  error     // returned instead of running
	fixed bool      // the cache cannot be moved, as on a device
}

func newFakeModel(t *testing.T, slots int) *fakeModel {
	return &fakeModel{t: t, held: make([][]int32, slots)}
}

func (m *fakeModel) prefill(ctx context.Context, slot int, tokens []int32, pos int) ([]float32, error) {
	m.steps = append(m.steps, fmt.Sprintf("p%d:%d+%d", slot, pos, len(tokens)))
	if m.fail != nil {
		return nil, m.fail
	}
	if pos > len(m.held[slot]) {
		m.t.Errorf("prefill of slot %d at %d, it holds %d", slot, pos, len(m.held[slot]))
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(time.Duration(len(tokens)) * time.Millisecond):
	}
	m.held[slot] = append(m.held[slot][:pos], tokens...)
	return m.after(slot), nil
}

func (m *fakeModel) decode(ctx context.Context, tokens []int32, lengths []int) ([][]float32, error) {
	m.steps = append(m.steps, fmt.Sprintf("d%d", len(tokens)))
	if m.fail != nil {
		return nil, m.fail
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(10 * time.Millisecond):
	}
	rows := make([][]float32, len(tokens))
	for i := range tokens {
		if lengths[i] > len(m.held[i]) {
			m.t.Errorf("row %d is told %d tokens, holds %d", i, lengths[i], len(m.held[i]))
		}
		m.held[i] = append(m.held[i][:lengths[i]], tokens[i])
		rows[i] = m.after(i)
	}
	return rows, nil
}

func (m *fakeModel) after(slot int) []float32 {
	logits := make([]float32, 28)
	logits[27] = 5 // padding of the output layer: no token
	logits[(m.held[slot][len(m.held[slot])-1]+1)%26] = 1
	return logits
}

func (m *fakeModel) copy(from, to, length int) bool {
	m.steps = append(m.steps, fmt.Sprintf("c%d>%d:%d", from, to, length))
	m.held[to] = append(m.held[to][:0], m.held[from][:length]...)
	return !m.fixed
}

func (m *fakeModel) swap(a, b, length int) bool {
	m.steps = append(m.steps, fmt.Sprintf("s%d<>%d", a, b))
	if !m.fixed {
		m.held[a], m.held[b] = m.held[b], m.held[a]
	}
	return !m.fixed
}

// pass lets the fake clock run.
func pass(d time.Duration) { <-time.After(d) }

// schedule runs a scheduler over a fake model inside a bubble.
func schedule(t *testing.T, slots int, f func(t *testing.T, s *scheduler, m *fakeModel)) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel(t, slots)
		s := newScheduler(m, slots, 10_000, 26, slog.New(slog.NewTextHandler(io.Discard, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.loop(ctx) }()
		f(t, s, m)
		cancel()
		if err := <-ended; err != nil && m.fail == nil {
			t.Errorf("loop() = %v", err)
		}
	})
}

// ask submits a prompt of n tokens that ends with the given one.
func ask(ctx context.Context, s *scheduler, n int, last int32, limit int) *sequence {
	q := newSequence(ctx, n, last, limit)
	s.submit(q)
	return q
}

func newSequence(ctx context.Context, n int, last int32, limit int) *sequence {
	q := &sequence{ctx: ctx, prompt: make([]int32, n), maxTokens: limit, ends: []int32{eosToken},
		sampler: newSampler(sampling{topP: 1, logprobs: -1}, 0, nil), decoder: letters{}, out: newOutbox()}
	q.prompt[n-1] = last
	return q
}

// read waits for the end of a sequence and returns its text.
func read(q *sequence) (text, finish string, err error) {
	for range q.out.ready {
		for _, p := range q.out.take(nil) {
			text += p.text
			if p.finish != "" || p.err != nil {
				return text, p.finish, p.err
			}
		}
	}
	return text, "", errors.New("outbox closed")
}

func TestSequencesJoinAndLeaveARunningBatch(t *testing.T) {
	schedule(t, 3, func(t *testing.T, s *scheduler, m *fakeModel) {
		a := ask(t.Context(), s, 5, 0, 8)
		b := ask(t.Context(), s, 5, 10, 3)
		pass(25 * time.Millisecond)
		c := ask(t.Context(), s, 5, 20, 100) // ends at the EOS token
		for _, tc := range []struct {
			q            *sequence
			text, finish string
		}{{a, "bcdefghi", finishLength}, {b, "lmn", finishLength}, {c, "vwxy", finishStop}} {
			text, finish, err := read(tc.q)
			if text != tc.text || finish != tc.finish || err != nil {
				t.Errorf("read = %q %q %v, want %q %q", text, finish, err, tc.text, tc.finish)
			}
		}
		if got := strings.Join(m.steps, " "); !strings.Contains(got, "s2<>1") || !strings.Contains(got, "d2") {
			t.Errorf("steps %s: the batch never shrank", got)
		}
	})
}

func TestMoreSequencesThanSlotsAreServedInOrder(t *testing.T) {
	schedule(t, 2, func(t *testing.T, s *scheduler, _ *fakeModel) {
		var all []*sequence
		for i := range int32(9) {
			all = append(all, ask(t.Context(), s, 3, i, 4))
		}
		for i, q := range all {
			want := ""
			for j := range 4 {
				want += string(rune('a' + i + j + 1))
			}
			if text, _, err := read(q); text != want || err != nil {
				t.Errorf("sequence %d = %q, %v, want %q", i, text, err, want)
			}
		}
	})
}

func TestLongPromptDoesNotStopRunningStreams(t *testing.T) {
	schedule(t, 2, func(t *testing.T, s *scheduler, _ *fakeModel) {
		stream := ask(t.Context(), s, 1, 0, 15)
		pass(5 * time.Millisecond)
		long := ask(t.Context(), s, 600, 0, 1)
		// A token costs a step of 10 ms and a chunk of 64 ms, never the prompt.
		for n := 0; n < 10; {
			began := time.Now()
			<-stream.out.ready
			n += len(stream.out.take(nil))
			if gap := time.Since(began); gap > 80*time.Millisecond {
				t.Errorf("token %d came after %v beside a long prompt", n, gap)
			}
		}
		if _, finish, err := read(long); finish != finishLength || err != nil {
			t.Errorf("long prompt: %q, %v", finish, err)
		}
	})
}

func TestPromptsShareThePrefill(t *testing.T) {
	schedule(t, 3, func(t *testing.T, s *scheduler, _ *fakeModel) {
		long := ask(t.Context(), s, 4000, 0, 1)
		pass(time.Millisecond)
		began := time.Now()
		short := ask(t.Context(), s, 50, 0, 1)
		if _, _, err := read(short); err != nil {
			t.Fatal(err)
		}
		// The chunk that ran, one of the long prompt, its own.
		if d := time.Since(began); d > 700*time.Millisecond {
			t.Errorf("a short prompt waited %v for a long one", d)
		}
		// Short prompts without a pause take at most half of the time.
		var others sync.WaitGroup
		for c := range 2 {
			others.Go(func() {
				for i := range 100 {
					turn(t, s, fmt.Sprint(c, i), tokens(0, 120), 1)
				}
			})
		}
		if _, _, err := read(long); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > 9*time.Second {
			t.Errorf("the long prompt of 4 s took %v beside short ones", d)
		}
		others.Wait()
	})
}

func TestALeaverFreesItsSlotWithinOneStep(t *testing.T) {
	for name, wait := range map[string]time.Duration{"in prefill": 20 * time.Millisecond, "in decode": 600 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			schedule(t, 1, func(t *testing.T, s *scheduler, m *fakeModel) {
				ctx, cancel := context.WithCancel(t.Context())
				ask(ctx, s, 500, 0, 1000)
				queued, leave := context.WithCancel(t.Context())
				ask(queued, s, 100, 0, 10)
				next := ask(t.Context(), s, 1, 0, 1)
				pass(wait)
				leave()
				cancel()
				began := time.Now()
				if _, _, err := read(next); err != nil {
					t.Fatal(err)
				}
				// At most one decode step until the leave is seen, then one token.
				if d := time.Since(began); d > 12*time.Millisecond {
					t.Errorf("the next sequence waited %v", d)
				}
				for _, step := range m.steps {
					if strings.HasSuffix(step, "+100") {
						t.Errorf("a sequence that left in the queue ran: %v", m.steps)
					}
				}
			})
		})
	}
}

func TestStopEndsWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel(t, 1)
		s := newScheduler(m, 1, 10_000, 26, slog.New(slog.NewTextHandler(io.Discard, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.loop(ctx) }()
		running, queued := ask(t.Context(), s, 5000, 0, 5), ask(t.Context(), s, 1, 0, 5)
		pass(100 * time.Millisecond)
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("loop() = %v", err)
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("stopping took %v in the middle of a prefill", d)
		}
		for _, q := range []*sequence{running, queued, ask(t.Context(), s, 1, 0, 5)} {
			if _, _, err := read(q); !errors.Is(err, errStopped) {
				t.Errorf("read = %v, want errStopped", err)
			}
		}
	})
}

func TestBrokenRunsFailTheirSequencesThenTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel(t, 2)
		m.fail = errors.New("cuda error 700")
		s := newScheduler(m, 2, 100, 26, slog.New(slog.NewTextHandler(io.Discard, nil)))
		ended := make(chan error)
		go func() { ended <- s.loop(t.Context()) }()
		for range maxFaults {
			if _, _, err := read(ask(t.Context(), s, 3, 0, 5)); !errors.Is(err, errRun) {
				t.Errorf("read = %v, want errRun", err)
			}
		}
		f, ok := errors.AsType[*engine.Failure](<-ended)
		if !ok || f.Cause != engine.CauseEngineFault || !f.Retryable {
			t.Errorf("loop() = %+v, want a retryable engine fault", f)
		}
	})
}

// bomb is a decoder with a fault.
type bomb struct{ letters }

func (bomb) Add(int32) string { panic("boom") }

// What panics over one row, in any worker, ends that row alone.
func TestPanicOverOneSequenceEndsItAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := newScheduler(newFakeModel(t, 6), 6, 10_000, 26, slog.New(slog.NewTextHandler(&log, nil)))
		s.scratch = []*scratch{{}, {}, {}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.loop(ctx) }()
		for range 2 { // the slots are of use again
			var broken, whole []*sequence
			for i := range 3 {
				q := newSequence(t.Context(), 3, 0, 20)
				q.sampler.guide, q.index = &guide{after: -1}, i // without a grammar
				switch i {
				case 1:
					q.sampler.guide, q.decoder = nil, bomb{}
				case 2:
					q.sampler, q.promptProbs = nil, true
				}
				s.submit(q)
				broken = append(broken, q)
				whole = append(whole, ask(t.Context(), s, 3, 0, 20))
			}
			for _, q := range broken {
				if text, _, err := read(q); text != "" || !errors.Is(err, errSampling) {
					t.Errorf("broken sequence %d: %q, %v, want errSampling", q.index, text, err)
				}
			}
			for i, q := range whole {
				if text, finish, err := read(q); text != "bcdefghijklmnopqrstu" || finish != finishLength || err != nil {
					t.Errorf("sequence %d beside them: %q, %q, %v", i, text, finish, err)
				}
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("loop() = %v", err)
		}
		if got := log.String(); strings.Count(got, "panic=") != 6 || !strings.Contains(got, "boom") || !strings.Contains(got, "scheduler_test.go") {
			t.Errorf("the log has no panics with their stacks: %s", got)
		}
	})
	if e := wireError(errSampling); e.Status != http.StatusInternalServerError || e.Code != openai.CodeInternal {
		t.Errorf("on the wire: %+v", e)
	}
}

// What ended a sequence is told where the client could not know it.
func TestStopReason(t *testing.T) {
	config := &genaiConfig{}
	config.Model.EOS = []int32{eosToken}
	j := &job{live: &live{config: config}}
	for _, tt := range []struct {
		name  string
		d     drawn
		stops []string
		want  any
	}{
		{"a grammar", drawn{id: 3, last: true}, nil, nil},
		{"a stop string where a grammar ends", drawn{id: 3, last: true}, []string{"d"}, "d"},
		{"the model", drawn{id: eosToken}, nil, nil},
		{"a token of the client's", drawn{id: 0}, nil, int32(0)},
	} {
		q := newSequence(t.Context(), 1, 0, 5)
		q.ends, q.stop.stops = append(q.ends, 0), tt.stops
		if done := q.accept(tt.d, 100); !done {
			t.Errorf("%s did not end the sequence", tt.name)
		}
		p := q.out.take(nil)[0]
		if got := p.stopReason(j); p.finish != finishStop || got != tt.want {
			t.Errorf("%s: finish %q, stop reason %v, want %v", tt.name, p.finish, got, tt.want)
		}
	}
}

func TestContextEndsASequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeModel(t, 1)
		s := newScheduler(m, 1, 10, 26, slog.New(slog.NewTextHandler(io.Discard, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.loop(ctx) }()
		text, finish, err := read(ask(t.Context(), s, 7, 0, 1000))
		// Positions 7, 8 and 9 take three tokens; a fourth was sampled after them.
		if text != "bcde" || finish != finishLength || err != nil {
			t.Errorf("read = %q %q %v", text, finish, err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("loop() = %v", err)
		}
	})
}
