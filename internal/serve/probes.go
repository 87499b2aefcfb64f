package serve

import (
	"net/http"
	"time"

	"infer/internal/engine"
)

// probe is what people read in a probe; platforms read the status code.
type probe struct {
	Status     string       `json:"status"` // ok or unavailable
	Phase      engine.Phase `json:"phase"`
	Progress   *float64     `json:"progress,omitempty"` // share of the phase, when known
	Since      time.Time    `json:"since,omitzero"`
	AgeSeconds float64      `json:"age_seconds"`                 // of the phase
	Remaining  *float64     `json:"remaining_seconds,omitempty"` // of the start, learned from earlier ones
	Draining   bool         `json:"draining,omitzero"`
	Detail     string       `json:"detail,omitempty"`
	Cause      engine.Cause `json:"cause,omitempty"`
	Message    string       `json:"message,omitempty"`
	Remedy     string       `json:"remedy,omitempty"`

	Details map[string]string `json:"details,omitempty"` // of what is beside the engine
}

// livez fails when only a new process can help.
func (s *Server) livez(w http.ResponseWriter, r *http.Request) {
	st, _ := s.status()
	s.probe(w, r, st, st.Phase != engine.Failed && st.Phase != engine.Stalled)
}

// readyz says whether traffic may be sent. It may be to a sleeping engine,
// which nothing else would wake.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	st, sound := s.status()
	s.probe(w, r, st, sound && (st.Phase == engine.Ready || st.Phase == engine.Asleep) && !s.gate.Draining())
}

// startupz stays good once the engine has been ready.
func (s *Server) startupz(w http.ResponseWriter, r *http.Request) {
	st, _ := s.status()
	s.probe(w, r, st, st.Phase == engine.Ready || st.Phase == engine.Asleep || s.started.Load())
}

// probe answers with all that is known, and a stranger where there are keys with
// phase, progress and typed cause alone: messages hold paths and addresses.
func (s *Server) probe(w http.ResponseWriter, r *http.Request, st engine.Status, ok bool) {
	p := probe{Status: "ok", Phase: st.Phase, Since: st.Since, Draining: s.gate.Draining(), Detail: st.Detail}
	if st.Progress >= 0 {
		p.Progress = &st.Progress
	}
	if left, ok := untilReady(st); ok {
		seconds := left.Seconds()
		p.Remaining = &seconds
	}
	if !st.Since.IsZero() {
		p.AgeSeconds = time.Since(st.Since).Seconds()
	}
	if f := st.Failure; f != nil {
		p.Cause, p.Message, p.Remedy = f.Cause, f.Message, f.Remedy
	}
	if s.cfg.Details != nil {
		p.Details = s.cfg.Details()
	}
	if s.cfg.Callers != nil && !s.cfg.Callers.knows(r) {
		p.Detail, p.Message, p.Remedy, p.Details = "", "", "", nil
	}
	code := http.StatusOK
	if !ok {
		p.Status, code = "unavailable", http.StatusServiceUnavailable
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, code, p)
}
