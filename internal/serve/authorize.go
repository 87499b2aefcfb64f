package serve

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/admission"
	"infer/internal/caller"
	"infer/internal/engine"
	"infer/internal/openai"
)

// Callers says who may call. Without one, everybody may.
type Callers struct {
	Keys  *caller.Directory // never nil
	Entra *caller.Entra     // nil when tokens are not accepted
}

// anonymous is the label of callers where there are no keys.
const anonymous = "anonymous"

// access is what a route asks of a caller where there are keys.
type access int

const (
	keyed   access = iota // any key but one of class metrics
	open                  // none: the platform probes without one
	watched               // a key of class metrics
	shown                 // any key at all
)

// accessOf is the rule for every route. A route that is not named is keyed.
func accessOf(path string) access {
	switch path {
	case "/livez", "/readyz", "/health", "/startupz":
		return open
	case "/metrics", "/scale":
		return watched
	case "/":
		return shown
	}
	return keyed
}

type accountKey struct{}

// As returns r as a request of a, which is not asked for a key: the program's
// own work on behalf of a caller, or a peer that was recognised otherwise.
func As(r *http.Request, a *caller.Account) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), accountKey{}, a))
}

// authorize finds out who calls, and answers those who may not.
func (s *Server) authorize(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		x.label = anonymous
		need := accessOf(r.URL.Path)
		a, known := r.Context().Value(accountKey{}).(*caller.Account)
		work, own := workOf(r.Context())
		if own {
			x.counted = work.Counted
			if a = s.cfg.Callers.named(work.Caller); a == nil { // there are no keys, or no longer this one
				x.caller, x.class = work.Caller, classOf(work)
				next.ServeHTTP(w, r.WithContext(engine.WithCaller(r.Context(), work.Caller)))
				return
			}
			known = true
		}
		if !known {
			if s.cfg.Callers == nil || need == open {
				next.ServeHTTP(w, r)
				return
			}
			var e *openai.Error
			if a, e = s.identify(r); e != nil {
				s.turnAway(x, e)
				return
			}
		}
		class, limits := a.Terms()
		x.account, x.limits = a, limits
		x.caller, x.label, x.weight = a.Name, a.Label, limits.Weight
		if class == caller.Batch || work.Batch {
			x.class = admission.Batch
		}
		if e := permit(class, need); e != nil {
			s.turnAway(x, e)
			return
		}
		next.ServeHTTP(w, r.WithContext(engine.WithCaller(r.Context(), a.Name)))
	})
}

func classOf(w Work) admission.Class {
	if w.Batch {
		return admission.Batch
	}
	return admission.Interactive
}

func permit(class caller.Class, need access) *openai.Error {
	switch {
	case need == watched && class != caller.Metrics:
		return forbidden("this path wants a key of class metrics, or --metrics-listen, which gives it a port of its own")
	case need == keyed && class == caller.Metrics:
		return forbidden("a key of class metrics may read /metrics and /scale alone")
	}
	return nil
}

func forbidden(message string) *openai.Error {
	return &openai.Error{Status: http.StatusForbidden, Type: openai.TypePermission, Code: openai.CodeForbidden, Message: message}
}

// turnAway answers a caller who is not let in.
func (s *Server) turnAway(x *exchange, e *openai.Error) {
	switch e.Status {
	case http.StatusUnauthorized:
		x.Header().Set("WWW-Authenticate", "Bearer")
		s.metrics.rejected.WithLabelValues(reasonKey).Inc()
	case http.StatusForbidden:
		s.metrics.rejected.WithLabelValues(reasonForbidden).Inc()
	}
	x.Header().Set("Connection", "close") // the body of a stranger is not read
	openai.WriteError(x, e)
}

// Labels of infer_rejected_total.
const (
	reasonKey       = "key"
	reasonForbidden = "forbidden"
	reasonRate      = "rate_limit"
)

// identify reads the caller's key or token.
func (s *Server) identify(r *http.Request) (*caller.Account, *openai.Error) {
	secret, e := credential(r.Header)
	if e != nil {
		return nil, e
	}
	if s.cfg.Callers.Entra != nil && caller.LooksLikeToken(secret) {
		a, err := s.cfg.Callers.Entra.Verify(r.Context(), secret)
		switch {
		case err == nil:
			return a, nil
		case errors.Is(err, caller.ErrKeysUnknown):
			return nil, &openai.Error{Status: http.StatusServiceUnavailable, Type: openai.TypeUnavailable, Code: openai.CodeKeysUnknown,
				Message: err.Error() + "; retry after the time in Retry-After, or use an API key"}
		case errors.Is(err, caller.ErrRole):
			return nil, forbidden(err.Error() + "; assign the application one of them")
		}
		return nil, unauthorized(err.Error())
	}
	if a, ok := s.cfg.Callers.Keys.Find(secret); ok {
		return a, nil
	}
	return nil, unauthorized("the API key is not one of this server's; check it for missing characters, or ask for a new one")
}

// knows says whether r shows a key. Tokens do not count: to check one may take
// seconds, which a probe does not have.
func (c *Callers) knows(r *http.Request) bool {
	secret, e := credential(r.Header)
	if e != nil {
		return false
	}
	_, ok := c.Keys.Find(secret)
	return ok
}

func unauthorized(message string) *openai.Error {
	return &openai.Error{Status: http.StatusUnauthorized, Type: openai.TypeAuthentication, Code: openai.CodeInvalidKey, Message: message}
}

// maxSecret bounds what is hashed for a stranger.
const maxSecret = 32 << 10

// credential returns the one key of a request: OpenAI's clients send it as a
// bearer, Anthropic's as X-Api-Key, those of Azure OpenAI as Api-Key.
func credential(h http.Header) (string, *openai.Error) {
	var secrets []string
	add := func(secret string) {
		if !slices.Contains(secrets, secret) {
			secrets = append(secrets, secret)
		}
	}
	for _, v := range h.Values("Authorization") {
		scheme, secret, _ := strings.Cut(v, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", unauthorized("Authorization must be a bearer: send Authorization: Bearer KEY")
		}
		add(strings.TrimSpace(secret))
	}
	for _, name := range []string{"X-Api-Key", "Api-Key"} {
		for _, v := range h.Values(name) {
			add(strings.TrimSpace(v))
		}
	}
	switch {
	case len(secrets) == 0 || secrets[0] == "":
		return "", unauthorized("this server wants an API key; send Authorization: Bearer KEY")
	case len(secrets) > 1:
		return "", unauthorized("the request has several different keys; send one")
	case len(secrets[0]) > maxSecret:
		return "", unauthorized("no key is that long; send Authorization: Bearer KEY")
	}
	return secrets[0], nil
}

// callers counts by caller. The label is the name of a key, or one for all that
// have none.
type callers struct {
	requests *prometheus.CounterVec
	tokens   *prometheus.CounterVec
}

func newCallers() callers {
	return callers{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "infer_caller_requests_total", Help: "Answered requests to the model by the name of the caller's key."}, []string{"key", "code"}),
		tokens:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "infer_caller_tokens_total", Help: "Tokens by the name of the caller's key; cached ones are also counted as prompt."}, []string{"key", "kind"}),
	}
}

func (c callers) count(x *exchange, status int) {
	c.requests.WithLabelValues(x.label, strconv.Itoa(status)).Inc()
	t := x.served()
	for kind, n := range map[string]int{kindPrompt: t.Prompt, kindCached: t.Cached, kindCompletion: t.Completion} {
		c.tokens.WithLabelValues(x.label, kind).Add(float64(n))
	}
}
