package jobs

import (
	"bytes"
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"io"
	"net/http"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
	"infer/internal/translate"
)

// response is one of OpenAI's responses that is kept. One that was answered at
// once is written when it has ended; a background one is a task that runs.
type response struct {
	Items      content `json:"items"` // its conversation: a JSON array of input items
	Background bool    `json:"background,omitzero"`
	Stream     bool    `json:"stream,omitzero"`  // its events are kept, see responseLog
	Body       content `json:"body,omitzero"`    // what runs, with the whole conversation in input
	Initial    content `json:"initial,omitzero"` // the object as it was accepted
	Status     string  `json:"status,omitzero"`  // of Final
	Final      content `json:"final,omitzero"`   // the object as it ended
}

// Statuses of a response's object.
const (
	responseQueued     = "queued"
	responseInProgress = "in_progress"
	responseCompleted  = "completed"
	responseIncomplete = "incomplete"
	responseFailed     = "failed"
	responseCancelled  = "cancelled"
)

const responsesPath = "/v1/responses"

// Before stands before the engine's routes: Once, and on POST /v1/responses
// what keeps responses.
func (s *Service) Before(next http.Handler) http.Handler {
	respond := s.respond(next)
	return s.Once(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == responsesPath {
			respond.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// responseAsk is a request for a response.
type responseAsk struct {
	body       []byte
	items      []byte // its conversation; nil when input is not sound, which the translator will say
	background bool
	stream     bool
	keep       bool
}

// respond lets a response go on from a previous one, run in the background, and
// be kept.
func (s *Service) respond(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			openai.WriteError(w, openai.Invalid("", openai.CodeInvalidJSON, "the body could not be read; send it again"))
			return
		}
		turn := &translate.Turn{ID: newID("resp_")}
		a, err := s.understand(r, body, turn)
		switch {
		case err != nil:
			s.failLater(w, r, err)
		case a.background:
			s.background(w, r, a, body, turn)
		default:
			owner, began := s.caller(r), time.Now()
			if a.keep && a.items != nil {
				turn.Keep = func(object []byte) bool { return s.keep(r.Context(), owner, turn.ID, began, a.items, object) }
			}
			r = r.WithContext(translate.WithTurn(r.Context(), turn))
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(a.body)), int64(len(a.body))
			next.ServeHTTP(w, r)
		}
	})
}

// failLater is fail, with what makes clients send again what another request
// is still in the way of.
func (s *Service) failLater(w http.ResponseWriter, r *http.Request, err error) {
	if e, ok := err.(*openai.Error); ok && e.Status == http.StatusConflict {
		w.Header().Set("Retry-After", "1")
		w.Header().Set("X-Should-Retry", "true")
	}
	s.fail(w, r, err)
}

// understand reads what is asked, and puts the previous conversation before
// the input.
func (s *Service) understand(r *http.Request, body []byte, turn *translate.Turn) (responseAsk, error) {
	req, e := openai.Peek(body)
	if e != nil {
		return responseAsk{}, e
	}
	keepable := req.Member("store").Kind() != 'f'
	a := responseAsk{body: body, background: req.Member("background").Kind() == 't', stream: req.Stream, keep: keepable && s.cfg.Keep}
	if a.background && !keepable {
		return a, openai.Invalid("store", openai.CodeInvalidValue, "store must not be false with background: who asks later must find the answer")
	}
	var previous string
	if v := req.Member("previous_response_id"); v.Kind() == '"' && json.Unmarshal(v.Text, &previous) != nil {
		return a, openai.Invalid("previous_response_id", openai.CodeInvalidValue, "previous_response_id must be the id of a response")
	}
	if previous == "" && !a.background && !a.keep {
		return a, nil
	}
	var past []jsontext.Value
	if previous != "" {
		if _, e := translate.Queued(body, turn); e != nil { // input alone, before it stands among others
			return a, e
		}
		var err error
		if past, err = s.past(r, previous); err != nil {
			return a, err
		}
	}
	items, ok := inputItems(req.Member("input").Text)
	if !ok {
		return a, nil
	}
	var err error
	if a.items, err = json.Marshal(append(past, items...)); err != nil {
		return a, err
	}
	if previous != "" {
		if a.body, err = withMember(body, "input", a.items); err != nil {
			return a, err
		}
		if len(a.body) > maxRequestBytes {
			return a, &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeInvalidRequest, Code: openai.CodeTooLarge,
				Param: "previous_response_id", Message: "the conversation has become too long; begin a new one"}
		}
	}
	return a, nil
}

// keep writes a response that was answered at once. What cannot be kept is
// answered all the same, and says so.
func (s *Service) keep(ctx context.Context, owner, id string, began time.Time, items, object []byte) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseFor/6)
	defer cancel()
	t := &task{ID: id, Kind: kindResponse, Owner: owner, State: ended, Created: began, Began: began, Ended: time.Now(),
		Keep: int64(s.cfg.ResultTTL.Seconds()), Response: &response{Status: statusOf(object)}}
	err := s.writeKept(ctx, t, items, object)
	if err != nil {
		s.notKept(id, err)
	}
	return err == nil
}

// notKept counts a response that the store did not take, and warns of it now
// and then: where the store is full, each one is such.
func (s *Service) notKept(id string, err error) {
	reason := unkeptFailed
	if errors.Is(err, store.ErrFull) {
		reason = unkeptFull
	}
	s.metrics.unkept.WithLabelValues(reason).Inc()
	if others, ok := s.unkept.turn(time.Now()); ok {
		s.log.Warn("response cannot be kept; its answer says store: false", "id", id, "err", err, "others", others,
			"remedy", "give --state a larger volume, shorten --result-ttl, or turn it off with --keep-responses=false")
	}
}

func (s *Service) writeKept(ctx context.Context, t *task, items, object []byte) (err error) {
	defer func() {
		if err != nil && ctx.Err() == nil { // nothing refers to what was put; what stays goes with its time
			s.drop(ctx, t.Response.Items)
			s.drop(ctx, t.Response.Final)
		}
	}()
	if t.Response.Items, err = s.put(ctx, items, s.cfg.ResultTTL+contentSpare); err != nil {
		return err
	}
	if t.Response.Final, err = s.put(ctx, object, s.cfg.ResultTTL+contentSpare); err != nil {
		return err
	}
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return s.store.Create(ctx, t.key(), value, t.ttl())
}

// background accepts a response that runs later, and answers with it as it is
// queued, or with its events from the first on. One that the key of the request
// has made before is answered as it stands.
func (s *Service) background(w http.ResponseWriter, r *http.Request, a responseAsk, sent []byte, turn *translate.Turn) {
	turn.Background, turn.Created = true, time.Now().Unix()
	object, e := translate.Queued(a.body, turn)
	if e != nil {
		openai.WriteError(w, e)
		return
	}
	t, id, err := s.earlier(r, sent, turn.ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if s.cfg.Accepted != nil {
		s.cfg.Accepted(r)
	}
	if t == nil {
		t = &task{ID: id, Kind: kindResponse, Owner: s.caller(r), Deadline: time.Now().Add(s.cfg.Deadline),
			Keep: int64(s.cfg.ResultTTL.Seconds()), Response: &response{Background: true, Stream: a.stream}}
		if id != turn.ID { // of a try that wrote no task
			object, err = withMember(object, "id", id)
		}
		if err == nil {
			err = s.acceptResponse(r.Context(), t, a, object)
		}
	}
	switch {
	case err != nil:
		s.fail(w, r, err)
	case a.stream:
		s.tail(w, r, t, -1)
	default:
		w.Header().Set("Location", responsesPath+"/"+t.ID)
		s.show(w, r, t)
	}
}

// earlier returns the response that the key of a request has made before, whose
// answer the client does not have, or nil and the id to make it with. A key is
// forgotten no later than its response is: what is left of the log of one is not
// to become that of another.
func (s *Service) earlier(r *http.Request, sent []byte, fresh string) (t *task, id string, err error) {
	key, owner := r.Header.Get(idempotencyHeader), s.caller(r)
	if key == "" {
		return nil, fresh, nil
	}
	if id, err = s.idFor(r.Context(), owner, "resp", key, sent, fresh, s.cfg.ResultTTL); err != nil {
		return nil, "", err
	}
	if t, _, err = s.load(r.Context(), taskKey(kindResponse, owner, id)); errors.Is(err, store.ErrNotFound) {
		return nil, id, nil
	}
	return t, id, err
}

// acceptResponse writes the task of a response, or reads the one that another
// request with the same key has written first.
func (s *Service) acceptResponse(ctx context.Context, t *task, a responseAsk, object []byte) (err error) {
	if err := s.quota.take(ctx, t.Owner); err != nil {
		return err
	}
	drop := func() {
		s.drop(ctx, t.Response.Body)
		s.drop(ctx, t.Response.Items)
		s.drop(ctx, t.Response.Initial)
	}
	for c, b := range map[*content][]byte{&t.Response.Body: a.body, &t.Response.Items: a.items, &t.Response.Initial: object} {
		if *c, err = s.put(ctx, b, s.responseTTL()); err != nil {
			drop()
			return err
		}
	}
	created, err := s.accept(ctx, t)
	if err != nil || created {
		return err
	}
	drop()
	first, _, err := s.load(ctx, t.key())
	if err == nil {
		*t = *first
	}
	return err
}

// responseTTL is how long what belongs to a background response may be needed.
func (s *Service) responseTTL() time.Duration { return s.cfg.Deadline + s.cfg.ResultTTL + contentSpare }

// lost says why a response may not be there.
func (s *Service) lost() string {
	if s.cfg.Keep {
		return "may have expired or been deleted"
	}
	return "was not kept, unless it ran in the background: this server has --keep-responses=false"
}

// past is the conversation up to and with a previous response.
func (s *Service) past(r *http.Request, id string) ([]jsontext.Value, error) {
	gone := func(err error) error {
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return openai.Invalid("previous_response_id", openai.CodePreviousNotFound, "there is no response %q to go on from; it %s: send the conversation as input", clip(id), s.lost())
	}
	if !validID(id) {
		return nil, gone(store.ErrNotFound)
	}
	t, _, err := s.load(r.Context(), taskKey(kindResponse, s.caller(r), id))
	if err != nil {
		return nil, gone(err)
	}
	switch status := t.Response.Status; {
	case t.State != ended:
		return nil, conflict(openai.CodeWrongState, "the previous response has not ended; send this again when it has")
	case status != responseCompleted && status != responseIncomplete:
		return nil, openai.Invalid("previous_response_id", openai.CodeWrongState, "the previous response is %s; go on from the one before it", status)
	}
	items, err := s.get(r.Context(), t.Response.Items)
	if err != nil {
		return nil, gone(err)
	}
	object, err := s.get(r.Context(), t.Response.Final)
	if err != nil {
		return nil, gone(err)
	}
	var all []jsontext.Value
	var o struct {
		Output []jsontext.Value `json:"output"`
	}
	if err := json.Unmarshal(items, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return nil, err
	}
	return append(all, o.Output...), nil
}
