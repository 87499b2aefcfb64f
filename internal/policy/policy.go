// Package policy says what a body may ask of an engine: how much of everything,
// which fields, and which media from where. It looks at bodies that were
// parsed, and changes nothing but the address of a medium that it fetched.
package policy

import (
	"context"
	"net/http"
	"strconv"

	"infer/internal/openai"
)

// Policy holds the rules. Any goroutine may use it.
type Policy struct {
	cfg     Config
	rules   map[string]map[string]rule
	fetcher *fetcher
}

// New checks cfg and starts nothing.
func New(cfg Config) (*Policy, error) {
	if err := cfg.Faults(); err != nil {
		return nil, err
	}
	return &Policy{cfg: cfg, rules: tables(), fetcher: newFetcher(cfg)}, nil
}

// Limits are what a body is held to besides the configuration.
type Limits struct {
	ContextTokens int   // of the model; 0 is unknown
	TextBytes     int64 // of the body without its media
	TotalBytes    int64 // of the body with them, also those that are fetched
	Media         bool  // the engine takes media; if not, it refuses them itself
}

// Apply holds a body that Peek made req of to the rules of a route, and
// returns it, with the media that it names by their address put into it. The
// estimate of req becomes one that counts media. An error is the caller's
// fault, except that it is meaningless when ctx has ended.
func (p *Policy) Apply(ctx context.Context, route string, body []byte, req *openai.Request, limits Limits) ([]byte, *openai.Error) {
	c := call{limits: limits}
	rules, ok := p.rules[route]
	if !ok { // somebody added a route and no rules
		rules = p.rules[elsewhere]
	}
	for _, m := range req.Members {
		if r := rules[m.Name]; r != nil {
			if e := r(p, &c, m.Name, m.Value); e != nil {
				return nil, e
			}
		}
	}
	if n := req.Prompts * req.N; n > maxSequences {
		return nil, openai.Invalid("n", openai.CodeLimit, "%d prompts with %d answers each are more than the %d sequences allowed; send fewer (%s)",
			req.Prompts, req.N, maxSequences, raise(""))
	}
	text := int64(len(body))
	for _, m := range c.media {
		text -= int64(len(m.value.Text))
		req.PromptTokens += partTokens - len(m.value.Text)/4
	}
	if text > limits.TextBytes {
		return nil, &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeInvalidRequest, Code: openai.CodeTooLarge,
			Message: "the body without its media is larger than " + strconv.FormatInt(limits.TextBytes, 10) + " bytes; shorten it or raise --max-body-bytes"}
	}
	req.PromptTokens = max(req.PromptTokens, 0)
	return p.fetchAll(ctx, body, c.media, limits.TotalBytes)
}
