package translate

import (
	"net/http"
	"testing"
)

const (
	askResponse = `{"model":"m","input":"hi","stream":true}`
	askMessage  = `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}`
)

// Every way a chat stream can go, in both protocols, event by event.
func TestStreams(t *testing.T) {
	for _, name := range []string{"text.sse", "tools.sse", "reasoning.sse", "broken.sse", "cut.sse", "stop.sse"} {
		for _, tt := range []struct {
			protocol string
			wrap     func(http.Handler) http.Handler
			body     string
		}{{"responses", Responses, askResponse}, {"messages", Messages, askMessage}} {
			t.Run(tt.protocol+"/"+name, func(t *testing.T) {
				w := post(tt.wrap(streaming(t, name)), tt.body)
				if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != "text/event-stream; charset=utf-8" {
					t.Errorf("%d %s", w.Code, got)
				}
				wantFile(t, settled(w.Body.String()), tt.protocol, name)
			})
		}
	}
}
