package serve

import (
	"net/http"

	"infer/internal/engine"
)

// Signal is what a scaler reads of one replica. Its numbers are of one moment,
// always there and never NaN, from before the engine's first phase on.
type Signal struct {
	Saturation float64      `json:"saturation"` // demand ÷ capacity, 1 is full; may be summed over replicas
	Demand     int          `json:"demand"`     // requests that have a slot or want one
	Running    int          `json:"running"`    // in the engine
	Waiting    int          `json:"waiting"`    // in the queue of a ready engine
	Held       int          `json:"held"`       // waiting for an engine that is not ready
	Capacity   int          `json:"capacity"`   // slots of the engine; 0 while it is not ready
	Phase      engine.Phase `json:"phase"`      // of the engine
	Instance   string       `json:"instance"`   // this run of the program, which may have several addresses
}

// Scale reads the signal, the same that /scale and infer_saturation show. Any
// goroutine may call it, at any time after New.
func (s *Server) Scale() Signal {
	st := s.gate.Stats()
	return Signal{Saturation: st.Saturation, Demand: st.Demand,
		Running: st.Running, Waiting: st.Waiting, Held: st.Held, Capacity: st.Capacity, Phase: s.eng.Status().Phase, Instance: s.instance}
}

// scale answers KEDA's metrics-api scaler, with valueLocation: saturation.
func (s *Server) scale(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, s.Scale())
}
