package jobs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// prompt is a store that, like one on a disk, reads nothing once ctx is over.
type prompt struct{ store.Store }

func (p prompt) Get(ctx context.Context, key string) (store.Item, error) {
	if ctx.Err() != nil {
		return store.Item{}, ctx.Err()
	}
	return p.Store.Get(ctx, key)
}

func (p prompt) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return p.Store.List(ctx, prefix, after, limit)
}

// A response whose time is over before it is claimed ends, whether its body
// stands in the task or beside it.
func TestLateResponseEnds(t *testing.T) {
	for name, body := range map[string]content{
		"in the task": {Inline: []byte(`{"input":"x"}`)}, "beside it": {Ref: &ref{ID: "b", Bytes: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := talking(t, prompt{store.NewMemory(1 << 26)}, &talker{words: 1})
				defer r.end()
				late := &task{ID: newID("resp_"), Kind: kindResponse, Deadline: time.Now().Add(-time.Second), Keep: 3600,
					Response: &response{Background: true, Initial: content{Inline: []byte(`{"status":"queued"}`)}, Body: body}}
				if _, err := r.s.accept(t.Context(), late); err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Minute)
				now, _, err := r.s.load(t.Context(), late.key())
				if err != nil || now.State != ended || now.Response.Status != responseFailed {
					t.Fatalf("the task is %+v, %v", now, err)
				}
				if o := r.must("GET", "/v1/responses/"+late.ID, ""); !strings.Contains(o["error"].(map[string]any)["message"].(string), "--job-deadline") {
					t.Errorf("ended as %v", o)
				}
			})
		})
	}
}

// A large request that cannot be read now is no lost response; one that is gone
// is.
func TestResponseWaitsForItsBody(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		reads      int32
		err        error
	}{
		{"away", "completed", 3, errors.New("the store is away")},
		{"gone", "failed", 1 << 30, store.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &away{Store: store.NewMemory(64 << 20), err: tt.err}
				st.reads.Store(tt.reads)
				r := talking(t, st, &talker{words: 1})
				defer r.end()
				o := r.must("POST", "/v1/responses", `{"background":true,"input":"`+strings.Repeat("x", inlineBytes)+`"}`)
				if o = r.until("/v1/responses/"+o["id"].(string), ended3); o["status"] != tt.want {
					t.Errorf("ended as %v, %v; want %s", o["status"], o["error"], tt.want)
				}
			})
		})
	}
}
