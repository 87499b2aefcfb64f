package jobs

import (
	"context"
	"encoding/json/jsontext"
	"errors"
	"time"

	"infer/internal/store"
)

// job is one request that is answered once.
type job struct {
	URL      string            `json:"url"`
	Body     content           `json:"body"`
	Webhook  *hook             `json:"webhook,omitzero"`
	Metadata map[string]string `json:"metadata,omitempty"`

	Outcome   string  `json:"outcome,omitzero"` // succeeded, failed or cancelled; empty until it ended
	Status    int     `json:"status,omitzero"`
	RequestID string  `json:"request_id,omitzero"`
	Answer    content `json:"answer,omitzero"`
	Code      string  `json:"code,omitzero"` // of a failure without an answer
	Message   string  `json:"message,omitzero"`
}

func (j *job) fail(code, message string) { j.Outcome, j.Code, j.Message = "failed", code, message }

// runJob asks until there is an answer that is final.
func (s *Service) runJob(ctx context.Context, h *holding, t *task) {
	defer h.keepLease(ctx, t.Until)()
	ctx, cancel := context.WithDeadlineCause(ctx, t.Deadline, errExpired)
	defer cancel()
	body, err := s.get(ctx, t.Job.Body)
	if err != nil {
		s.log.Error("job's body cannot be read", "key", h.key, "err", err)
		switch {
		case s.over(ctx, h):
		case errors.Is(err, store.ErrNotFound):
			s.finish(ctx, h, func(t *task) { t.Job.fail("body_lost", "the body of the job is no longer there; send the job again") })
		default: // the store may be back soon
			s.release(ctx, h, 5*time.Second, func(*task) {})
		}
		return
	}
	a := ask(ctx, s.chain(t.Owner, false), t.Job.URL, body)
	switch {
	case s.over(ctx, h):
		return
	case a.busy():
		s.release(ctx, h, a.pause(), func(*task) {})
		return
	case a.broken() && t.Faults+1 < maxFaults:
		s.release(ctx, h, a.pause(), func(t *task) { t.Faults++ })
		return
	}
	kept, err := s.keepAnswer(ctx, a.body)
	switch {
	case err == nil:
	case s.over(ctx, h):
		return
	case t.Faults+1 < maxFaults:
		s.log.Error("job's answer cannot be kept, trying again", "key", h.key, "err", err)
		s.release(ctx, h, unkeptPause(t.Faults), func(t *task) { t.Faults++ })
		return
	default:
		s.log.Error("job's answer cannot be kept", "key", h.key, "err", err)
		s.finish(ctx, h, func(t *task) { t.Job.fail("answer_not_kept", unkeptMessage) })
		return
	}
	written := s.finish(ctx, h, func(t *task) {
		t.Job.Outcome, t.Job.Status, t.Job.RequestID, t.Job.Answer = "succeeded", a.status, a.requestID, kept
		if a.status >= 400 {
			t.Job.Outcome = "failed"
		}
	})
	if written {
		s.drop(context.WithoutCancel(ctx), t.Job.Body)
	}
}

// unkeptMessage is why work ends whose answer could not be kept, each time that
// it was computed.
const unkeptMessage = "the server's store could not keep the answer; if it is full, delete files that are no longer needed, " +
	"shorten --result-ttl or give --state a larger volume, and send the request again"

// unkeptPause is how long an answer that could not be kept waits to be computed
// anew. A store that was away is soon back; before the last try there is time to
// give a full one room.
func unkeptPause(faults int) time.Duration {
	if faults+2 == maxFaults {
		return 10 * time.Minute
	}
	return 5 * time.Second
}

// over ends the run of a job whose time is up, or whose process stops.
func (s *Service) over(ctx context.Context, h *holding) bool {
	switch {
	case context.Cause(ctx) == errExpired:
		s.finish(ctx, h, func(t *task) {
			t.Job.fail("job_expired", "the job did not run within its time; raise --job-deadline or add replicas")
		})
		return true
	case ctx.Err() != nil:
		s.stopped(ctx, h)
		return true
	}
	return false
}

// keepAnswer keeps a body until the store takes it.
func (s *Service) keepAnswer(ctx context.Context, b []byte) (content, error) {
	for pause := persistPause; ; pause *= 2 {
		c, err := s.put(ctx, b, s.cfg.ResultTTL+contentSpare)
		if err == nil || pause > leaseFor/4 {
			return c, err
		}
		if err := wait(ctx, pause); err != nil {
			return content{}, err
		}
	}
}

// jobObject is a job as clients see it.
type jobObject struct {
	ID          string            `json:"id"`
	Object      string            `json:"object"` // always job
	Status      string            `json:"status"` // queued, in_progress, succeeded, failed or cancelled
	URL         string            `json:"url"`
	CreatedAt   int64             `json:"created_at"`
	StartedAt   *int64            `json:"started_at"`
	CompletedAt *int64            `json:"completed_at"`
	ExpiresAt   *int64            `json:"expires_at"` // when an ended job is forgotten
	Response    *lineResponse     `json:"response"`   // what the route answered
	Error       *lineError        `json:"error"`      // why it did not
	Metadata    map[string]string `json:"metadata"`
	Webhook     *hookObject       `json:"webhook,omitzero"`
}

type hookObject struct {
	URL      string `json:"url"`
	Status   string `json:"status"` // pending, delivered or failed
	Attempts int    `json:"attempts"`
	Error    string `json:"error,omitzero"` // of the last attempt
}

type lineResponse struct {
	StatusCode int            `json:"status_code"`
	RequestID  string         `json:"request_id"`
	Body       jsontext.Value `json:"body"`
}

type lineError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// unix is a time as OpenAI's objects have it, null when it has not come.
func unix(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	u := t.Unix()
	return &u
}

// jobObject tells a job; the answer is read only when it is asked for.
func (s *Service) jobObject(ctx context.Context, t *task, whole bool) (jobObject, error) {
	j := t.Job
	o := jobObject{ID: t.ID, Object: "job", Status: j.Outcome, URL: j.URL, CreatedAt: t.Created.Unix(),
		StartedAt: unix(t.Began), CompletedAt: unix(t.Ended), Metadata: j.Metadata}
	switch t.State {
	case queued:
		o.Status = "queued"
	case running:
		o.Status = "in_progress"
	case ended:
		o.ExpiresAt = unix(t.Ended.Add(t.keep()))
	}
	if h := j.Webhook; h != nil {
		o.Webhook = &hookObject{h.URL, h.State, h.Attempts, h.Reason}
	}
	if j.Code != "" {
		o.Error = &lineError{j.Code, j.Message}
	}
	if j.Status == 0 || !whole {
		return o, nil
	}
	body, err := s.get(ctx, j.Answer)
	if err != nil {
		return o, err
	}
	o.Response = &lineResponse{j.Status, j.RequestID, asJSON(body)}
	return o, nil
}
