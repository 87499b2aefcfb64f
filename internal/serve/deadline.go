package serve

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"time"

	"infer/internal/openai"
)

const timeoutHeader = "X-Request-Timeout"

// clientTimeouts are the headers in which the clients of OpenAI and Anthropic say
// after how many seconds they give an attempt up: those for Go and JavaScript,
// and those for Python, which mean the time between two reads.
var clientTimeouts = []string{"X-Stainless-Timeout", "X-Stainless-Read-Timeout"}

// deadline bounds a request by what its caller allows and by what the server
// does, both counted from its arrival.
func (s *Server) deadline(x *exchange, r *http.Request) (context.Context, context.CancelFunc, *openai.Error) {
	if v := r.Header.Get(timeoutHeader); v != "" {
		seconds, ok := parseSeconds(v)
		if !ok || seconds > 24*time.Hour {
			return nil, nil, openai.Invalid(timeoutHeader, openai.CodeInvalidValue,
				"%s must be seconds above 0 and up to 86400, such as 30 or 2.5", timeoutHeader)
		}
		x.until, x.cause = x.start.Add(seconds), errDeadline
	}
	if own := s.cfg.MaxRequestTime; own > 0 && (x.until.IsZero() || x.start.Add(own).Before(x.until)) {
		x.until, x.cause = x.start.Add(own), errTimeLimit
	}
	if x.until.IsZero() {
		return r.Context(), func() {}, nil
	}
	ctx, cancel := context.WithDeadlineCause(r.Context(), x.until, x.cause)
	return ctx, cancel, nil
}

// heed bounds the wait for a slot by the client's own timeout: who has left by
// then needs no answer. For a stream it counts only where it is over before the
// status line leaves; then comments keep the client.
func (x *exchange) heed(r *http.Request) {
	for _, name := range clientTimeouts {
		seconds, ok := parseSeconds(r.Header.Get(name))
		if !ok || x.stream && seconds > x.s.cfg.CommitAfter {
			continue
		}
		if until := x.start.Add(seconds); x.until.IsZero() || until.Before(x.until) {
			x.until, x.cause = until, nil
		}
	}
}

// parseSeconds reads a positive number of seconds.
func parseSeconds(v string) (time.Duration, bool) {
	seconds, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return 0, false
	}
	return time.Duration(min(seconds*float64(time.Second), math.MaxInt64/2)), true
}
