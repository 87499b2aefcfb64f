package simulate

import (
	"errors"
	"fmt"
)

// Config is the world of a simulation. Durations are seconds.
type Config struct {
	Tick float64 `yaml:"tick"` // step of time
	Seed uint64  `yaml:"seed"` // of chance; the same seed gives the same run

	// A replica.
	Slots        int     `yaml:"slots"`         // requests that run at once
	MaxQueue     int     `yaml:"max_queue"`     // requests that may wait for a slot of one replica
	ColdStart    float64 `yaml:"cold_start"`    // from asked for to ready: a node, the image, the weights
	Grace        float64 `yaml:"grace"`         // of the drain; what still runs then is cut
	GPUs         int     `yaml:"gpus"`          // of one replica
	PrefillRate  float64 `yaml:"prefill_rate"`  // prompt tokens a second
	DecodeRate   float64 `yaml:"decode_rate"`   // completion tokens a second and slot
	FirstTokenIn float64 `yaml:"first_token_s"` // the objective: a request misses it when its first token is later

	// The scaler. The defaults are those of Kubernetes and KEDA, and Container
	// Apps fixes the same: 15 s, 30 s, 300 s, four replicas or double.
	MinReplicas   int     `yaml:"min_replicas"`
	MaxReplicas   int     `yaml:"max_replicas"`
	Scrape        float64 `yaml:"scrape_interval"`    // of the metrics
	Polling       float64 `yaml:"polling_interval"`   // of KEDA, from no replica to the first
	Cooldown      float64 `yaml:"cooldown_period"`    // of KEDA, from the last activity to no replica
	Sync          float64 `yaml:"sync_period"`        // of the HPA
	Tolerance     float64 `yaml:"tolerance"`          // of the HPA, around the target
	Stabilization float64 `yaml:"stabilization_down"` // of the HPA: the highest wish of so long counts
	StepUp        int     `yaml:"step_up"`            // replicas that may be added in one sync, or as many as there are
}

// Default returns one A100 a replica with a model of 8 billion parameters: 32
// slots of 40 tokens a second, four minutes from cold.
func Default() Config {
	return Config{
		Tick: 0.1, Seed: 1, Slots: 32, MaxQueue: 256, ColdStart: 240, Grace: 30, GPUs: 1,
		PrefillRate: 8000, DecodeRate: 40, FirstTokenIn: 2,
		MinReplicas: 1, MaxReplicas: 1000, Scrape: 15, Polling: 30, Cooldown: 300, Sync: 15,
		Tolerance: 0.1, Stabilization: 300, StepUp: 4,
	}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	positive := func(name string, v float64) {
		if !(v > 0) {
			errs = append(errs, fmt.Errorf("%s: must be above 0, got %v", name, v))
		}
	}
	for _, p := range []struct {
		name string
		v    float64
	}{
		{"tick", c.Tick}, {"slots", float64(c.Slots)}, {"gpus", float64(c.GPUs)}, {"prefill_rate", c.PrefillRate},
		{"decode_rate", c.DecodeRate}, {"first_token_s", c.FirstTokenIn}, {"max_replicas", float64(c.MaxReplicas)},
		{"scrape_interval", c.Scrape}, {"polling_interval", c.Polling}, {"sync_period", c.Sync},
	} {
		positive(p.name, p.v)
	}
	for _, p := range []struct {
		name string
		v    float64
	}{
		{"max_queue", float64(c.MaxQueue)}, {"cold_start", c.ColdStart}, {"grace", c.Grace}, {"min_replicas", float64(c.MinReplicas)},
		{"cooldown_period", c.Cooldown}, {"tolerance", c.Tolerance}, {"stabilization_down", c.Stabilization}, {"step_up", float64(c.StepUp)},
	} {
		if !(p.v >= 0) {
			errs = append(errs, fmt.Errorf("%s: must not be negative, got %v", p.name, p.v))
		}
	}
	if c.Tick > min(c.Scrape, c.Polling, c.Sync) {
		errs = append(errs, errors.New("tick: must not be longer than scrape_interval, polling_interval or sync_period"))
	}
	if c.MinReplicas > c.MaxReplicas {
		errs = append(errs, fmt.Errorf("min_replicas: %d is above max_replicas, %d", c.MinReplicas, c.MaxReplicas))
	}
	if c.MaxReplicas > 1000 {
		errs = append(errs, fmt.Errorf("max_replicas: at most 1000, got %d", c.MaxReplicas))
	}
	return errors.Join(errs...)
}
