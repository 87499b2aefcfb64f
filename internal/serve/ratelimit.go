package serve

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"infer/internal/caller"
	"infer/internal/openai"
)

// spend charges the caller for an understood request, by an estimate, and
// returns how to correct it. Otherwise it says which of the caller's limits is
// in the way.
func (s *Server) spend(x *exchange, req *openai.Request) (settle func(), e *openai.Error) {
	a := x.account
	if a == nil {
		return func() {}, nil
	}
	if e := s.mayUse(x, meant(x, req)); e != nil {
		return nil, e
	}
	spend := a.Spend
	if x.counted {
		spend = a.Resume
	}
	done, over := spend(req.PromptTokens + req.MaxTokens*req.N)
	requests, tokens := a.Rates()
	rateHeaders(x.Header(), requests, tokens, strings.HasPrefix(x.route, "/v1/messages"))
	if over != nil {
		return nil, s.exceeded(x, over)
	}
	return func() { t := x.charge(); done(t.Prompt + t.Completion) }, nil
}

// mayUse refuses a model that the caller's key does not name. No name is one
// that is not known yet.
func (s *Server) mayUse(x *exchange, model string) *openai.Error {
	if model == "" || x.limits.Allows(model) {
		return nil
	}
	s.metrics.rejected.WithLabelValues(reasonForbidden).Inc()
	return &openai.Error{Status: http.StatusForbidden, Type: openai.TypePermission, Code: openai.CodeModelForbidden, Param: "model",
		Message: "this key may not use the model; it may use " + strings.Join(x.limits.Models, ", ")}
}

// entitled refuses a request for whose sake nothing is to be fetched: its caller
// may not use the model, or has a limit in the way. Nothing is charged.
func (s *Server) entitled(x *exchange, req *openai.Request) *openai.Error {
	if x.account == nil {
		return nil
	}
	if e := s.mayUse(x, meant(x, req)); e != nil {
		return e
	}
	if over := x.account.Ready(x.counted); over != nil {
		requests, tokens := x.account.Rates()
		rateHeaders(x.Header(), requests, tokens, strings.HasPrefix(x.route, "/v1/messages"))
		return s.exceeded(x, over)
	}
	return nil
}

// meant is the model of a request, as far as it is known.
func meant(x *exchange, req *openai.Request) string {
	if x.model == unknown { // the engine does not know its models yet; ask looks again
		return req.Model
	}
	return x.model
}

func (s *Server) exceeded(x *exchange, over *caller.Exceeded) *openai.Error {
	s.metrics.rejected.WithLabelValues(reasonRate).Inc()
	h := x.Header()
	if over.Never { // no client shall try that again
		return &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeInvalidRequest, Code: openai.CodeTooLarge, Message: over.Error()}
	}
	wait := max(over.Wait, time.Second) // which is also for a caller whose other requests must end first
	h.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	return &openai.Error{Status: http.StatusTooManyRequests, Type: openai.TypeRateLimit, Code: openai.CodeRateLimit, Message: over.Error()}
}

// rateHeaders tells what is left of a limit, in the words of OpenAI, whose
// times are durations such as 6m0s, or of Anthropic, whose times are dates.
func rateHeaders(h http.Header, requests, tokens caller.Rate, anthropic bool) {
	for _, limited := range []struct {
		name string
		rate caller.Rate
	}{{"requests", requests}, {"tokens", tokens}} {
		r := limited.rate
		if r.Limit == 0 {
			continue
		}
		name, reset := "X-Ratelimit-%-"+limited.name, r.Reset.Round(time.Millisecond).String()
		if anthropic {
			name, reset = "Anthropic-Ratelimit-"+limited.name+"-%", time.Now().Add(r.Reset).UTC().Format(time.RFC3339)
		}
		set := func(what, value string) { h.Set(strings.Replace(name, "%", what, 1), value) }
		set("Limit", strconv.Itoa(r.Limit))
		set("Remaining", strconv.Itoa(r.Remaining))
		set("Reset", reset)
	}
}
