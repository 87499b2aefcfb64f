package jobs

import (
	"encoding/json/v2"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"infer/internal/openai"
	"infer/internal/store"
)

// replies is what the store's errors mean to a client. All are worth a retry
// but the last.
var replies = []struct {
	err     error
	message string
}{
	{store.ErrFull, "the server's store is full; delete files that are no longer needed, or give --state a larger volume"},
	{store.ErrCorrupt, "the server's store is damaged; its log says what to do"},
}

// fail answers err: an *openai.Error as it is, anything else as the store's
// fault, whose detail is for the log.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	var e *openai.Error
	switch {
	case errors.As(err, &e):
		if e.Status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", strconv.Itoa(int(quotaPause.Seconds())))
		}
	case r.Context().Err() != nil:
		return // nobody reads it
	default:
		e = &openai.Error{Status: http.StatusServiceUnavailable, Type: openai.TypeUnavailable, Code: openai.CodeStore,
			Message: "the server's store cannot be reached; send the request again later, with the same Idempotency-Key if it had one"}
		for _, reply := range replies {
			if errors.Is(err, reply.err) {
				e.Message = reply.message
			}
		}
		s.log.Error("store failed a request", "path", r.URL.Path, "err", err)
	}
	openai.WriteError(w, e)
}

// absent is the answer for what is not there, or another caller's.
func absent(what, id string) *openai.Error {
	return &openai.Error{Status: http.StatusNotFound, Type: openai.TypeNotFound, Code: openai.CodeNotFound, Param: what + "_id",
		Message: "there is no " + what + " " + strconv.Quote(clip(id)) + "; it may have expired or been deleted"}
}

// found turns the store's ErrNotFound into the client's 404.
func found(err error, what, id string) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrBadKey) {
		return absent(what, id)
	}
	return err
}

// conflict is a request that the state of things does not allow.
func conflict(code, message string) *openai.Error {
	return &openai.Error{Status: http.StatusConflict, Type: openai.TypeInvalidRequest, Code: code, Message: message}
}

// clip is what is repeated of a client's text: no more than that, and always
// UTF-8, which JSON has to be.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// writeJSON answers with v, which always marshals.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		openai.WriteError(w, openai.Internal("the answer could not be written as JSON"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client may have left
}

// maxRequestBytes bounds what a client sends besides files.
const maxRequestBytes = 32 << 20

// readBody reads the JSON object that a client sent.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *openai.Error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeInvalidRequest, Code: openai.CodeTooLarge,
			Message: "the body is larger than " + strconv.Itoa(maxRequestBytes) + " bytes; shorten it"}
	case err != nil:
		return nil, openai.Invalid("", openai.CodeInvalidJSON, "the body could not be read; send it again")
	}
	return b, nil
}

// list is a page of objects, newest first.
type list[T any] struct {
	Object  string `json:"object"` // always list
	Data    []T    `json:"data"`
	FirstID string `json:"first_id,omitempty"`
	LastID  string `json:"last_id,omitempty"`
	HasMore bool   `json:"has_more"`
}

// pageOf reads which page is asked for.
func pageOf(r *http.Request, most int) (limit int, after string, e *openai.Error) {
	q := r.URL.Query()
	limit = 20
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > most {
			return 0, "", openai.Invalid("limit", openai.CodeInvalidValue, "limit must be a whole number from 1 to %d", most)
		}
		limit = n
	}
	if after = q.Get("after"); after != "" && !validID(after) {
		return 0, "", openai.Invalid("after", openai.CodeInvalidValue, "after must be the id of an object")
	}
	return limit, after, nil
}

// readList reads one page of what is under prefix. read returns false for what
// is left out.
func readList[T any](s *Service, r *http.Request, prefix string, limit int, after string, read func(key string) (T, string, bool, error)) (list[T], error) {
	l := list[T]{Object: "list", Data: []T{}}
	from := ""
	if after != "" {
		from = prefix + after
	}
	for {
		keys, err := s.store.List(r.Context(), prefix, from, page)
		if err != nil {
			return l, err
		}
		for _, key := range keys {
			v, id, ok, err := read(key)
			if errors.Is(err, store.ErrNotFound) || (err == nil && !ok) {
				continue
			} else if err != nil {
				return l, err
			}
			if len(l.Data) == limit {
				l.HasMore = true
				return l, nil
			}
			if l.FirstID == "" {
				l.FirstID = id
			}
			l.Data, l.LastID = append(l.Data, v), id
		}
		if len(keys) < page {
			return l, nil
		}
		from = keys[len(keys)-1]
	}
}
