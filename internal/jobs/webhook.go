package jobs

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"infer/internal/openai"
	"infer/internal/policy"
	"infer/internal/store"
)

// Secret signs webhooks: whsec_ and the base64 of 24 to 64 random bytes. It
// is not for a log.
type Secret string

// String hides the secret.
func (Secret) String() string { return "[redacted]" }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// key reads the secret as https://www.standardwebhooks.com defines it.
func (s Secret) key() ([]byte, error) {
	const remedy = "make one with: openssl rand -base64 32"
	if s == "" {
		return nil, errors.New("webhook-hosts: needs a secret to sign with in INFER_WEBHOOK_SECRET; " + remedy)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(s), "whsec_"))
	if err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New("webhook-hosts: INFER_WEBHOOK_SECRET is not the base64 of 24 to 64 bytes; " + remedy)
	}
	return key, nil
}

const (
	hookTimeout = 15 * time.Second // of one attempt, well within its lease
	hookFirst   = 5 * time.Second  // pause after the first attempt, doubled after each
	hookMost    = 30 * time.Minute // longest pause
	hookFor     = 12 * time.Hour   // after the job ended, a delivery is given up
	maxHooks    = 16               // deliveries of one replica at once

	maxHookBytes = 2048 // of an address
)

// States of a hook.
const (
	hookPending   = "pending"
	hookDelivered = "delivered"
	hookFailed    = "failed"
)

// hook is where a job's end is told, and how far that has come. While the job
// has ended and the state is pending, whoever holds the lease delivers.
type hook struct {
	URL       string    `json:"url"`
	State     string    `json:"state"`
	Attempts  int       `json:"attempts"`
	Holder    string    `json:"holder,omitempty"`
	Until     time.Time `json:"until,omitzero"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Reason    string    `json:"reason,omitempty"` // of the last failure
}

// owes says that somebody has yet to be told that the task has ended.
func (t *task) owes() bool {
	return t.State == ended && t.Kind == kindJob && t.Job.Webhook != nil && t.Job.Webhook.State == hookPending
}

// told says that there was somebody to tell.
func (t *task) told() bool { return t.Kind == kindJob && t.Job.Webhook != nil && !t.owes() }

// hookKey is the key of the reminder of a task whose end is to be told. It has
// the place in its folder that the other had.
func (t *task) hookKey() string { return todoHook + t.Todo[strings.LastIndexByte(t.Todo, '/')+1:] }

// owe puts the reminder that the end is to be told in the place of the one that
// there is work. At any instant there is one of the two.
func (s *Service) owe(ctx context.Context, t *task) error {
	remind, err := json.Marshal(reminder{t.key()})
	if err != nil {
		return err
	}
	if err := s.store.Create(ctx, t.hookKey(), remind, 0); err != nil && !errors.Is(err, store.ErrConflict) {
		return err
	}
	if err := s.store.Delete(ctx, t.Todo, ""); err != nil {
		return err
	}
	s.nudge()
	return nil
}

// claimHook takes the lease of the delivery; see claim.
func (t *task) claimHook(holder string, now time.Time, sole bool) error {
	if !t.owes() {
		return errEnded
	}
	h := t.Job.Webhook
	dead := sole && processOf(h.Holder) != processOf(holder)
	switch {
	case now.Before(h.Until) && !dead:
		return errHeld
	case now.Before(h.NotBefore):
		return errEarly
	}
	h.Holder, h.Until = holder, now.Add(leaseFor)
	h.Attempts++
	return nil
}

// settleHook gives the lease back with the outcome of the attempt.
func (t *task) settleHook(holder, state, reason string, notBefore time.Time) error {
	if !t.owes() || t.Job.Webhook.Holder != holder {
		return errLost
	}
	h := t.Job.Webhook
	h.State, h.Reason, h.NotBefore, h.Holder, h.Until = state, reason, notBefore, "", time.Time{}
	return nil
}

// sender delivers to the hosts that the operator allows.
type sender struct {
	hosts  *policy.Hosts
	client *http.Client
	signer *webhooks.Webhook
}

// newSender returns nil when no host is allowed.
func newSender(cfg Config) (*sender, error) {
	if len(cfg.WebhookHosts) == 0 {
		return nil, nil
	}
	hosts, err := policy.NewHosts(cfg.WebhookHosts, cfg.WebhookNetworks)
	if err != nil {
		return nil, err
	}
	key, err := cfg.WebhookSecret.key()
	if err != nil {
		return nil, err
	}
	signer, err := webhooks.NewWebhookRaw(key)
	return &sender{hosts, hosts.Client(), signer}, err
}

// judge says why text is not an address that may be told.
func (s *sender) judge(text string) (u *url.URL, why string) {
	if s == nil {
		return nil, "cannot be delivered by this server, unless its host is named with --webhook-hosts"
	}
	return s.hosts.Judge(text, "--webhook-hosts")
}

// webhook checks where a new job's end is to be told.
func (s *Service) webhook(asked *webhookRequest) (*hook, *openai.Error) {
	const param = "webhook.url"
	switch {
	case asked == nil:
		return nil, nil
	case asked.URL == "":
		return nil, openai.Invalid(param, openai.CodeMissingField, "webhook.url is required: the address that is told when the job has ended")
	}
	if len(asked.URL) > maxHookBytes {
		return nil, openai.Invalid(param, openai.CodeInvalidValue, "webhook.url is longer than %d bytes", maxHookBytes)
	}
	if _, why := s.sender.judge(asked.URL); why != "" {
		return nil, openai.Invalid(param, openai.CodeWebhook, "%s %s", param, why)
	}
	return &hook{URL: asked.URL, State: hookPending}, nil
}

// startDelivery claims one attempt and makes it, if there is room.
func (s *Service) startDelivery(ctx context.Context, key string) error {
	select {
	case s.hooks <- struct{}{}:
	default:
		return nil
	}
	holder := newID(s.replica + ".")
	t, err := s.update(ctx, key, func(t *task) error { return t.claimHook(holder, time.Now(), s.sole) })
	if err != nil {
		<-s.hooks
		if final(err) {
			return nil
		}
		return err
	}
	s.wg.Go(func() {
		defer s.nudge() // somebody may wait for the room
		defer func() { <-s.hooks }()
		s.deliver(ctx, t, holder)
	})
	return nil
}

// deliver makes one attempt and writes down what came of it. That an attempt
// whose outcome could not be written is made again is why receivers are told
// the same webhook-id each time.
func (s *Service) deliver(ctx context.Context, t *task, holder string) {
	h := t.Job.Webhook
	state, reason, pause := hookDelivered, "", time.Duration(0)
	wanted, err := s.tell(ctx, t)
	now := time.Now()
	var gone refused
	switch {
	case err == nil:
		s.metrics.webhooks.WithLabelValues(attemptDelivered).Inc()
	case ctx.Err() != nil: // the process ends; no fault of the receiver
		state = hookPending
	default:
		state, reason, pause = hookPending, policy.Reason(err), max(backoff(h.Attempts), wanted)
		if errors.As(err, &gone) {
			reason = gone.why
		}
		if gone.final || now.Add(pause).After(t.Ended.Add(min(hookFor, t.keep()))) {
			state = hookFailed
			s.metrics.webhooks.WithLabelValues(attemptGivenUp).Inc()
			s.log.Error("webhook given up", "job", t.ID, "host", hostOf(h.URL), "attempts", h.Attempts, "reason", reason)
		} else {
			s.metrics.webhooks.WithLabelValues(attemptRetried).Inc()
			s.log.Warn("webhook not delivered, trying again", "job", t.ID, "host", hostOf(h.URL), "attempts", h.Attempts, "reason", reason, "pause", pause)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseFor-hookTimeout)
	defer cancel()
	after, err := s.persist(ctx, t.key(), func(t *task) error { return t.settleHook(holder, state, reason, now.Add(pause)) })
	switch {
	case err != nil:
		s.log.Warn("outcome of a webhook was not stored", "job", t.ID, "err", err)
	case state == hookPending:
		time.AfterFunc(pause, s.nudge)
	default:
		s.tidy(ctx, after)
	}
}

// backoff is the pause after so many attempts, spread so that those who waited
// for one receiver do not come back as one.
func backoff(attempts int) time.Duration {
	pause := hookMost
	if n := attempts - 1; n < 20 {
		pause = min(hookFirst<<n, hookMost)
	}
	return time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
}

// refused is a failure that is told in words of our own.
type refused struct {
	why   string
	final bool // another attempt is no use
}

func (r refused) Error() string { return r.why }

// tell posts the job, signed, to its webhook once. wanted is the pause that the
// receiver asked for.
func (s *Service) tell(ctx context.Context, t *task) (wanted time.Duration, err error) {
	u, why := s.sender.judge(t.Job.Webhook.URL)
	if why != "" {
		return 0, refused{why: why}
	}
	o, err := s.jobObject(ctx, t, true)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return 0, refused{"the answer is no longer kept", true}
	case err != nil:
		return 0, refused{why: "the answer cannot be read"}
	}
	o.Webhook = nil // how often it was tried is nothing that a receiver should see change
	body, err := json.Marshal(o)
	if err != nil {
		return 0, fmt.Errorf("write job: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	now := time.Now()
	signature, err := s.sender.signer.Sign(t.ID, now, body)
	if err != nil {
		return 0, fmt.Errorf("sign webhook: %w", err)
	}
	r.Close = true // the next one is far away
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "infer")
	r.Header.Set(webhooks.HeaderWebhookID, t.ID)
	r.Header.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(webhooks.HeaderWebhookSignature, signature)
	resp, err := s.sender.client.Do(r)
	if err != nil {
		return 0, err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // what it says besides its status is nothing to us
	_ = resp.Body.Close()
	return verdict(resp)
}

// verdict reads the answer of a receiver.
func verdict(resp *http.Response) (wanted time.Duration, err error) {
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		wanted = min(time.Duration(seconds)*time.Second, hookMost)
	}
	switch status := resp.StatusCode; {
	case status >= 200 && status < 300:
		return 0, nil
	case status >= 300 && status < 400:
		return wanted, refused{why: "its host redirects, which is not followed; name the final address"}
	case status == http.StatusGone:
		return 0, refused{"its host answers with status 410: nobody is there any more", true}
	default:
		return wanted, refused{why: fmt.Sprintf("its host answers with status %d", status)}
	}
}

// hostOf is the part of an address that is no secret.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}
