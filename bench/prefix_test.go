package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// cachingServer says that cached tokens of the second request came from its
// cache, and none of the others.
func cachingServer(t *testing.T, cached int) *server {
	asked := 0
	return fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tokenize" {
			_, _ = fmt.Fprintf(w, `{"tokens":[%s1]}`, strings.Repeat("1,", prefixPast+prefixTurn))
			return
		}
		asked++
		n := 0
		if asked == 2 {
			n = cached
		}
		for range 10 {
			burn()
		}
		_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"text\":\"x\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":%d}}}\n\ndata: [DONE]\n\n", n)
	})
}

func TestTakePrefix(t *testing.T) {
	p, r := &plan{rng: newRNG(1)}, &rounds{}
	if err := p.takePrefix(t.Context(), cachingServer(t, prefixPast), r); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(r.names), fmt.Sprint([]string{pastCached, pastNew}); got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
}

func TestTakePrefixWantsTheCache(t *testing.T) {
	p := &plan{rng: newRNG(1)}
	if err := p.takePrefix(t.Context(), cachingServer(t, 0), &rounds{}); err == nil || !strings.Contains(err.Error(), "cache") {
		t.Errorf("takePrefix = %v, want that nothing came from the cache", err)
	}
}
