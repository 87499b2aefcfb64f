package serve

import (
	"errors"
	"fmt"
	"time"
)

// Config bounds what one replica accepts and how long it lets things take.
type Config struct {
	Grace          time.Duration `help:"The platform's termination grace period. Open streams run on for four fifths of it, at most until 5s before its end." default:"30s" env:"INFER_GRACE"`
	Hold           time.Duration `help:"How long a request waits for a starting engine." default:"200s" env:"INFER_HOLD"`
	MaxQueue       int           `help:"Requests that may wait for a slot." default:"256" env:"INFER_MAX_QUEUE"`
	MaxConcurrency int           `help:"Requests that may run in the engine at once; 0 is the engine's own number of slots." default:"0" env:"INFER_MAX_CONCURRENCY"`
	MaxBodyBytes   int64         `help:"Largest request body." default:"8388608" env:"INFER_MAX_BODY_BYTES"`
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Grace <= 0 {
		errs = append(errs, fmt.Errorf("grace: must be positive, got %v; give the platform's termination grace period, such as 30s", c.Grace))
	}
	if c.Hold < 0 {
		errs = append(errs, fmt.Errorf("hold: must not be negative, got %v; 0s refuses while the engine starts", c.Hold))
	}
	if c.MaxQueue < 0 {
		errs = append(errs, fmt.Errorf("max-queue: must not be negative, got %d; 0 refuses whoever finds no slot", c.MaxQueue))
	}
	if c.MaxConcurrency < 0 {
		errs = append(errs, fmt.Errorf("max-concurrency: must not be negative, got %d; 0 takes the engine's own", c.MaxConcurrency))
	}
	if c.MaxBodyBytes <= 0 {
		errs = append(errs, fmt.Errorf("max-body-bytes: must be positive, got %d; the default is 8388608", c.MaxBodyBytes))
	}
	return errors.Join(errs...)
}

// margin is the end of Grace that is kept for cutting streams here and for
// stopping the engine after Run has returned.
func (c Config) margin() time.Duration { return min(c.Grace/5, 5*time.Second) }
