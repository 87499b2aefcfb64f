package jobs

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

// once is what is known of an idempotency key of a route that answers at once.
//
//	from        to        by
//	(nothing)   running   the first request
//	running     running   renew by its holder; another request once the lease is over
//	running     done      its holder, with a whole answer of status 200
//	running     (nothing) its holder, with any other answer: it cost little, and may go better
type once struct {
	Digest string            `json:"digest"` // of route and body
	Holder string            `json:"holder"`
	Until  time.Time         `json:"until"`
	Done   bool              `json:"done"`
	Header map[string]string `json:"header,omitempty"`
	Answer content           `json:"answer,omitzero"`
}

// keptHeaders are those of an answer that belong to it and not to the exchange.
func keptHeaders() []string { return []string{"Content-Type", "Cache-Control", "X-Accel-Buffering"} }

// Once lets a request with an Idempotency-Key run one time, whichever replica
// it is sent to. The same request again gets the same answer, a stream as the
// stream that it was; while the first still runs it gets 409 with Retry-After,
// which OpenAI's clients obey. An answer that is not whole, or no success, is
// not kept: the request may be sent again. next sees a body that is in memory.
func (s *Service) Once(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get(idempotencyHeader)
		if key == "" {
			next.ServeHTTP(w, r)
			return
		}
		if e := checkIdempotencyKey(key); e != nil {
			openai.WriteError(w, e)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			openai.WriteError(w, openai.Invalid("", openai.CodeInvalidJSON, "the body could not be read; send it again"))
			return
		}
		o := &onceRun{s: s, key: "idem/" + ownerKey(s.caller(r)) + "/sync/" + hash([]byte(key)), holder: newID(s.replica + ".")}
		mine, kept, err := o.take(r.Context(), hash(append([]byte(r.URL.Path+"\n"), body...)))
		switch {
		case err != nil:
			s.failOnce(w, r, err)
			if e := (*openai.Error)(nil); !errors.As(err, &e) {
				(&outcome{onceRun: o, unsure: true}).later(err)
			}
		case mine:
			r = r.WithContext(r.Context())
			r.Body = io.NopCloser(bytes.NewReader(body))
			o.run(w, r, next)
		default:
			s.replay(w, r, kept)
		}
	})
}

// failOnce is fail, with what makes clients wait for the first request.
func (s *Service) failOnce(w http.ResponseWriter, r *http.Request, err error) {
	var e *openai.Error
	if errors.As(err, &e) && e.Code == openai.CodeKeyBusy {
		w.Header().Set("Retry-After", "1")
		w.Header().Set("X-Should-Retry", "true")
	}
	s.fail(w, r, err)
}

// onceRun is one request's hold on its key.
type onceRun struct {
	s      *Service
	key    string
	digest string
	holder string
}

// take claims the key, or returns the answer that it has.
func (o *onceRun) take(ctx context.Context, digest string) (mine bool, kept *once, err error) {
	o.digest = digest
	value, err := json.Marshal(once{Digest: digest, Holder: o.holder, Until: time.Now().Add(leaseFor)})
	if err != nil {
		return false, nil, err
	}
	for {
		err := o.s.store.Create(ctx, o.key, value, o.s.cfg.ResultTTL)
		if err == nil || !errors.Is(err, store.ErrConflict) {
			return err == nil, nil, err
		}
		c, rev, err := o.load(ctx)
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue // just given up
		case err != nil:
			return false, nil, err
		case c.Digest != digest:
			return false, nil, keyReused()
		case c.Done:
			return false, c, nil
		case time.Now().Before(c.Until) && (!o.s.sole || processOf(c.Holder) == o.s.replica):
			return false, nil, conflict(openai.CodeKeyBusy, "the first request with this "+idempotencyHeader+
				" is still running; send it again after the time in Retry-After")
		}
		err = o.s.store.Swap(ctx, o.key, rev, value, o.s.cfg.ResultTTL)
		if !errors.Is(err, store.ErrConflict) {
			return err == nil, nil, err
		}
	}
}

func (o *onceRun) load(ctx context.Context) (*once, string, error) {
	it, err := o.s.store.Get(ctx, o.key)
	if err != nil {
		return nil, "", err
	}
	var c once
	if err := json.Unmarshal(it.Value, &c); err != nil {
		return nil, "", fmt.Errorf("read idempotency key: %w", err)
	}
	return &c, it.Rev, nil
}

// run lets next answer and keeps what it says.
func (o *onceRun) run(w http.ResponseWriter, r *http.Request, next http.Handler) {
	ctx, cancel := context.WithCancel(r.Context())
	var lost atomic.Bool
	done := make(chan struct{})
	go func() { // ends with cancel, below
		defer close(done)
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := o.change(ctx, func(c *once) { c.Until = time.Now().Add(leaseFor) }); errors.Is(err, errLost) {
					lost.Store(true) // another runs it; the answer of this one is as good, but not kept
				}
			}
		}
	}()
	t := &tap{ResponseWriter: w}
	broken := true
	defer func() {
		cancel()
		<-done
		u := &outcome{onceRun: o}
		if !broken && !lost.Load() && t.whole() && r.Context().Err() == nil {
			u.answer(t)
		}
		// What was answered is kept also when the client has left since.
		u.settle(context.WithoutCancel(r.Context()))
	}()
	next.ServeHTTP(t, r)
	broken = false
}

func (o *onceRun) change(ctx context.Context, change func(*once)) error {
	for {
		c, rev, err := o.load(ctx)
		if err != nil {
			return err
		}
		switch {
		case c.Holder != o.holder:
			return errLost
		case c.Done: // an earlier try of ours was written, whatever the store said
			return nil
		}
		change(c)
		b, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if err := o.s.store.Swap(ctx, o.key, rev, b, o.s.cfg.ResultTTL); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// giveUp frees the key, if it is still ours.
func (o *onceRun) giveUp(ctx context.Context) error {
	c, rev, err := o.load(ctx)
	if err != nil || c.Done || c.Holder != o.holder {
		return err
	}
	return o.s.store.Delete(ctx, o.key, rev)
}

// replay gives the answer that is kept.
func (s *Service) replay(w http.ResponseWriter, r *http.Request, c *once) {
	body, err := s.get(r.Context(), c.Answer)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	for name, v := range c.Header {
		w.Header().Set(name, v)
	}
	w.Header().Set("Idempotent-Replayed", "true")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // the client may have left
}

// tap keeps what passes through it.
type tap struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
	over   bool // the answer is larger than what is kept
	failed bool // an error was written, or a write failed
}

// WriteHeader implements http.ResponseWriter.
func (t *tap) WriteHeader(status int) {
	if t.status == 0 && status >= 200 {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *tap) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	if t.over = t.over || t.body.Len()+len(p) > maxAnswerBytes; !t.over {
		t.body.Write(p)
	}
	n, err := t.ResponseWriter.Write(p)
	t.failed = t.failed || err != nil
	return n, err
}

// WriteError implements what openai.WriteError looks for.
func (t *tap) WriteError(e *openai.Error) {
	t.failed = true
	if t.status == 0 {
		t.status = e.Status
	}
	openai.WriteError(t.ResponseWriter, e)
}

// Unwrap implements what http.ResponseController looks for.
func (t *tap) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// whole says that the answer is a success to its end. A stream that broke off
// has said so in an event of its protocol.
func (t *tap) whole() bool {
	if t.status != http.StatusOK || t.over || t.failed {
		return false
	}
	if !strings.HasPrefix(t.Header().Get("Content-Type"), "text/event-stream") {
		return true
	}
	tail := t.body.Bytes()
	tail = tail[max(len(tail)-64<<10, 0):]
	for _, bad := range []string{`data: {"error":`, "event: error\n", "event: response.failed\n"} {
		if bytes.Contains(tail, []byte(bad)) {
			return false
		}
	}
	return true
}
