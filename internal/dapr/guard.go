package dapr

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"infer/internal/openai"
)

// callerHeader is how a sidecar names the app that calls. It is no proof by
// itself: whoever reaches the port can send it, and a peer's own value comes as
// a second one.
const callerHeader = "Dapr-Caller-App-Id"

// Guard stands in front of next. It answers what the sidecar asks of an app,
// and takes the sidecar's headers from every request. A request whose
// dapr-api-token is APP_API_TOKEN came through the sidecar: it is marked as one
// of the app that the sidecar names. A wrong token is a 401. Without
// APP_API_TOKEN nothing that the headers say is believed.
func (s *Sidecar) Guard(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.cfg.AppToken))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens, callers := r.Header.Values(tokenHeader), r.Header.Values(callerHeader)
		if len(tokens)+len(callers) > 0 {
			r = r.Clone(r.Context())
			r.Header.Del(tokenHeader)
			r.Header.Del(callerHeader)
		}
		own := strings.HasPrefix(r.URL.Path, "/dapr/")
		switch {
		case s.cfg.AppToken == "":
		case len(tokens) == 0 && own, len(tokens) > 0 && !same(tokens, want):
			openai.WriteError(w, &openai.Error{Status: http.StatusUnauthorized, Type: openai.TypeAuthentication, Code: "invalid_api_key",
				Message: "dapr-api-token is not the APP_API_TOKEN of this app; give the sidecar and the app the same one"})
			return
		case len(tokens) > 0:
			app := ""
			if len(callers) == 1 {
				app = callers[0]
			}
			r = s.program.Trust(r, app)
		}
		if own {
			sidecar(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// same compares in constant time; several tokens are never right.
func same(tokens []string, want [sha256.Size]byte) bool {
	got := sha256.Sum256([]byte(tokens[0]))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && len(tokens) == 1
}

// sidecar answers what a sidecar asks once, when it has found the port.
func sidecar(w http.ResponseWriter, r *http.Request) {
	body := ""
	switch {
	case r.Method != http.MethodGet:
	case r.URL.Path == "/dapr/subscribe":
		body = "[]" // the worker subscribes by itself
	case r.URL.Path == "/dapr/config":
		body = "{}" // no actors
	}
	if body == "" {
		openai.WriteError(w, &openai.Error{Status: http.StatusNotFound, Type: openai.TypeNotFound, Code: openai.CodeRouteNotFound,
			Message: "a sidecar may ask for GET /dapr/subscribe and GET /dapr/config"})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(body)) // the sidecar may have gone
}
