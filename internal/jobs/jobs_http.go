package jobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"net/http"
	"strings"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

// Routes returns the handlers by method and pattern, as chi writes them.
func (s *Service) Routes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"POST /v1/jobs":                      s.createJob,
		"GET /v1/jobs":                       s.listJobs,
		"GET /v1/jobs/{id}":                  s.getJob,
		"POST /v1/jobs/{id}/cancel":          s.cancelJob,
		"GET /v1/responses/{id}":             s.getResponse,
		"DELETE /v1/responses/{id}":          s.deleteResponse,
		"POST /v1/responses/{id}/cancel":     s.cancelResponse,
		"GET /v1/responses/{id}/input_items": s.listInputItems,
		"POST /v1/files":                     s.createFile,
		"GET /v1/files":                      s.listFiles,
		"GET /v1/files/{id}":                 s.getFile,
		"GET /v1/files/{id}/content":         s.fileContent,
		"DELETE /v1/files/{id}":              s.deleteFile,
		"POST /v1/batches":                   s.createBatch,
		"GET /v1/batches":                    s.listBatches,
		"GET /v1/batches/{id}":               s.getBatch,
		"POST /v1/batches/{id}/cancel":       s.cancelBatch,
	}
}

// jobRequest is a job as it is asked for.
type jobRequest struct {
	URL      string            `json:"url"`
	Method   string            `json:"method"`
	Body     jsontext.Value    `json:"body"`
	Metadata map[string]string `json:"metadata"`
	Webhook  *webhookRequest   `json:"webhook"`

	hook *hook // what webhook comes to
}

type webhookRequest struct {
	URL string `json:"url"`
}

// parseJob reads a job: like a line of a batch, or a plain body of a route that
// its members give away.
func parseJob(body []byte) (jobRequest, *openai.Error) {
	req, e := openai.Peek(body)
	if e != nil {
		return jobRequest{}, e
	}
	var j jobRequest
	if req.Member("url").Absent() && req.Member("body").Absent() {
		switch {
		case !req.Member("messages").Absent():
			j.URL = "/v1/chat/completions"
		case !req.Member("prompt").Absent():
			j.URL = "/v1/completions"
		default:
			return j, openai.Invalid("url", openai.CodeMissingField,
				`url is required: send {"url": "/v1/chat/completions", "body": {…}}, or a plain body with messages or prompt`)
		}
		j.Body = bytes.TrimSpace(body)
		return j, checkBody(j.URL, "body", j.Body)
	}
	if err := json.Unmarshal(body, &j, json.RejectUnknownMembers(true)); err != nil {
		return j, wrong(err)
	}
	switch {
	case j.Method != "" && j.Method != http.MethodPost:
		return j, openai.Invalid("method", openai.CodeInvalidValue, "method must be POST")
	case j.URL == "":
		return j, openai.Invalid("url", openai.CodeMissingField, "url is required: the path that answers, such as /v1/chat/completions")
	case len(j.Body) == 0:
		return j, openai.Invalid("body", openai.CodeMissingField, "body is required: what would be sent to url")
	}
	if e := checkMetadata(j.Metadata); e != nil {
		return j, e
	}
	return j, checkBody(j.URL, "body", j.Body)
}

// wrong says which member of a body is at fault, without repeating its value.
func wrong(err error) *openai.Error {
	var semantic *json.SemanticError
	if !errors.As(err, &semantic) || semantic.JSONPointer == "" {
		return openai.Invalid("", openai.CodeInvalidJSON, "the body is not a JSON object of the right shape")
	}
	param := clip(strings.ReplaceAll(string(semantic.JSONPointer[1:]), "/", "."))
	if errors.Is(err, json.ErrUnknownName) {
		return openai.Invalid(param, openai.CodeUnsupported, "%s is not supported here; leave it out", param)
	}
	return openai.Invalid(param, openai.CodeInvalidValue, "%s has the wrong type", param)
}

func (s *Service) createJob(w http.ResponseWriter, r *http.Request) {
	body, e := readBody(w, r)
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	req, e := parseJob(body)
	if e == nil {
		req.hook, e = s.webhook(req.Webhook)
	}
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	t, err := s.submit(r.Context(), s.caller(r), r.Header.Get(idempotencyHeader), body, req)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := s.jobObject(r.Context(), t, true)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Location", "/v1/jobs/"+t.ID)
	writeJSON(w, http.StatusAccepted, o)
}

// submit accepts a job, or finds the one that the key has made before.
func (s *Service) submit(ctx context.Context, owner, key string, raw []byte, req jobRequest) (*task, error) {
	id := newID("job_")
	if key != "" {
		var err error
		if id, err = s.idFor(ctx, owner, "job", key, raw, id, s.cfg.Deadline+s.cfg.ResultTTL); err != nil {
			return nil, err
		}
		if t, _, err := s.load(ctx, taskKey(kindJob, owner, id)); !errors.Is(err, store.ErrNotFound) {
			return t, err
		}
	}
	if err := s.quota.take(ctx, owner); err != nil {
		return nil, err
	}
	body, err := s.put(ctx, req.Body, s.cfg.Deadline+time.Hour)
	if err != nil {
		return nil, err
	}
	t := &task{ID: id, Kind: kindJob, Owner: owner, Deadline: time.Now().Add(s.cfg.Deadline), Keep: int64(s.cfg.ResultTTL.Seconds()),
		Job: &job{URL: req.URL, Body: body, Metadata: req.Metadata, Webhook: req.hook}}
	created, err := s.accept(ctx, t)
	if err == nil && !created { // somebody with the same key was quicker
		s.drop(ctx, body)
		t, _, err = s.load(ctx, t.key())
	}
	return t, err
}

// claimed is the value of an idempotency key that makes an object: the id of
// the object, chosen before it is made.
type claimed struct {
	ID     string `json:"id"`
	Digest string `json:"digest"`
}

// idFor returns the id that a key stands for: fresh the first time, and again
// after ttl. The same key with another body is a mistake of the client.
func (s *Service) idFor(ctx context.Context, owner, what, key string, body []byte, fresh string, ttl time.Duration) (string, error) {
	if e := checkIdempotencyKey(key); e != nil {
		return "", e
	}
	at := "idem/" + ownerKey(owner) + "/" + what + "/" + hash([]byte(key))
	value, err := json.Marshal(claimed{fresh, hash(body)})
	if err != nil {
		return "", err
	}
	if err = s.store.Create(ctx, at, value, ttl); !errors.Is(err, store.ErrConflict) {
		return fresh, err
	}
	it, err := s.store.Get(ctx, at)
	if err != nil {
		return "", err
	}
	var c claimed
	if err := json.Unmarshal(it.Value, &c); err != nil {
		return "", err
	}
	if c.Digest != hash(body) {
		return "", keyReused()
	}
	return c.ID, nil
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// job loads the job that the path names.
func (s *Service) job(r *http.Request) (*task, error) {
	return s.named(r, kindJob, "job")
}

// named loads the caller's task that the path names.
func (s *Service) named(r *http.Request, k kind, what string) (*task, error) {
	id := r.PathValue("id")
	if !validID(id) {
		return nil, absent(what, id)
	}
	t, _, err := s.load(r.Context(), taskKey(k, s.caller(r), id))
	return t, found(err, what, id)
}

func (s *Service) getJob(w http.ResponseWriter, r *http.Request) {
	t, err := s.job(r)
	if err == nil {
		var o jobObject
		if o, err = s.jobObject(r.Context(), t, true); err == nil {
			if t.State != ended {
				w.Header().Set("Retry-After", "1") // when to look again
			}
			writeJSON(w, http.StatusOK, o)
			return
		}
	}
	s.fail(w, r, err)
}

func (s *Service) cancelJob(w http.ResponseWriter, r *http.Request) {
	t, err := s.job(r)
	if err == nil {
		t, err = s.cancel(r.Context(), t.key(), func(t *task) { t.Job.Outcome = "cancelled" })
	}
	if err == nil {
		var o jobObject
		if o, err = s.jobObject(r.Context(), t, true); err == nil {
			writeJSON(w, http.StatusOK, o)
			return
		}
	}
	s.fail(w, r, err)
}

// cancel ends a task at once, whoever runs it. One that has ended stays as it is.
func (s *Service) cancel(ctx context.Context, key string, change func(*task)) (*task, error) {
	t, err := s.update(ctx, key, func(t *task) error {
		if err := t.end("", time.Now()); err != nil {
			return err
		}
		change(t)
		return nil
	})
	if errors.Is(err, errEnded) {
		return t, nil
	}
	if err == nil {
		s.interrupt(key, errCancelled)
		s.tidy(ctx, t)
	}
	return t, err
}

func (s *Service) listJobs(w http.ResponseWriter, r *http.Request) {
	limit, after, e := pageOf(r, 100)
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	l, err := readList(s, r, taskKey(kindJob, s.caller(r), ""), limit, after, func(key string) (jobObject, string, bool, error) {
		t, _, err := s.load(r.Context(), key)
		if err != nil {
			return jobObject{}, "", false, err
		}
		o, err := s.jobObject(r.Context(), t, false)
		return o, t.ID, true, err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, l)
}
