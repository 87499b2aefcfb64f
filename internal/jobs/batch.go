package jobs

import (
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"infer/internal/store"
)

// Statuses of a batch, as OpenAI names them.
const (
	validating = "validating"
	inProgress = "in_progress"
	finalizing = "finalizing"
	completed  = "completed"
	failed     = "failed"
	expired    = "expired"
	cancelling = "cancelling"
	cancelled  = "cancelled"
)

// batch is a file of requests. Each line's result is a key of its own, made
// once: the batch itself says only how far it is.
type batch struct {
	Endpoint  string            `json:"endpoint"`
	Input     string            `json:"input"` // id of the file
	Content   ref               `json:"content"`
	Window    string            `json:"window"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Status    string            `json:"status"`
	Total     int               `json:"total"`
	Last      int               `json:"last"`   // number of the last line
	Stored    int               `json:"stored"` // results when its process had ended too often the last time
	Completed int               `json:"completed"`
	Failed    int               `json:"failed"`
	Faults    []batchFault      `json:"faults,omitempty"`
	Output    string            `json:"output,omitzero"` // ids of files
	Errors    string            `json:"errors,omitzero"`

	InProgressAt time.Time `json:"in_progress_at,omitzero"`
	FinalizingAt time.Time `json:"finalizing_at,omitzero"`
	CompletedAt  time.Time `json:"completed_at,omitzero"`
	FailedAt     time.Time `json:"failed_at,omitzero"`
	ExpiredAt    time.Time `json:"expired_at,omitzero"`
	CancellingAt time.Time `json:"cancelling_at,omitzero"`
	CancelledAt  time.Time `json:"cancelled_at,omitzero"`
}

func (b *batch) reject(now time.Time, faults ...batchFault) {
	b.Status, b.FailedAt, b.Faults = failed, now, faults
}

// lineResult is what is kept of one line.
type lineResult struct {
	CustomID  string  `json:"custom_id"`
	Status    int     `json:"status,omitzero"`
	RequestID string  `json:"request_id,omitzero"`
	Body      content `json:"body,omitzero"`
}

func lineKey(batch string, number int) string { return fmt.Sprintf("line/%s/%07d", batch, number) }

// counts is how far a running batch is.
type counts struct{ completed, failed atomic.Int64 }

// add counts a result that is stored.
func (c *counts) add(r lineResult) {
	if r.Status >= 400 {
		c.failed.Add(1)
	} else {
		c.completed.Add(1)
	}
}

// runBatch brings a batch from wherever it stands to its end. Its lines end with
// ctx, which a cancellation ends too; what follows them only with base.
func (s *Service) runBatch(base, ctx context.Context, h *holding, t *task) {
	h.note = func(t *task) { // a batch that goes on counts anew what is stored
		t.Batch.Completed = max(t.Batch.Completed, int(h.counts.completed.Load()))
		t.Batch.Failed = max(t.Batch.Failed, int(h.counts.failed.Load()))
	}
	h.seen = func(t *task) {
		if t.Batch.Status == cancelling {
			h.cancel(errCancelled)
		}
	}
	defer h.keepLease(base, t.Until)()
	err := s.advance(base, ctx, h, t)
	if errors.Is(err, store.ErrNotFound) && base.Err() == nil {
		s.log.Error("batch has lost its input", "key", h.key, "err", err)
		err = s.endWithoutInput(base, h)
	}
	switch {
	case err == nil, errors.Is(err, errEnded):
	case base.Err() != nil, errors.Is(err, errLost):
		s.stopped(ctx, h)
	default:
		s.log.Error("batch cannot go on, trying again", "key", h.key, "err", err)
		s.release(base, h, 5*time.Second, func(*task) {})
	}
}

// advance validates, runs the lines and writes the files.
func (s *Service) advance(base, ctx context.Context, h *holding, t *task) error {
	t, err := s.validate(base, h, t)
	if err != nil || t.State != running {
		return err
	}
	ctx, cancel := context.WithDeadlineCause(ctx, t.Deadline, errExpired)
	defer cancel()
	if t.Batch.Status == cancelling {
		h.cancel(errCancelled)
	}
	if t.Attempts > maxAttempts && ctx.Err() == nil { // else no line of it runs any more
		switch moved, err := s.moved(base, h, t); {
		case err != nil:
			return err
		case !moved:
			s.log.Error("batch given up with what it has", "key", h.key, "attempts", t.Attempts)
			return s.finalize(base, h, errGivenUp)
		}
	}
	err = s.runLines(ctx, h, t)
	cause := context.Cause(ctx)
	if errors.Is(cause, errCancelled) || errors.Is(cause, errExpired) {
		err = nil // what there is becomes the result
	}
	if err != nil {
		return err
	}
	return s.finalize(base, h, cause)
}

// validate reads the whole input once. A batch with a fault runs nothing.
func (s *Service) validate(ctx context.Context, h *holding, t *task) (*task, error) {
	if t.Batch.Status != validating {
		return t, nil
	}
	in, err := s.blobs.open(ctx, t.Batch.Content)
	if err != nil {
		return t, err
	}
	sum, faults, err := checkLines(in, t.Batch.Endpoint, maxLines)
	if err = errors.Join(err, in.Close()); err != nil {
		return t, err
	}
	return s.persist(ctx, h.key, func(t *task) error {
		now := time.Now()
		if len(faults) > 0 {
			if err := t.end(h.holder, now); err != nil {
				return err
			}
			t.Batch.reject(now, faults...)
			return nil
		}
		if err := t.renew(h.holder, now); err != nil {
			return err
		}
		if t.Batch.Total, t.Batch.Last = sum.requests, sum.last; t.Batch.Status == validating {
			t.Batch.Status, t.Batch.InProgressAt = inProgress, now
		}
		return nil
	})
}

// runLines runs what has no result yet. It returns when nothing of it is in
// flight any more.
func (s *Service) runLines(ctx context.Context, h *holding, t *task) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	in, err := s.blobs.open(ctx, t.Batch.Content)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	var wg sync.WaitGroup
	defer wg.Wait()
	err = lines(in, func(number int, text []byte) error {
		if r, err := s.lineResult(ctx, t.ID, number); err == nil {
			h.counts.add(r)
			return nil
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		l, e := parseLine(text, t.Batch.Endpoint)
		if e != nil {
			return e
		}
		l.Body = l.Body.Clone()
		select {
		case s.lines <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wg.Go(func() {
			defer func() { <-s.lines }()
			if err := s.runLine(ctx, h, t, number, l); err != nil {
				stop(err)
			}
		})
		return nil
	})
	wg.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

func (s *Service) lineResult(ctx context.Context, batch string, number int) (lineResult, error) {
	var r lineResult
	it, err := s.store.Get(ctx, lineKey(batch, number))
	if err == nil {
		err = json.Unmarshal(it.Value, &r)
	}
	return r, err
}

// runLine asks until there is an answer, and stores it. Somebody who stored one
// before us, because we had lost the lease without knowing, was right.
func (s *Service) runLine(ctx context.Context, h *holding, t *task, number int, l line) error {
	a, err := askUntil(ctx, s.chain(t.Owner, false), l)
	if err != nil {
		return err
	}
	r := lineResult{CustomID: l.CustomID, Status: a.status, RequestID: a.requestID}
	for pause := persistPause; ; pause = min(2*pause, 5*time.Second) {
		stored, err := s.storeLine(ctx, t, number, &r, a.body)
		if err == nil {
			h.counts.add(stored)
			return nil
		}
		s.log.Warn("line's result cannot be stored, trying again", "batch", t.ID, "line", number, "err", err)
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// moved says whether there are more results than when the process of the batch
// had last ended too often, which then is forgotten. A request that ends the
// process each time is so found out once it is alone.
func (s *Service) moved(ctx context.Context, h *holding, t *task) (bool, error) {
	stored := 0
	for number := range t.Batch.Last + 1 {
		if _, err := s.store.Get(ctx, lineKey(t.ID, number)); err == nil {
			stored++
		} else if !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
	}
	if stored <= t.Batch.Stored {
		return false, nil
	}
	_, err := s.persist(ctx, h.key, func(t *task) error {
		t.Attempts, t.Batch.Stored = 1, stored
		return t.renew(h.holder, time.Now())
	})
	return true, err
}

// storeLine makes r the result of a line and returns the one that it has. A long
// body is put once for all tries: one of them may have been taken, whatever the
// store said, and refers to it.
func (s *Service) storeLine(ctx context.Context, t *task, number int, r *lineResult, body []byte) (stored lineResult, err error) {
	ttl := s.cfg.FileTTL + max(time.Until(t.Deadline), 0)
	if r.Body.Ref == nil {
		if r.Body, err = s.put(ctx, body, ttl); err != nil {
			return stored, err
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return stored, err
	}
	if err = s.store.Create(ctx, lineKey(t.ID, number), b, ttl); !errors.Is(err, store.ErrConflict) {
		return *r, err
	}
	stored, err = s.lineResult(ctx, t.ID, number)
	if err == nil && !stored.Body.is(r.Body) {
		s.drop(ctx, r.Body)
	}
	return stored, err
}

// finalize writes the files and ends the batch. cause says why lines may have
// no result.
func (s *Service) finalize(ctx context.Context, h *holding, cause error) error {
	t, err := s.persist(ctx, h.key, func(t *task) error {
		t.Batch.FinalizingAt = time.Now()
		if t.Batch.Status == inProgress {
			t.Batch.Status = finalizing
		}
		return t.renew(h.holder, time.Now())
	})
	if err != nil {
		return err
	}
	status, left := completed, lineError{}
	switch {
	case errors.Is(cause, errGivenUp):
		left = lineError{"attempts_exhausted", "The server ended while this request ran, several times; it is not tried again."}
	case errors.Is(cause, errExpired):
		status, left = expired, lineError{"batch_expired", "This request could not be executed before the completion window expired."}
	case t.Batch.Status == cancelling:
		status, left = cancelled, lineError{"batch_cancelled", "This request was not executed because the batch was cancelled."}
	}
	sum, err := s.writeFiles(ctx, t, left)
	if err != nil {
		return err
	}
	written := s.finish(ctx, h, func(t *task) {
		b, now := t.Batch, time.Now()
		b.Status, b.Completed, b.Failed, b.Output, b.Errors = status, sum.completed, sum.failed, sum.output, sum.errors
		switch status {
		case completed:
			b.CompletedAt = now
		case expired:
			b.ExpiredAt = now
		case cancelled:
			b.CancelledAt = now
		}
	})
	if written {
		s.forgetLines(ctx, t)
	}
	return nil
}

// written is what writeFiles has written.
type written struct {
	completed, failed int
	output, errors    string // ids of files; empty for those without a line
}

// writeFiles writes each line's result to the one or the other file, in the
// order of the input, so that whoever does it again writes the same.
func (s *Service) writeFiles(ctx context.Context, t *task, left lineError) (sum written, err error) {
	in, err := s.blobs.open(ctx, t.Batch.Content)
	if err != nil {
		return sum, err
	}
	defer func() { _ = in.Close() }() // it was only read
	return s.writeResults(ctx, t, func(add func(result) error) error {
		return lines(in, func(number int, text []byte) error {
			res, err := s.told(ctx, t, number, text, left)
			if err != nil {
				return err
			}
			return add(res)
		})
	})
}

// writeResults writes what each adds to the one or the other file.
func (s *Service) writeResults(ctx context.Context, t *task, each func(add func(result) error) error) (sum written, err error) {
	var good, bad blobWriter
	defer func() {
		for _, w := range []blobWriter{good, bad} {
			if w != nil && err != nil {
				w.abort()
			}
		}
	}()
	err = each(func(res result) error {
		to := &bad
		if res.Error == nil && res.Response.StatusCode < 400 {
			to = &good
			sum.completed++
		} else {
			sum.failed++
		}
		if *to == nil {
			w, err := s.newOutput(ctx)
			if err != nil {
				return err
			}
			*to = w
		}
		b, err := json.Marshal(res)
		if err == nil {
			_, err = (*to).Write(append(b, '\n'))
		}
		return err
	})
	name := strings.TrimPrefix(t.ID, "batch_")
	if err == nil && good != nil {
		sum.output = "file-" + name + "o"
		err, good = s.publish(ctx, t, sum.output, t.ID+"_output.jsonl", good), nil
	}
	if err == nil && bad != nil {
		sum.errors = "file-" + name + "e"
		err, bad = s.publish(ctx, t, sum.errors, t.ID+"_error.jsonl", bad), nil
	}
	return sum, err
}

// told is a line of an output file.
func (s *Service) told(ctx context.Context, t *task, number int, text []byte, left lineError) (result, error) {
	res := result{ID: fmt.Sprintf("batch_req_%s_%d", strings.TrimPrefix(t.ID, "batch_"), number)}
	r, err := s.lineResult(ctx, t.ID, number)
	switch {
	case errors.Is(err, store.ErrNotFound):
		l, _ := parseLine(text, t.Batch.Endpoint) // a line at fault, of a batch that was cancelled before it was read, has what it has
		res.CustomID, res.Error = l.CustomID, &left
		return res, nil
	case err != nil:
		return res, err
	}
	body, err := s.get(ctx, r.Body)
	switch {
	case errors.Is(err, store.ErrNotFound): // of this line alone: the input is there
		s.log.Error("answer of a line is lost", "batch", t.ID, "line", number, "err", err)
		res.CustomID, res.Error = r.CustomID, &lineError{"answer_lost", "The answer to this request is no longer there; send the request again."}
		return res, nil
	case err != nil:
		return res, err
	}
	res.CustomID, res.Response = r.CustomID, &lineResponse{r.Status, r.RequestID, asJSON(body)}
	return res, nil
}

// forgetLines removes the results that the files hold now. What stays goes with
// its time.
func (s *Service) forgetLines(ctx context.Context, t *task) {
	var wg sync.WaitGroup
	room := make(chan struct{}, 64) // together they share a write to the disk
	for number := range t.Batch.Last + 1 {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if r, err := s.lineResult(ctx, t.ID, number); err == nil {
				s.drop(ctx, r.Body)
				_ = s.store.Delete(ctx, lineKey(t.ID, number), "") // it goes with its time
			}
		})
	}
	wg.Wait()
}
