package dapr

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json/v2"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
	sdk "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"infer/internal/openai"
)

const (
	publishTimeout = 10 * time.Second
	maxBreaks      = 3 // answers of 500 and 502 before the error is the result
	deltaEvery     = 200 * time.Millisecond
)

const (
	done  = pb.TopicEventResponse_SUCCESS
	again = pb.TopicEventResponse_RETRY
)

// errLeft: the work was given up because the program stops.
var errLeft = errors.New("the program stops")

// handle works on one event and says what to tell the sidecar. ok is false for
// an event that must stay unanswered so that it comes again: told to RETRY, the
// sidecar does so as often as its policy says, and then takes the event for done
// (dapr/components-contrib#4174).
//
// ctx ends the work; stopping says that no new attempt is worth while.
func (s *Sidecar) handle(ctx, stopping context.Context, e *pb.TopicEventRequest) (outcome pb.TopicEventResponse_TopicEventResponseStatus, ok bool) {
	r, fault := s.parse(e)
	log := s.log.With("event", r.name)
	if ours(e) {
		log.Warn("an event of the topic of requests is a reply, and is passed over; give requests a topic of their own", "type", e.GetType())
		s.metrics.events.WithLabelValues("refused").Inc()
		return done, true
	}
	left := func(message string, err error) (pb.TopicEventResponse_TopicEventResponseStatus, bool) {
		log.Warn(message, "err", err)
		s.metrics.events.WithLabelValues("left").Inc()
		return again, false
	}
	var result reply
	var err error
	kind := "refused"
	if fault != nil {
		result = refused(r.id, fault)
	} else {
		if result, err = s.attempts(ctx, stopping, &r); err != nil {
			return left("an event is left for another delivery", err)
		}
		kind = "done"
		if result.Error != nil {
			kind = "failed"
		}
	}
	if err := s.publish(ctx, stopping, &r, result); err != nil {
		return left("the result of an event could not be published; the event comes again", err)
	}
	s.metrics.events.WithLabelValues(kind).Inc()
	log.Info("event", "url", r.url, "status", result.Status, "reply_to", r.replyTo)
	return done, true
}

// attempts asks the engine until there is an answer that will not change.
func (s *Sidecar) attempts(ctx, stopping context.Context, r *request) (reply, error) {
	backoff := time.Second
	for breaks := 0; ; {
		if !r.deadline.IsZero() && time.Now().After(r.deadline) {
			return refused(r.id, &openai.Error{Status: http.StatusGatewayTimeout, Type: openai.TypeTimeout, Code: openai.CodeDeadline,
				Message: "the event's deadline passed before it was worked on; allow more time or add replicas"}), nil
		}
		a := s.ask(ctx, r)
		if ctx.Err() != nil {
			return reply{}, errLeft
		}
		switch {
		case a.lost != nil && status.Code(a.lost) != codes.ResourceExhausted:
			// Not the engine's fault either: the broker is away.
			s.log.Warn("publish a part of a stream; it begins anew", "event", r.name, "topic", r.replyTo, "err", a.lost)
		case a.status/100 == 2 && !a.aborted:
			return a.reply(r.id), nil
		case a.status == http.StatusConflict && a.waits():
			// The same event runs elsewhere, and its answer may be there any moment.
			backoff = time.Second
		case a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable:
			// Not the event's fault: it waits for its turn.
		case a.aborted, a.status == http.StatusBadGateway, a.status == http.StatusInternalServerError:
			if breaks++; breaks == maxBreaks {
				return a.reply(r.id), nil
			}
		default:
			return a.reply(r.id), nil
		}
		wait := max(a.retryAfter(), backoff)
		backoff = min(2*backoff, maxBackoff)
		s.log.Debug("an event waits", "event", r.name, "status", a.status, "wait_seconds", wait.Seconds())
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-stopping.Done():
			timer.Stop()
			return reply{}, errLeft
		}
	}
}

// ask sends the request to the program's own handler.
func (s *Sidecar) ask(ctx context.Context, r *request) *answer {
	a := &answer{header: http.Header{}, publish: func(p reply) error {
		return s.send(ctx, r, typeDelta, r.id+".delta."+strconv.Itoa(p.Sequence), p)
	}, id: r.id}
	hr, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(r.body))
	if err != nil { // parse let only clean paths pass
		a.status = http.StatusBadRequest
		return a
	}
	hr.Header = r.header(time.Now())
	hr.RequestURI = r.url
	func() {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			a.aborted = true // how the server says that an answer is not whole
			if p != http.ErrAbortHandler {
				// As net/http does it: one request's panic ends that request.
				s.log.Error("the handler of an event panicked", "event", r.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
		}()
		s.program.Handler.ServeHTTP(a, s.program.Work(hr))
	}()
	a.finish()
	return a
}

// publish sends the result until it is taken or the program stops. It has the
// same id at every delivery, so that a receiver knows a repetition.
func (s *Sidecar) publish(ctx, stopping context.Context, r *request, p reply) error {
	kind := typeResult
	if p.Error != nil {
		kind = typeError
	}
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := s.send(ctx, r, kind, r.id+".result", p)
		switch {
		case err == nil:
			return nil
		case status.Code(err) == codes.ResourceExhausted && p.Error == nil:
			kind, p = typeError, refused(r.id, &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeServer,
				Code: openai.CodeTooLarge, Message: "the result is larger than the sidecar takes; ask for less or raise the sidecar's --max-body-size"})
			continue
		}
		s.log.Warn("publish a result", "event", r.name, "topic", r.replyTo, "err", err)
		timer := time.NewTimer(backoff)
		select {
		case <-timer.C:
		case <-stopping.Done():
			timer.Stop()
			if ctx.Err() != nil {
				return err
			}
			// One more try, since the sidecar may take it now.
			return s.send(ctx, r, kind, r.id+".result", p)
		}
	}
}

// send publishes one event.
func (s *Sidecar) send(ctx context.Context, r *request, kind, id string, p reply) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, traceKey{}, r.trace), publishTimeout)
	defer cancel()
	meta := map[string]string{"cloudevent.id": id, "cloudevent.type": kind, "cloudevent.source": "infer", "cloudevent.subject": r.id}
	if r.trace.parent != "" {
		meta["cloudevent.traceparent"] = r.trace.parent
	}
	return s.client.PublishEvent(ctx, s.cfg.PubSub, r.replyTo, body,
		sdk.PublishEventWithContentType("application/json"), sdk.PublishEventWithMetadata(meta))
}

// idempotencyKey names the work of an event in at most 64 characters.
func idempotencyKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "event-" + hex.EncodeToString(sum[:16])
}
