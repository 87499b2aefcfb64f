package serve

import (
	"context"

	"infer/internal/openai"
	"infer/internal/policy"
)

// takesMedia says whether the engine takes pictures and sounds. One that does
// not refuses them itself.
func (s *Server) takesMedia() bool {
	e, ok := s.eng.(interface{ TakesMedia() bool })
	return ok && e.TakesMedia()
}

// bodyLimit is the largest body, and the flag that sets it.
func (s *Server) bodyLimit() (bytes int64, flag string) {
	if s.takesMedia() {
		return s.cfg.MaxMediaBodyBytes, "--max-media-body-bytes"
	}
	return s.cfg.MaxBodyBytes, "--max-body-bytes"
}

// police holds a body to the policy and returns it, with the media that were
// named by address put into it. It has answered when ok is false.
func (s *Server) police(ctx context.Context, x *exchange, body []byte, req *openai.Request) (_ []byte, ok bool) {
	if s.takesMedia() { // which may be fetched before the request is charged
		if e := s.entitled(x, req); e != nil {
			openai.WriteError(x, e)
			return nil, false
		}
	}
	limits := policy.Limits{TextBytes: s.cfg.MaxBodyBytes, TotalBytes: s.cfg.MaxMediaBodyBytes, Media: s.takesMedia()}
	for _, m := range s.eng.Status().Models {
		if m.ID == x.model {
			limits.ContextTokens = m.ContextTokens
		}
	}
	body, e := s.policy.Apply(ctx, x.route, body, req, limits)
	if e != nil && ctx.Err() != nil { // media were still fetched
		if e, _, ok = s.refusal(context.Cause(ctx)); !ok {
			x.gone = true
			return nil, false
		}
	}
	if e != nil {
		openai.WriteError(x, e)
	}
	return body, e == nil
}
