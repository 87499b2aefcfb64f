package serve

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"infer/internal/engine"
)

// The signal of a replica is there in every phase, and the same by every way.
func TestScale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := make(chan struct{})
		f := newFixture(t, config(), engine.Status{}, func(w http.ResponseWriter, r *http.Request) {
			<-wait
			say(w, r)
		})
		want := func(signal, saturation string) {
			t.Helper()
			synctest.Wait()
			if w := f.do("GET", "/scale", ""); w.Code != 200 || w.Body.String() != signal+`,"instance":"`+f.instance+`"}` || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("GET /scale = %d %s, %v\nwant %s", w.Code, w.Body, w.Header(), signal)
			}
			f.wantMetrics(t, "infer_saturation "+saturation)
		}
		want(`{"saturation":0,"demand":0,"running":0,"waiting":0,"held":0,"capacity":0,"phase":""`, "0")
		f.apply(loading)
		f.fake.Set(loading)
		var asked sync.WaitGroup
		for range 3 {
			asked.Go(func() { f.do("POST", "/v1/chat/completions", chat) })
		}
		want(`{"saturation":3,"demand":3,"running":0,"waiting":0,"held":3,"capacity":0,"phase":"loading"`, "3")
		f.fake.Set(ready(2))
		f.apply(ready(2))
		want(`{"saturation":1.5,"demand":3,"running":2,"waiting":1,"held":0,"capacity":2,"phase":"ready"`, "1.5")
		close(wait)
		asked.Wait()
		want(`{"saturation":0,"demand":0,"running":0,"waiting":0,"held":0,"capacity":2,"phase":"ready"`, "0")
	})
}
