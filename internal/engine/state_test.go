package engine

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestStateStartsAsStarting(t *testing.T) {
	var s State
	if got := s.Status(); got.Phase != Starting || got.Progress >= 0 || got.Since.IsZero() {
		t.Errorf("zero State = %+v, want starting with unknown progress", got)
	}
}

func TestStateKeepsSinceWithinAPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s State
		s.Set(Status{Phase: Loading})
		began := s.Status().Since
		synctest.Sleep(time.Minute)
		s.Set(Status{Phase: Loading, Progress: 0.5})
		if got := s.Status().Since; !got.Equal(began) {
			t.Errorf("Since moved to %v within loading, want %v", got, began)
		}
		s.Set(Status{Phase: Ready})
		if got := s.Status().Since.Sub(began); got != time.Minute {
			t.Errorf("ready began %v after loading, want 1m", got)
		}
	})
}

// A reader that takes Changed before Status sees every last word.
func TestStateWakesWaiters(t *testing.T) {
	var s State
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				changed := s.Changed()
				if s.Status().Phase == Ready {
					return
				}
				<-changed
			}
		})
	}
	for i := range 100 {
		s.Set(Status{Phase: Loading, Progress: float64(i) / 100})
	}
	s.Set(Status{Phase: Ready, Slots: 4})
	wg.Wait()
	if got := s.Status().Slots; got != 4 {
		t.Errorf("Slots = %d, want 4", got)
	}
}
