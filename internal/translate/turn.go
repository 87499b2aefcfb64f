package translate

import (
	"context"
	"encoding/json/v2"

	"infer/internal/openai"
)

// Turn is what whoever keeps responses knows of one. A request whose context
// has a Turn may ask for background and previous_response_id; its input holds
// the whole conversation.
type Turn struct {
	ID         string
	Created    int64 // seconds since 1970; 0 for the time of the answer
	Background bool  // its stream has said created and queued before
	Again      bool  // an earlier run was lost: the stream says queued once more and begins anew
	First      int   // sequence number of the first event
	// Keep sees the whole response before the client does, and says whether it
	// is kept. Nil when nobody keeps it, or it is kept from what is written.
	Keep func(response []byte) bool
}

type turnKey struct{}

// WithTurn returns a context for the request of one response.
func WithTurn(ctx context.Context, t *Turn) context.Context {
	return context.WithValue(ctx, turnKey{}, t)
}

func turnOf(ctx context.Context) *Turn {
	t, _ := ctx.Value(turnKey{}).(*Turn)
	return t
}

// Queued returns the Response object of a request that waits, or why Responses
// would refuse its body.
func Queued(body []byte, t *Turn) ([]byte, *openai.Error) {
	d, e := parseResponses(body, t)
	if e != nil {
		return nil, e
	}
	d.start(&answer{})
	d.object.Status = statusQueued
	b, err := json.Marshal(d.object, lenient)
	if err != nil {
		return nil, openai.Internal("the response cannot be written as JSON")
	}
	return b, nil
}

// keep lets whoever keeps responses see the whole one.
func (d *responses) keep() {
	if d.turn == nil || d.turn.Keep == nil {
		return
	}
	b, err := json.Marshal(d.object, lenient)
	d.object.Store = err == nil && d.turn.Keep(b)
}
