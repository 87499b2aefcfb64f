package serve

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"infer/internal/admission"
	"infer/internal/engine"
	"infer/internal/openai"
)

// The ends of a request that this package decides.
var (
	// errDeadline: the caller's X-Request-Timeout has passed.
	errDeadline = errors.New("the request's deadline passed")
	// errTimeLimit: the server's own bound of a request's time has passed.
	errTimeLimit = errors.New("the request took longer than this server allows")
	// errDrainCut: the drain ran out of time.
	errDrainCut = errors.New("the server stops now")
	// errCut is what an engine gets that writes to an answer that was ended.
	errCut = errors.New("the answer was ended before the engine finished")
)

// statusClientGone is nginx's code for a client that left before its answer.
// It is never sent; it is for the log and the metrics.
const statusClientGone = 499

// refusals is the contract of every refusal after the body was understood.
var refusals = []struct {
	err    error
	status int
	kind   string
	code   string
	reason string // label of infer_rejected_total
	remedy string
}{
	{admission.ErrQueueFull, http.StatusTooManyRequests, openai.TypeRateLimit, openai.CodeQueueFull, "queue_full",
		"retry after the time in Retry-After, add replicas or raise --max-queue"},
	{admission.ErrQueueBytes, http.StatusTooManyRequests, openai.TypeRateLimit, openai.CodeQueueFull, "queue_bytes",
		"retry after the time in Retry-After, send smaller requests, add replicas or raise --max-queue-bytes"},
	{admission.ErrQueueTokens, http.StatusTooManyRequests, openai.TypeRateLimit, openai.CodeQueueFull, "queue_tokens",
		"retry after the time in Retry-After, send shorter prompts, add replicas or raise --max-queue-tokens"},
	{admission.ErrDisplaced, http.StatusTooManyRequests, openai.TypeRateLimit, openai.CodeQueueFull, "displaced",
		"retry after the time in Retry-After, send fewer requests at once, add replicas or raise --max-queue"},
	{admission.ErrTooSlow, http.StatusTooManyRequests, openai.TypeRateLimit, openai.CodeTooSlow, "wait_too_long",
		"retry after the time in Retry-After, allow more time or add replicas"},
	{admission.ErrHoldTimeout, http.StatusServiceUnavailable, openai.TypeUnavailable, openai.CodeNotReady, "not_ready",
		"retry after the time in Retry-After; GET /readyz tells the progress, --hold how long requests wait"},
	{admission.ErrEngineFailed, http.StatusServiceUnavailable, openai.TypeUnavailable, openai.CodeNotReady, "engine_failed",
		"GET /readyz tells the cause"},
	{admission.ErrDraining, http.StatusServiceUnavailable, openai.TypeUnavailable, openai.CodeDraining, "draining",
		"retry on a new connection, which reaches another replica"},
	{errDrainCut, http.StatusServiceUnavailable, openai.TypeUnavailable, openai.CodeDraining, "draining",
		"retry on a new connection, which reaches another replica; a longer --grace lets more streams finish"},
	{errDeadline, http.StatusGatewayTimeout, openai.TypeTimeout, openai.CodeDeadline, "deadline",
		"allow more time in X-Request-Timeout or retry when the server is less busy"},
	{admission.ErrDeadline, http.StatusGatewayTimeout, openai.TypeTimeout, openai.CodeDeadline, "deadline",
		"it was never started; allow more time in X-Request-Timeout or in the client's timeout, or retry when the server is less busy"},
	{errTimeLimit, http.StatusGatewayTimeout, openai.TypeTimeout, openai.CodeDeadline, "time_limit",
		"ask for less or raise --max-request-time"},
}

// reasons lists the labels of infer_rejected_total.
func reasons() []string {
	labels := []string{"connections", reasonKey, reasonForbidden, reasonRate}
	for _, r := range refusals {
		if !slices.Contains(labels, r.reason) {
			labels = append(labels, r.reason)
		}
	}
	return labels
}

// refusal turns err into its reply and reason. ok is false for a client that
// left, who gets no reply.
func (s *Server) refusal(err error) (e *openai.Error, reason string, ok bool) {
	if errors.Is(err, context.Canceled) {
		return nil, "", false
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			what := r.err
			if slow, ok := errors.AsType[*admission.TooSlowError](err); ok {
				what = slow // it knows how long
			}
			e := &openai.Error{Status: r.status, Type: r.kind, Code: r.code, Message: what.Error() + "; " + r.remedy}
			if e.Status == http.StatusServiceUnavailable {
				s.explain(e)
			}
			return e, r.reason, true
		}
	}
	return openai.Internal("the request could not be handled; the log of the server says why"), "", true
}

// explain adds what the engine says of itself.
func (s *Server) explain(e *openai.Error) {
	st, _ := s.status()
	e.Phase = string(st.Phase)
	if st.Failure != nil {
		e.Cause = string(st.Failure.Cause)
		e.Message += "; " + st.Failure.Error()
	} else if st.Phase != engine.Ready && st.Progress >= 0 {
		e.Message += fmt.Sprintf(" (%s, %.0f %%)", st.Phase, 100*st.Progress)
	}
}

// advise sets what tells clients whether and when to try again.
func (x *exchange) advise(status int) {
	h := x.w.Header()
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		if h.Get("Retry-After") == "" {
			after := x.retryAfter()
			h.Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
			h.Set("Retry-After-Ms", strconv.FormatInt(after.Milliseconds(), 10)) // what OpenAI's and Anthropic's clients read first
		}
		if st, _ := x.s.status(); st.Failure != nil && !st.Failure.Retryable {
			h.Set("X-Should-Retry", "false") // OpenAI's clients obey it
		}
	case status >= 400 && status < 500 && status != http.StatusRequestTimeout && h.Get("X-Should-Retry") == "":
		h.Set("X-Should-Retry", "false")
	}
}

// retryAfter is the wait until a slot is free, or until another replica or a
// restarted engine answers. Requests to the model book it, so that they come
// back one after the other; a probe is no request that could take a slot.
func (x *exchange) retryAfter() time.Duration {
	st, _ := x.s.status()
	left, learned := untilReady(st)
	from := x.after
	switch {
	case x.s.gate.Draining():
		return time.Second
	case learned:
		from = max(from, left)
	case st.Failure != nil:
		from = max(from, 30*time.Second)
	case st.Phase != engine.Ready && st.Phase != engine.Asleep:
		from = max(from, 5*time.Second) // it seldom becomes ready sooner
	}
	if !x.modeled {
		return min(max(from, time.Second), 120*time.Second) // clients ignore what is longer
	}
	return x.s.gate.RetryAfter(from)
}

// soonest is how long a request that was refused with err cannot be let in.
func soonest(err error) time.Duration {
	if slow, ok := errors.AsType[*admission.TooSlowError](err); ok {
		return slow.Wait - slow.Allowed
	}
	return 0
}
