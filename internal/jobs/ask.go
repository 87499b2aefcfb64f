package jobs

import (
	"bytes"
	"context"
	"encoding/json/jsontext"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"infer/internal/openai"
)

// maxAnswerBytes bounds an answer that is kept.
const maxAnswerBytes = 64 << 20

// errAnswerTooLong is what an engine gets that writes more.
var errAnswerTooLong = errors.New("the answer is too long to be kept")

// routes lists the paths that durable work may ask.
func routes() []string {
	return []string{"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",
		"/v1/embeddings", "/v1/rerank", "/v1/score", "/classify"}
}

// answer is what a request was answered with.
type answer struct {
	status     int
	requestID  string
	retryAfter time.Duration
	body       []byte
}

// recorder is the http.ResponseWriter of a request that nobody waits for.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.body.Len()+len(p) > maxAnswerBytes {
		return 0, errAnswerTooLong
	}
	return r.body.Write(p)
}

// Ask sends a body through a handler as a client would, and returns the
// answer. A handler that breaks off has answered 502.
func ask(ctx context.Context, h http.Handler, path string, body []byte) answer {
	rec := &recorder{header: http.Header{}}
	if r, err := post(ctx, path, body); err != nil {
		openai.WriteError(rec, openai.Internal("the request could not be made"))
	} else if serve(h, rec, r) {
		rec.status, rec.body = http.StatusBadGateway, *bytes.NewBuffer((&openai.Error{Type: openai.TypeServer,
			Code: openai.CodeBrokeOff, Message: "the engine broke off"}).Body())
	}
	return rec.answer()
}

// answer is what was recorded.
func (r *recorder) answer() answer {
	a := answer{status: r.status, requestID: r.header.Get("X-Request-Id"), body: r.body.Bytes()}
	if seconds, err := strconv.Atoi(r.header.Get("Retry-After")); err == nil {
		a.retryAfter = time.Duration(seconds) * time.Second
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a
}

// post is a request of this process to itself.
func post(ctx context.Context, path string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.RequestURI, r.RemoteAddr, r.Host = path, "jobs", "jobs"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "infer-jobs")
	return r, nil
}

// serve lets h answer. aborted says that it broke off.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) (aborted bool) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			aborted = true
		} else if p != nil {
			panic(p)
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

// busy says that the server could not take the request now: nothing ran.
func (a answer) busy() bool {
	return a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable
}

// broken says that the engine failed, which may go better another time.
func (a answer) broken() bool { return a.status >= 500 && !a.busy() }

// pause is how long to wait before the request is sent again.
func (a answer) pause() time.Duration {
	return min(max(a.retryAfter, 500*time.Millisecond), 2*time.Minute)
}

// maxFaults bounds how often a request is sent that the engine fails on.
const maxFaults = 3

// checkBody refuses what cannot be durable work: another path, or a stream,
// which nobody would read.
func checkBody(path, at string, body []byte) *openai.Error {
	if !slices.Contains(routes(), path) {
		return openai.Invalid("url", openai.CodeInvalidValue, "url must be one of /v1/chat/completions, /v1/completions, "+
			"/v1/responses, /v1/messages, /v1/embeddings, /v1/rerank, /v1/score and /classify, got %.64q", path)
	}
	req, e := openai.Peek(body)
	switch {
	case e != nil:
		if e.Param != "" {
			e.Param = at + "." + e.Param
		}
		return e
	case req.Stream:
		return openai.Invalid(at+".stream", openai.CodeInvalidValue, "%s.stream must be false or absent: nobody reads the stream; "+
			"POST /v1/responses with background and stream is one that can be read later", at)
	case path == "/v1/responses" && req.Member("background").Kind() == 't':
		return openai.Invalid(at+".background", openai.CodeInvalidValue, "%s.background must be false or absent: a job is in the background", at)
	}
	return nil
}

// asJSON is b if it is one JSON value, else b as a string, so that whatever was
// answered can stand in an object.
func asJSON(b []byte) jsontext.Value {
	if v := jsontext.Value(bytes.TrimSpace(b)); v.IsValid() {
		return v
	}
	q, err := jsontext.AppendQuote(nil, bytes.ToValidUTF8(b, []byte("\ufffd")))
	if err != nil {
		return jsontext.Value("null")
	}
	return q
}
