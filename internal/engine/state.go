package engine

import (
	"sync/atomic"
	"time"
)

// State publishes the Status of an engine, which embeds it: one goroutine
// calls Set, any number read and wait. The zero value is Starting.
type State struct {
	now atomic.Pointer[snapshot]
}

type snapshot struct {
	status  Status
	changed chan struct{} // closed when the next snapshot replaces this one
}

// Set publishes st and wakes everybody who waits on Changed. A zero Since is
// filled in: the moment of the call when the phase is new, otherwise the
// phase's own.
func (s *State) Set(st Status) {
	if st.Since.IsZero() {
		if old := s.load().status; old.Phase == st.Phase {
			st.Since = old.Since
		} else {
			st.Since = time.Now()
		}
	}
	if old := s.now.Swap(&snapshot{status: st, changed: make(chan struct{})}); old != nil {
		close(old.changed)
	}
}

// Status implements Engine.
func (s *State) Status() Status { return s.load().status }

// Changed implements Engine.
func (s *State) Changed() <-chan struct{} { return s.load().changed }

func (s *State) load() *snapshot {
	for {
		if p := s.now.Load(); p != nil {
			return p
		}
		s.now.CompareAndSwap(nil, &snapshot{
			status:  Status{Phase: Starting, Since: time.Now(), Progress: -1},
			changed: make(chan struct{}),
		})
	}
}
