package jobs

import (
	"bytes"
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

// response loads the response that the path names.
func (s *Service) response(r *http.Request) (*task, error) {
	t, err := s.named(r, kindResponse, "response")
	var e *openai.Error
	if errors.As(err, &e) && e.Code == openai.CodeNotFound {
		e.Message = "there is no response " + strconv.Quote(clip(r.PathValue("id"))) + "; it " + s.lost()
	}
	return t, err
}

// writeBody answers with JSON that is written already.
func writeBody(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b) // the client may have left
}

// responseObject is a response as it stands.
func (s *Service) responseObject(ctx context.Context, t *task) ([]byte, error) {
	if t.State == ended {
		b, err := s.get(ctx, t.Response.Final)
		return b, found(err, "response", t.ID)
	}
	b, err := s.get(ctx, t.Response.Initial)
	if err != nil {
		return nil, found(err, "response", t.ID)
	}
	if t.State == running {
		return withMember(b, "status", responseInProgress)
	}
	return b, nil
}

func (s *Service) getResponse(w http.ResponseWriter, r *http.Request) {
	t, err := s.response(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q := r.URL.Query()
	after := -1
	stream, e := flagOf(q.Get("stream"), "stream")
	if e == nil && !q.Has("stream") {
		stream = streamInBody(r)
	}
	if v := q.Get("starting_after"); e == nil && v != "" {
		var err error
		if after, err = strconv.Atoi(v); err != nil || after < 0 || !stream {
			e = openai.Invalid("starting_after", openai.CodeInvalidValue, "starting_after must be the sequence_number of an event, and needs stream=true")
		}
	}
	switch {
	case e != nil:
		openai.WriteError(w, e)
	case stream:
		s.resume(w, r, t, after)
	default:
		s.show(w, r, t)
	}
}

// flagOf reads a flag of a query.
func flagOf(v, name string) (bool, *openai.Error) {
	if v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, openai.Invalid(name, openai.CodeInvalidValue, "%s must be true or false", name)
	}
	return b, nil
}

// streamInBody says whether the body of a GET asks for a stream: there
// OpenAI's Go client 3.96 writes it in GetStreaming.
func streamInBody(r *http.Request) bool {
	var o struct {
		Stream bool `json:"stream"`
	}
	return json.UnmarshalRead(io.LimitReader(r.Body, 1<<10), &o) == nil && o.Stream
}

// show answers with a response as it stands.
func (s *Service) show(w http.ResponseWriter, r *http.Request, t *task) {
	b, err := s.responseObject(r.Context(), t)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if t.State != ended {
		w.Header().Set("Retry-After", "1") // when to look again
	}
	writeBody(w, b)
}

// resume tells the events of a response after one of them.
func (s *Service) resume(w http.ResponseWriter, r *http.Request, t *task, after int) {
	if !t.Response.Stream {
		openai.WriteError(w, openai.Invalid("stream", openai.CodeInvalidValue,
			"the events of this response are not kept; only a response that was made with background and stream can be streamed later"))
		return
	}
	if after >= firstLogged {
		l, err := s.openLog(r.Context(), t, "")
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if after >= l.next {
			openai.WriteError(w, openai.Invalid("starting_after", openai.CodeInvalidValue,
				"starting_after is beyond the last event so far, %d", l.next-1))
			return
		}
	}
	s.tail(w, r, t, after)
}

func (s *Service) cancelResponse(w http.ResponseWriter, r *http.Request) {
	t, err := s.response(r)
	if err == nil && !t.Response.Background {
		err = openai.Invalid("response_id", openai.CodeWrongState, "only a response that was made with background can be cancelled")
	}
	if err == nil && t.State != ended {
		t, err = s.endResponse(r.Context(), t)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, t)
}

// endResponse cancels a response, unless it ends by itself first.
func (s *Service) endResponse(ctx context.Context, t *task) (*task, error) {
	var end *entry
	for end == nil {
		l, err := s.openLog(ctx, t, newID(s.replica+"."))
		if err == nil && l.end == nil {
			err = l.close(ctx, t, responseCancelled, "", "")
		}
		if err != nil && !errors.Is(err, errLost) {
			return nil, err
		}
		if err == nil {
			end = l.end
		}
	}
	body := t.Response.Body
	prefix := logPrefix(t)
	t, err := s.cancel(ctx, t.key(), func(t *task) { t.Response.ended(end) })
	s.followers.call(prefix)
	if err == nil {
		s.drop(context.WithoutCancel(ctx), body)
	}
	return t, err
}

func (s *Service) deleteResponse(w http.ResponseWriter, r *http.Request) {
	t, err := s.response(r)
	if err == nil && t.State != ended {
		t, err = s.endResponse(r.Context(), t)
	}
	if err == nil {
		err = s.store.Delete(r.Context(), t.key(), "")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	ctx := context.WithoutCancel(r.Context())
	for _, c := range []content{t.Response.Items, t.Response.Initial, t.Response.Final} {
		s.drop(ctx, c)
	}
	if t.Response.Background {
		if err := s.removeLog(ctx, t); err != nil {
			s.log.Warn("events of a response cannot be removed; they go with their time", "key", t.key(), "err", err)
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"id": t.ID, "object": "response", "deleted": true})
}

// listInputItems lists the conversation that a response answered, newest first
// unless the order is asc.
func (s *Service) listInputItems(w http.ResponseWriter, r *http.Request) {
	limit, after, e := pageOf(r, 100)
	order := r.URL.Query().Get("order")
	if e == nil && order != "" && order != "asc" && order != "desc" {
		e = openai.Invalid("order", openai.CodeInvalidValue, "order must be asc or desc")
	}
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	t, err := s.response(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	b, err := s.get(r.Context(), t.Response.Items)
	if err != nil {
		s.fail(w, r, found(err, "response", t.ID))
		return
	}
	var items []jsontext.Value
	if err := json.Unmarshal(b, &items); err != nil {
		s.fail(w, r, err)
		return
	}
	if order != "asc" {
		slices.Reverse(items)
	}
	l := list[jsontext.Value]{Object: "list", Data: []jsontext.Value{}}
	seen := after == ""
	for _, item := range items {
		switch id := idOf(item); {
		case !seen:
			seen = id == after
		case len(l.Data) == limit:
			l.HasMore = true
		default:
			if l.FirstID == "" {
				l.FirstID = id
			}
			l.Data, l.LastID = append(l.Data, item), id
		}
	}
	if !seen {
		openai.WriteError(w, openai.Invalid("after", openai.CodeInvalidValue, "after must be the id of an item of this response"))
		return
	}
	writeJSON(w, http.StatusOK, l)
}

func idOf(item jsontext.Value) string {
	var o struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(item, &o) // what has none is empty
	return o.ID
}

// How a log is read that still grows.
const (
	tailPause   = 250 * time.Millisecond // where another replica writes it
	tailComment = 15 * time.Second
	settleLooks = 12 // for the end of a task whose log has ended
)

// tail writes the events of a response with numbers over after, until the end
// or until the client leaves.
func (s *Service) tail(w http.ResponseWriter, r *http.Request, t *task, after int) {
	initial, err := s.get(r.Context(), t.Response.Initial)
	if err != nil {
		s.fail(w, r, found(err, "response", t.ID))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	f := &follower{s: s, w: w, after: after}
	for i, name := range []string{"response.created", "response.queued"} {
		if ev, err := eventOf(name, i, initial); err == nil && f.err == nil {
			f.write(ev, i+1)
		}
	}
	f.follow(r.Context(), t)
}

// follower is one client of a log.
type follower struct {
	s     *Service
	w     http.ResponseWriter
	after int
	next  int   // sequence number of the next event that is read
	err   error // of a write: the client has left
}

// write writes those events of text, numbered up to next, that the client has
// not seen.
func (f *follower) write(text []byte, next int) {
	for len(text) > 0 {
		end := bytes.Index(text, []byte("\n\n")) + 2
		if end < 2 {
			end = len(text)
		}
		if f.next > f.after && f.err == nil {
			_, f.err = f.w.Write(text[:end])
		}
		f.next, text = f.next+1, text[end:]
	}
	f.next = next
	f.flush()
}

func (f *follower) flush() {
	if err := http.NewResponseController(f.w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) && f.err == nil {
		f.err = err
	}
}

// follow reads entry after entry as they come.
func (f *follower) follow(ctx context.Context, t *task) {
	prefix, quiet := logPrefix(t), time.Now()
	called, leave := f.s.followers.join(prefix)
	defer leave()
	for i := 0; f.err == nil; {
		en, err := f.s.entry(ctx, prefix, i)
		var text []byte
		if err == nil {
			text, err = f.s.get(ctx, en.Events)
		}
		switch {
		case err == nil:
			i, quiet = i+1, time.Now()
			if en.End {
				f.settled(ctx, t, called)
			}
			if f.write(text, en.Next); en.End {
				return
			}
			continue
		case ctx.Err() != nil:
			return
		case !errors.Is(err, store.ErrNotFound):
			f.s.log.Warn("events of a response cannot be read, trying again", "log", prefix, "err", err)
		case f.gone(ctx, t):
			return
		}
		if time.Since(quiet) > tailComment {
			quiet = time.Now()
			_, f.err = io.WriteString(f.w, ": ping\n\n")
			f.flush()
		}
		select {
		case <-ctx.Done():
			return
		case <-f.s.stopping: // the client goes on with another replica
			return
		case <-called:
		case <-time.After(tailPause):
		}
	}
}

// settled waits until the task has followed the end of its log, so that whoever
// asks for the response after its last event finds it as that says. Where the
// process that wrote the end was killed just then, another one settles it, which
// nobody shall wait for.
func (f *follower) settled(ctx context.Context, t *task, called <-chan struct{}) {
	for range settleLooks {
		now, _, err := f.s.load(ctx, t.key())
		if err != nil || now.State == ended {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-called:
		case <-time.After(tailPause):
		}
	}
}

// gone says that a response was deleted, and with it what would follow.
func (f *follower) gone(ctx context.Context, t *task) bool {
	_, err := f.s.store.Get(ctx, t.key())
	return errors.Is(err, store.ErrNotFound)
}
