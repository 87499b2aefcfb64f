package serve

import "infer/internal/engine"

// Bill is what one request costs. Its methods must not block.
type Bill interface {
	// Tokens adds what was read or written for the request.
	Tokens(n int)
	// Cost is the request's share of the GPUs so far.
	Cost() (gpuSeconds, joules float64)
	// End closes the bill; Cost still answers.
	End()
}

// free is the bill where nobody counts.
type free struct{}

func (free) Tokens(int)               {}
func (free) Cost() (float64, float64) { return 0, 0 }
func (free) End()                     {}

// bill opens the bill of a request that got its slot.
func (s *Server) bill(key, model string) Bill {
	if s.cfg.Bill == nil {
		return free{}
	}
	return s.cfg.Bill(key, model)
}

// status is the engine's, with what is wrong with the hardware below it, of
// which the engine itself may know nothing yet.
func (s *Server) status() (st engine.Status, sound bool) {
	st = s.eng.Status()
	if s.cfg.Fault == nil {
		return st, true
	}
	f := s.cfg.Fault()
	if f != nil {
		st.Failure = f
	}
	return st, f == nil
}
