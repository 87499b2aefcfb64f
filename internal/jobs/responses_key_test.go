package jobs

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// A background response that was made without an answer to its client is the
// one that the same key gets.
func TestBackgroundKeyOverAVagueWrite(t *testing.T) {
	const body = `{"input":"one","background":true}`
	for name, st := range map[string]store.Store{
		"written": &vague{Store: store.NewMemory(1 << 26), of: writes("create", "task/resp/", "")},
		"not written": func() store.Store {
			st := &failing{Store: store.NewMemory(1 << 26), prefix: "task/resp/"}
			st.left.Store(1)
			return st
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &talker{words: 3}
				r := talking(t, st, e)
				defer r.end()
				if status, text := r.do("POST", "/v1/responses", body, idempotencyHeader, "k"); status != 503 {
					t.Fatalf("at first: %d %s", status, text)
				}
				o := r.must("POST", "/v1/responses", body, idempotencyHeader, "k")
				path := "/v1/responses/" + o["id"].(string)
				if o = r.until(path, ended3); outputOf(o) != said || "/v1/responses/"+o["id"].(string) != path {
					t.Errorf("%s ended as %v", path, o)
				}
				<-time.After(time.Minute)
				if n := e.runs(); n != 1 {
					t.Errorf("%d runs", n)
				}
				if status, text := r.do("POST", "/v1/responses", `{"input":"two","background":true}`, idempotencyHeader, "k"); status != 409 || !strings.Contains(text, "idempotency_key_reused") {
					t.Errorf("another body: %d %s", status, text)
				}
			})
		})
	}
}

// A client that has left the stream of a background response gets it from its
// begin with the same key, for as long as responses stay.
func TestBackgroundKeyAfterTheClientHasLeft(t *testing.T) {
	const body = `{"input":"one","background":true,"stream":true}`
	chats(t, func(t *testing.T, r *replica, e *talker) {
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, leave)
		req := httptest.NewRequestWithContext(ctx, "POST", "/v1/responses", strings.NewReader(body))
		req.Header.Set(idempotencyHeader, "k")
		w := httptest.NewRecorder()
		r.mux.ServeHTTP(w, req)
		began := events(t, w.Body.String())
		if len(began) == 0 || terminal(began[len(began)-1]) {
			t.Fatalf("the client left after %v: the test does not test", began)
		}
		for _, tt := range []struct {
			after time.Duration
			runs  int
		}{{0, 1}, {config().ResultTTL / 2, 1}, {2 * config().ResultTTL, 2}} {
			<-time.After(tt.after)
			_, text := r.do("POST", "/v1/responses", body, idempotencyHeader, "k")
			all := events(t, text)
			inOrder(t, all, 0)
			if same := all[0].Response.ID == began[0].Response.ID; same != (tt.runs == 1) || e.runs() != tt.runs || !terminal(all[len(all)-1]) {
				t.Errorf("%v later, after %d runs: %v", tt.after, e.runs(), all)
			}
		}
	})
}

// Of two that accept a response of one key, the second has that of the first,
// and leaves nothing.
func TestResponseIsAcceptedOnce(t *testing.T) {
	st := store.NewMemory(1 << 26)
	s, err := New(config(), st, "", func(*http.Request) string { return "" }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	long := []byte(`"` + strings.Repeat("x", inlineBytes) + `"`)
	var initial [2]ref
	for i := range initial {
		tk := &task{ID: "resp_x", Kind: kindResponse, Response: &response{}}
		if err := s.acceptResponse(t.Context(), tk, responseAsk{}, long); err != nil {
			t.Fatal(err)
		}
		initial[i] = *tk.Response.Initial.Ref
	}
	if keys, err := st.List(t.Context(), "blob/", "", page); initial[0] != initial[1] || len(keys) != 1 || err != nil {
		t.Errorf("accepted with %v, stored are %q, %v", initial, keys, err)
	}
}
