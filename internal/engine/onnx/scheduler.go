package onnx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"infer/internal/engine"
)

// Prompts are prefilled in chunks, so that running streams wait for a small
// chunk only, and a request that leaves is noticed between two.
const (
	chunkAlone  = 512 // nobody else runs: fewer, larger products are faster
	chunkPeers  = 128 // other prompts wait
	chunkShared = 64  // somebody decodes: a chunk is an ITL of about four steps
)

func chunk(decoding, only bool) int {
	switch {
	case decoding:
		return chunkShared
	case only:
		return chunkAlone
	}
	return chunkPeers
}

// maxFaults is how many runs in a row may break before the engine gives up.
const maxFaults = 3

// runner is the model as the scheduler sees it; see model.
type runner interface {
	prefill(ctx context.Context, slot int, tokens []int32, pos int) ([]float32, error)
	decode(ctx context.Context, tokens []int32, lengths []int) ([][]float32, error)
	copy(from, to, length int) bool
	swap(a, b, length int) bool
}

// scheduler runs sequences on the slots of a model. loop is the one goroutine
// that touches the runner and the slots; submit may be called by any.
type scheduler struct {
	run     runner
	context int
	vocab   int // ids from here on exist in the output layer only
	log     *slog.Logger
	slots   []slot     // those that decode lie low
	scratch []*scratch // one for each row that is sampled at once
	faults  int        // runs that broke in a row
	clock   int        // counts uses of slots
	turn    bool       // whose chunk it is; see nextPrefill

	sleepAfter time.Duration // idle for so long, loop asks retire and ends; 0 means never
	retire     func() bool   // false when a request still uses the model

	mu        sync.Mutex
	queue     []*sequence
	number    int // of the last sequence
	urgent    bool
	interrupt context.CancelCauseFunc // of a run that may be done again; else nil
	yields    int                     // runs in a row that were broken off
	stopped   bool
	wake      chan struct{}
}

func newScheduler(r runner, slots, context, vocab int, log *slog.Logger) *scheduler {
	s := &scheduler{run: r, context: context, vocab: vocab, log: log, slots: make([]slot, slots), wake: make(chan struct{}, 1)}
	for range min(slots, runtime.GOMAXPROCS(0)) {
		s.scratch = append(s.scratch, &scratch{})
	}
	return s
}

// submit queues q; its outbox gets what follows. A sequence whose context ends
// is dropped without another piece.
func (s *scheduler) submit(q *sequence) {
	s.mu.Lock()
	stopped := s.stopped
	if !stopped {
		s.number++
		q.number = s.number
		s.queue = append(s.queue, q)
		s.hurry(q)
	}
	s.mu.Unlock()
	if stopped {
		q.put(piece{err: errStopped})
		return
	}
	s.nudge()
}

func (s *scheduler) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// loop schedules until ctx ends, then fails what is left. It returns a
// *engine.Failure when the model cannot go on.
func (s *scheduler) loop(ctx context.Context) error {
	defer s.shut()
	stop := context.AfterFunc(ctx, s.nudge)
	defer stop()
	for ctx.Err() == nil {
		s.admit()
		if s.idle() {
			if s.rest() {
				return errIdle
			}
			continue
		}
		s.step(ctx)
		if s.faults >= maxFaults {
			return &engine.Failure{Cause: engine.CauseEngineFault, Retryable: true,
				Message: fmt.Sprintf("%d model runs in a row broke off", s.faults),
				Remedy:  "see the log for ONNX Runtime's own message; restart the container"}
		}
	}
	return nil
}

// rest waits for work, and reports true when none came for sleepAfter and
// nobody uses the model.
func (s *scheduler) rest() bool {
	if s.sleepAfter == 0 {
		<-s.wake
		return false
	}
	t := time.NewTimer(s.sleepAfter)
	defer t.Stop()
	select {
	case <-s.wake:
		return false
	case <-t.C:
		return s.retire()
	}
}

// admit frees the slots of those who left and fills free ones: batch work after
// all other, each in the order of arrival. Batch work gives its slot away to
// other work that finds none.
func (s *scheduler) admit() {
	for i := range s.slots {
		if q := s.slots[i].seq; q != nil && q.ctx.Err() != nil {
			s.release(i)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(q *sequence) bool { return q.ctx.Err() != nil })
	s.urgent = false
	for len(s.queue) > 0 {
		next := slices.MinFunc(s.queue, before)
		i := s.place(next)
		if i < 0 && !next.batch {
			i = s.park()
		}
		if i < 0 {
			return
		}
		s.slots[i].seq = next
		s.queue = slices.DeleteFunc(s.queue, func(q *sequence) bool { return q == next })
	}
}

func (s *scheduler) idle() bool {
	return !slices.ContainsFunc(s.slots, func(c slot) bool { return c.seq != nil })
}

// step runs at most one prefill chunk and one decode step.
func (s *scheduler) step(ctx context.Context) {
	waited := s.waited()
	rows := s.compact(waited)
	if slot, only := s.nextPrefill(waited); slot >= 0 {
		s.prefill(ctx, slot, chunk(rows > 0, only))
	}
	if rows > 0 {
		s.decode(rows)
	}
}

// nextPrefill is the slot whose prompt gets the next chunk, or -1, and whether
// it is the only one. Chunks go in turn to the prompt with the least left, so
// that a short one does not wait for a long one, and to the one that came
// first, so that a long one is never starved by short ones. While somebody
// waits for one, prompts of batch work get none.
func (s *scheduler) nextPrefill(waited bool) (slot int, only bool) {
	first, least, n := -1, -1, 0
	for i, c := range s.slots {
		if c.seq == nil || c.seq.decoding || waited && c.seq.batch {
			continue
		}
		n++
		if first < 0 || c.seq.number < s.slots[first].seq.number {
			first = i
		}
		if least < 0 || c.seq.left() < s.slots[least].seq.left() {
			least = i
		}
	}
	if s.turn = !s.turn; s.turn {
		return least, n == 1
	}
	return first, n == 1
}

func (s *scheduler) prefill(ctx context.Context, slot, n int) {
	q := s.slots[slot].seq
	if !q.begun {
		s.recall(slot)
	}
	if q.batch {
		n = s.shorter(n)
	}
	n = min(n, len(q.prompt)-q.cached)
	if q.promptProbs {
		n = min(n, max(1, q.told+1-q.cached)) // the logits of a run are those of its last token
	}
	run, done := s.interruptible(q.ctx, q.batch)
	stop := context.AfterFunc(ctx, func() { done(errStopped) })
	logits, err := s.run.prefill(run, slot, q.prompt[q.cached:q.cached+n], q.cached)
	stop()
	done(err)
	switch {
	case q.ctx.Err() != nil || ctx.Err() != nil:
		return // admit or shut ends it
	case errors.Is(err, errYield):
		return
	case err != nil:
		s.broke(err)
		s.end(slot, errRun)
		return
	}
	s.faults = 0
	s.slots[slot].held = append(s.slots[slot].held, q.prompt[q.cached:q.cached+n]...)
	if q.cached += n; q.cached < len(q.prompt) {
		if err := s.guarded(func() error { q.promptProb(logits); return nil }); err != nil {
			s.end(slot, err)
		}
		return
	}
	if q.parked {
		q.parked, q.decoding = false, true // what follows was sampled before
		return
	}
	if q.maxTokens == 0 { // only the prompt was wanted
		q.put(piece{finish: finishLength})
		s.release(slot)
		return
	}
	s.sample([]int{slot}, [][]float32{logits})
}

// compact swaps decoding sequences from high slots into free low ones, so that
// the batch has no idle rows, and returns how many rows it spans. While
// somebody waits for a prompt, rows of batch work do not make it longer.
func (s *scheduler) compact(waited bool) int {
	rows := len(s.slots)
	for ; rows > 0; rows-- {
		high := &s.slots[rows-1]
		if high.seq == nil || !high.seq.decoding || waited && high.seq.batch {
			continue
		}
		free := slices.IndexFunc(s.slots[:rows-1], func(c slot) bool { return c.seq == nil })
		if free < 0 || !s.run.swap(rows-1, free, max(len(high.held), len(s.slots[free].held))) {
			break
		}
		*high, s.slots[free] = s.slots[free], *high
	}
	return rows
}

func (s *scheduler) decode(rows int) {
	tokens, lengths := make([]int32, rows), make([]int, rows)
	batch := true
	for i, c := range s.slots[:rows] {
		// An idle row writes behind what it holds, which must stay inside.
		lengths[i] = min(len(c.held), s.context-1)
		if c.seq != nil && c.seq.decoding {
			tokens[i] = c.seq.next
			batch = batch && c.seq.batch
		}
	}
	run, done := s.interruptible(context.Background(), batch)
	logits, err := s.run.decode(run, tokens, lengths)
	done(err)
	if errors.Is(err, errYield) {
		return
	}
	if err != nil {
		s.broke(err)
		for i, c := range s.slots[:rows] {
			if c.seq != nil && c.seq.decoding {
				s.end(i, errRun)
			}
		}
		return
	}
	s.faults = 0
	var slots []int
	var live [][]float32
	for i := range s.slots[:rows] {
		if q := s.slots[i].seq; q != nil && q.decoding && q.ctx.Err() == nil {
			s.slots[i].held = append(s.slots[i].held, q.next)
			q.cached++
			slots, live = append(slots, i), append(live, logits[i])
		}
	}
	s.sample(slots, live)
}

// sample draws the next token of each of slots from its logits and frees the
// slots after their last. Rows are drawn side by side, since the threads of
// the model are idle meanwhile.
func (s *scheduler) sample(slots []int, logits [][]float32) {
	tokens, errs := make([]drawn, len(slots)), make([]error, len(slots))
	workers := min(len(slots), len(s.scratch))
	work := func(w int) {
		for i := w; i < len(slots); i += workers {
			errs[i] = s.guarded(func() error {
				var ok bool
				tokens[i], ok = s.slots[slots[i]].seq.sampler.pick(logits[i][:min(s.vocab, len(logits[i]))], s.scratch[w])
				if !ok {
					return errNumbers
				}
				return nil
			})
		}
	}
	var wg sync.WaitGroup
	for w := 1; w < workers; w++ {
		wg.Go(func() { work(w) })
	}
	if workers > 0 {
		work(0)
	}
	wg.Wait()
	for i, slot := range slots {
		last, err := false, errs[i]
		if err == nil {
			err = s.guarded(func() error {
				last = s.slots[slot].seq.accept(tokens[i], s.context)
				return nil
			})
		}
		if err != nil {
			s.end(slot, err)
		} else if last {
			s.release(slot)
		}
	}
}

// guarded runs f, which touches one sequence and its worker's scratch alone, and
// turns its panic into errSampling: what one request provokes ends that request,
// not the process with all others.
func (s *scheduler) guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic while a token was chosen", "panic", p, "stack", string(debug.Stack()))
			err = errSampling
		}
	}()
	return f()
}

// broke counts and logs a run that failed.
func (s *scheduler) broke(err error) {
	s.faults++
	s.log.Error("model run broke off", "err", err, "in_a_row", s.faults)
}

func (s *scheduler) end(slot int, err error) {
	s.slots[slot].seq.put(piece{err: err})
	s.release(slot)
}

// shut ends everything that is left, and refuses what comes.
func (s *scheduler) shut() {
	s.mu.Lock()
	queue := s.queue
	s.queue, s.stopped = nil, true
	s.mu.Unlock()
	for _, q := range queue {
		q.put(piece{err: errStopped})
	}
	for i, c := range s.slots {
		if c.seq != nil {
			s.end(i, errStopped)
		}
	}
}

// warm runs a prefill and a decode step, so that the first request finds the
// graph's memory planned and its weights read.
func (s *scheduler) warm(ctx context.Context, token int32) (time.Duration, error) {
	began := time.Now()
	if _, err := s.run.prefill(ctx, 0, []int32{token, token}, 0); err != nil {
		return 0, err
	}
	_, err := s.run.decode(ctx, []int32{token}, []int{2})
	return time.Since(began), err
}
