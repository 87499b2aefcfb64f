package simulate

import "math"

// Desired is the HPA's formula for an external metric: how many replicas it
// wants of which current there are, ready of them ready. It copies
// GetExternalPerPodMetricReplicas (AverageValue) and GetExternalMetricReplicas
// (Value) of pkg/controller/podautoscaler/replica_calculator.go in Kubernetes.
func Desired(metricType string, value, target, tolerance float64, current, ready int) int {
	ratio := value / target
	if metricType == AverageValue {
		ratio /= float64(current)
	}
	if math.Abs(ratio-1) <= tolerance {
		return current
	}
	if metricType == AverageValue {
		return ceil(value / target)
	}
	return ceil(ratio * float64(ready))
}

// ceil forgives what floating point adds to a whole number.
func ceil(v float64) int { return int(math.Ceil(v - 1e-9)) }

// wish is what the HPA wanted at some time.
type wish struct{ at, replicas float64 }

// scaler is KEDA between nothing and one replica, and the HPA above.
type scaler struct {
	cfg    Config
	wishes []wish  // of the last Stabilization seconds
	active float64 // when there last was activity
}

// hpa returns how many replicas the HPA asks for at now.
func (s *scaler) hpa(now, value float64, rule *Rule, current, ready int) int {
	want := Desired(rule.Type, value, rule.Target, s.cfg.Tolerance, current, ready)
	want = min(max(want, s.cfg.MinReplicas, 1), s.cfg.MaxReplicas)
	keep := s.wishes[:0]
	for _, w := range s.wishes {
		if w.at > now-s.cfg.Stabilization {
			keep = append(keep, w)
		}
	}
	s.wishes = append(keep, wish{now, float64(want)})
	if want < current { // down only as far as the highest wish of the window
		for _, w := range s.wishes {
			want = max(want, int(w.replicas))
		}
		return min(want, current)
	}
	return min(want, max(current+s.cfg.StepUp, 2*current))
}

// keda returns how many replicas KEDA wants when it decides between none and
// one, and whether it does.
func (s *scaler) keda(now float64, active bool, current int) (int, bool) {
	if active {
		s.active = now
	}
	switch {
	case current == 0 && active:
		return max(s.cfg.MinReplicas, 1), true
	case current > 0 && s.cfg.MinReplicas == 0 && now-s.active >= s.cfg.Cooldown:
		s.wishes = s.wishes[:0]
		return 0, true
	}
	return 0, false
}
