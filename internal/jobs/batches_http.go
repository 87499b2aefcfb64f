package jobs

import (
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"net/http"
	"slices"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

// batchRequest is a batch as it is asked for.
type batchRequest struct {
	Input        string            `json:"input_file_id"`
	Endpoint     string            `json:"endpoint"`
	Window       string            `json:"completion_window"`
	Metadata     map[string]string `json:"metadata"`
	ExpiresAfter jsontext.Value    `json:"output_expires_after"` // files stay for --file-ttl, whatever is asked
}

// batchObject is a batch as clients see it.
type batchObject struct {
	ID           string            `json:"id"`
	Object       string            `json:"object"` // always batch
	Endpoint     string            `json:"endpoint"`
	Errors       *batchFaults      `json:"errors"`
	Input        string            `json:"input_file_id"`
	Window       string            `json:"completion_window"`
	Status       string            `json:"status"`
	Output       *string           `json:"output_file_id"`
	ErrorFile    *string           `json:"error_file_id"`
	CreatedAt    int64             `json:"created_at"`
	InProgressAt *int64            `json:"in_progress_at"`
	ExpiresAt    *int64            `json:"expires_at"`
	FinalizingAt *int64            `json:"finalizing_at"`
	CompletedAt  *int64            `json:"completed_at"`
	FailedAt     *int64            `json:"failed_at"`
	ExpiredAt    *int64            `json:"expired_at"`
	CancellingAt *int64            `json:"cancelling_at"`
	CancelledAt  *int64            `json:"cancelled_at"`
	Counts       requestCounts     `json:"request_counts"`
	Metadata     map[string]string `json:"metadata"`
}

type batchFaults struct {
	Object string       `json:"object"` // always list
	Data   []batchFault `json:"data"`
}

type requestCounts struct {
	Total     int `json:"total"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

// windows of a batch. OpenAI has 24h only.
const (
	minWindow = time.Minute
	maxWindow = 7 * 24 * time.Hour

	// windowSpare is for writing the files of a batch, from its input, once its
	// window has ended.
	windowSpare = contentSpare / 2

	maxWindowBytes = 32 // leading zeros would have no end
)

func (s *Service) batchObject(t *task) batchObject {
	b := t.Batch
	o := batchObject{ID: t.ID, Object: "batch", Endpoint: b.Endpoint, Input: b.Input, Window: b.Window, Status: b.Status,
		CreatedAt: t.Created.Unix(), ExpiresAt: unix(t.Deadline), InProgressAt: unix(b.InProgressAt), FinalizingAt: unix(b.FinalizingAt),
		CompletedAt: unix(b.CompletedAt), FailedAt: unix(b.FailedAt), ExpiredAt: unix(b.ExpiredAt),
		CancellingAt: unix(b.CancellingAt), CancelledAt: unix(b.CancelledAt), Metadata: b.Metadata,
		Counts: requestCounts{b.Total, b.Completed, b.Failed}}
	if len(b.Faults) > 0 {
		o.Errors = &batchFaults{"list", b.Faults}
	}
	if b.Output != "" {
		o.Output = &b.Output
	}
	if b.Errors != "" {
		o.ErrorFile = &b.Errors
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.running[t.key()]; h != nil && t.State == running { // fresher than what is stored
		o.Counts.Completed = max(b.Completed, int(h.counts.completed.Load()))
		o.Counts.Failed = max(b.Failed, int(h.counts.failed.Load()))
	}
	return o
}

func parseBatch(body []byte) (req batchRequest, window time.Duration, e *openai.Error) {
	if err := json.Unmarshal(body, &req, json.RejectUnknownMembers(true)); err != nil {
		return req, 0, wrong(err)
	}
	window, err := time.ParseDuration(req.Window)
	switch {
	case req.Input == "":
		e = openai.Invalid("input_file_id", openai.CodeMissingField, "input_file_id is required: the id of an uploaded file")
	case !slices.Contains(routes(), req.Endpoint):
		e = openai.Invalid("endpoint", openai.CodeInvalidValue, "endpoint must be one of /v1/chat/completions, /v1/completions, "+
			"/v1/responses, /v1/messages, /v1/embeddings, /v1/rerank, /v1/score and /classify")
	case err != nil || window < minWindow || window > maxWindow || len(req.Window) > maxWindowBytes:
		e = openai.Invalid("completion_window", openai.CodeInvalidValue, "completion_window must be from 1m to 168h, such as 24h")
	default:
		e = checkMetadata(req.Metadata)
	}
	return req, window, e
}

func (s *Service) createBatch(w http.ResponseWriter, r *http.Request) {
	body, e := readBody(w, r)
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	req, window, e := parseBatch(body)
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	t, err := s.submitBatch(r.Context(), s.caller(r), r.Header.Get(idempotencyHeader), body, req, window)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, s.batchObject(t))
}

func (s *Service) submitBatch(ctx context.Context, owner, key string, raw []byte, req batchRequest, window time.Duration) (*task, error) {
	f, err := s.loadFile(ctx, owner, req.Input)
	if err != nil {
		return nil, err
	}
	if f.Purpose != "batch" {
		return nil, openai.Invalid("input_file_id", openai.CodeInvalidValue, "input_file_id is a file of purpose %s; upload one with purpose batch", f.Purpose)
	}
	id := newID("batch_")
	if key != "" {
		if id, err = s.idFor(ctx, owner, "batch", key, raw, id, s.cfg.Deadline+s.cfg.ResultTTL); err != nil {
			return nil, err
		}
		if t, _, err := s.load(ctx, taskKey(kindBatch, owner, id)); !errors.Is(err, store.ErrNotFound) {
			return t, err
		}
	}
	if most := time.Until(f.stays()) - windowSpare; window > most {
		return nil, openai.Invalid("completion_window", openai.CodeInvalidValue,
			"completion_window ends after the input file is gone; ask for %v at most, or upload the file again", max(most, 0).Truncate(time.Minute))
	}
	if err := s.quota.take(ctx, owner); err != nil {
		return nil, err
	}
	t := &task{ID: id, Kind: kindBatch, Owner: owner, Deadline: time.Now().Add(window), Keep: int64(s.cfg.FileTTL.Seconds()),
		Batch: &batch{Endpoint: req.Endpoint, Input: f.ID, Content: f.Content, Window: req.Window, Metadata: req.Metadata, Status: validating}}
	created, err := s.accept(ctx, t)
	if err == nil && !created {
		t, _, err = s.load(ctx, t.key())
	}
	return t, err
}

func (s *Service) getBatch(w http.ResponseWriter, r *http.Request) {
	t, err := s.named(r, kindBatch, "batch")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, s.batchObject(t))
}

// cancelBatch asks whoever runs the batch to end it with what there is.
func (s *Service) cancelBatch(w http.ResponseWriter, r *http.Request) {
	t, err := s.named(r, kindBatch, "batch")
	if err == nil {
		t, err = s.update(r.Context(), t.key(), func(t *task) error {
			switch b := t.Batch; {
			case t.State == ended && b.Status != cancelled, b.Status == finalizing:
				return conflict(openai.CodeWrongState, "the batch is "+b.Status+" and can no longer be cancelled")
			case b.Status != cancelled && b.Status != cancelling:
				b.Status, b.CancellingAt = cancelling, time.Now()
			}
			return nil
		})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.interrupt(t.key(), errCancelled)
	writeJSON(w, http.StatusOK, s.batchObject(t))
}

func (s *Service) listBatches(w http.ResponseWriter, r *http.Request) {
	limit, after, e := pageOf(r, 100)
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	l, err := readList(s, r, taskKey(kindBatch, s.caller(r), ""), limit, after, func(key string) (batchObject, string, bool, error) {
		t, _, err := s.load(r.Context(), key)
		if err != nil {
			return batchObject{}, "", false, err
		}
		return s.batchObject(t), t.ID, true, nil
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, l)
}
