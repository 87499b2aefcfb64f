package translate

import (
	"bytes"
	"encoding/json/v2"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"infer/internal/openai"
)

// dialect is one request in the client's protocol, and how its answer looks.
type dialect interface {
	steps
	pending() *events
	end(*answer)                               // the last events of a whole stream
	cut(*answer, *openai.Error)                // the last events of a broken one
	whole(*answer) (any, *openai.Error)        // the body of an answer without stream
	refuse(http.ResponseWriter, *openai.Error) // instead of any answer
	names() [][2]string                        // chat's fields and what the client calls them
	chat() (body *chatRequest, fresh *answer)
}

// parse reads a request and returns it in the client's protocol.
type parse func(body []byte) (dialect, *openai.Error)

// ask is the way of a request through a chat handler.
func ask(chat http.Handler, w http.ResponseWriter, r *http.Request, p parse, refuse func(http.ResponseWriter, *openai.Error)) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, openai.Invalid("", openai.CodeInvalidJSON, "the body cannot be read; send it again"))
		return
	}
	d, e := p(body)
	if e != nil {
		refuse(w, e)
		return
	}
	request, a := d.chat()
	inner, e := forward(r, "/v1/chat/completions", request)
	if e != nil {
		refuse(w, e)
		return
	}
	out := &writer{w: w, d: d, a: a, streaming: request.Stream, steps: silent{}, header: make(http.Header)}
	if out.streaming {
		out.steps = d
	}
	out.close(r.Context(), call(chat, out, inner))
}

// call lets the chat handler answer. aborted says that it broke off, as a
// proxy does whose upstream did.
func call(chat http.Handler, w http.ResponseWriter, r *http.Request) (aborted bool) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			aborted = true
		} else if p != nil {
			panic(p)
		}
	}()
	chat.ServeHTTP(w, r)
	return false
}

// forward returns r as a request of another path and body.
func forward(r *http.Request, path string, v any) (*http.Request, *openai.Error) {
	body, err := json.Marshal(v, lenient)
	if err != nil {
		return nil, openai.Internal("the request cannot be written as JSON")
	}
	inner := r.WithContext(r.Context())
	inner.URL = &url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Path: path}
	inner.RequestURI = path
	inner.Header = r.Header.Clone()
	inner.Header.Set("Content-Type", "application/json")
	inner.Header.Set("Content-Length", strconv.Itoa(len(body)))
	inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return inner, nil
}
