package dapr

import (
	"encoding/json/jsontext"
	"net/http"
	"strconv"
	"strings"
	"time"

	"infer/internal/openai"
)

// maxAnswer bounds an answer that is not a stream. The engine's own bounds are
// far below.
const maxAnswer = maxMessageBytes / 2

// answer is the http.ResponseWriter of the worker's requests. A streamed answer
// is published in parts while it is written.
type answer struct {
	id      string
	publish func(reply) error
	header  http.Header
	status  int
	body    []byte // what was not published
	aborted bool   // the handler gave up in the middle

	deltas int
	sent   time.Time // when the last part was published
	lost   error     // a part could not be published
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if len(a.body)+len(p) > maxAnswer {
		a.aborted = true
		return 0, http.ErrContentLength
	}
	a.body = append(a.body, p...)
	return len(p), nil
}

// FlushError publishes what was written of a stream, at most every deltaEvery.
func (a *answer) FlushError() error {
	if a.streams() && time.Since(a.sent) >= deltaEvery {
		a.delta()
	}
	return a.lost
}

// Flush implements http.Flusher.
func (a *answer) Flush() { _ = a.FlushError() }

func (a *answer) streams() bool {
	return a.status == http.StatusOK && strings.HasPrefix(a.header.Get("Content-Type"), "text/event-stream")
}

// delta publishes the whole events that were written.
func (a *answer) delta() {
	end := strings.LastIndex(string(a.body), "\n\n")
	if end < 0 || a.lost != nil {
		return
	}
	end += 2
	a.deltas++
	a.sent = time.Now()
	a.lost = a.publish(reply{ID: a.id, Sequence: a.deltas, SSE: string(a.body[:end])})
	a.body = append(a.body[:0], a.body[end:]...)
}

// finish publishes the rest of a stream.
func (a *answer) finish() {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.streams() {
		a.delta()
		if a.lost != nil {
			a.aborted = true
		}
	}
}

// reply is what is published last.
func (a *answer) reply(id string) reply {
	switch {
	case a.aborted:
		return refused(id, &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
			Message: "the engine broke off; send the request again"})
	case a.status/100 != 2:
		return failed(id, a.status, a.body)
	case a.streams():
		return reply{ID: id, Status: a.status, Deltas: a.deltas}
	}
	if !jsontext.Value(a.body).IsValid() {
		return refused(id, openai.Internal("the engine's answer is not JSON"))
	}
	return reply{ID: id, Status: a.status, Response: a.body}
}

// waits says whether a 409 is about the same work being done elsewhere.
func (a *answer) waits() bool { return a.header.Get("Retry-After") != "" }

// retryAfter is how long the handler asks to wait, up to maxBackoff.
func (a *answer) retryAfter() time.Duration {
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxBackoff)
}
