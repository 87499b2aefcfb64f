package serve

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"infer/internal/engine"
	"infer/internal/policy"
)

// Config bounds what one replica accepts and how long it lets things take.
type Config struct {
	Grace             time.Duration                   `help:"The platform's termination grace period. Open streams run on for four fifths of it, at most until 5s before its end." default:"30s" env:"INFER_GRACE"`
	Hold              time.Duration                   `help:"How long a request waits for a starting engine." default:"200s" env:"INFER_HOLD"`
	CommitAfter       time.Duration                   `help:"How long a stream's status line waits for the first event; after it 200 goes out, and comments keep the line open." default:"15s" env:"INFER_COMMIT_AFTER"`
	ClientStall       time.Duration                   `help:"How long a client may leave its answer unread before it is cut." default:"60s" env:"INFER_CLIENT_STALL"`
	MaxQueue          int                             `help:"Requests that may wait for a slot." default:"256" env:"INFER_MAX_QUEUE"`
	MaxQueueBytes     int64                           `help:"Bytes of all bodies that wait for a slot or for a starting engine." default:"268435456" env:"INFER_MAX_QUEUE_BYTES"`
	MaxQueueTokens    int64                           `help:"Estimated prompt tokens of all requests that wait for a slot; 0 is 8 × slots × context." default:"0" env:"INFER_MAX_QUEUE_TOKENS"`
	MaxRequestTime    time.Duration                   `help:"How long a request may take, from its arrival to the end of its answer; 0s leaves that to its caller." default:"0s" env:"INFER_MAX_REQUEST_TIME"`
	MaxConcurrency    int                             `help:"Requests that may run in the engine at once; 0 is the engine's own number of slots, which a higher one does not raise unless the engine has only guessed it." default:"0" env:"INFER_MAX_CONCURRENCY"`
	MaxBodyBytes      int64                           `help:"Largest request body." default:"8388608" env:"INFER_MAX_BODY_BYTES"`
	MaxMediaBodyBytes int64                           `help:"Largest request body with its pictures and sounds, for an engine that takes them. The rest of it is bounded by --max-body-bytes." default:"33554432" env:"INFER_MAX_MEDIA_BODY_BYTES"`
	MaxConnections    int                             `help:"Connections at once. Over it, 64 more are taken on which only probes and metrics are answered." default:"4096" env:"INFER_MAX_CONNECTIONS"`
	MetricsListen     string                          `help:"Address of a port of its own for /metrics and /scale, which asks for no key. Default: they are on the port of the API." placeholder:"ADDR" env:"INFER_METRICS_LISTEN"`
	UsageCost         bool                            `help:"Tell what a request cost in the usage of its answer, as infer_cost: GPU-seconds and joules. For chat, completions and embeddings, and where there is a GPU." env:"INFER_USAGE_COST"`
	Callers           *Callers                        `kong:"-"` // nil when everybody may call
	Fault             func() *engine.Failure          `kong:"-"` // why this machine cannot be trusted; nil when nobody looks
	Bill              func(key, model string) Bill    `kong:"-"` // opens one; nil when nobody counts
	Front             func(http.Handler) http.Handler `kong:"-"` // stands before keys are looked at; nil for nothing
	Details           func() map[string]string        `kong:"-"` // what /readyz says besides, by name; nil for nothing
	Extra             *Extra                          `kong:"-"` // routes of others; nil for none
	Policy            policy.Config                   `embed:""`
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
	if c.CommitAfter <= 0 {
		errs = append(errs, fmt.Errorf("commit-after: must be positive, got %v; the default is 15s", c.CommitAfter))
	}
	if c.ClientStall <= 0 {
		errs = append(errs, fmt.Errorf("client-stall: must be positive, got %v; the default is 60s", c.ClientStall))
	}
	if c.MaxQueue < 0 {
		errs = append(errs, fmt.Errorf("max-queue: must not be negative, got %d; 0 refuses whoever finds no slot", c.MaxQueue))
	}
	if most := max(c.MaxBodyBytes, c.MaxMediaBodyBytes); c.MaxQueueBytes < most {
		errs = append(errs, fmt.Errorf("max-queue-bytes: must hold one body of %d bytes, got %d; lower --max-body-bytes and --max-media-body-bytes or raise it", most, c.MaxQueueBytes))
	}
	if c.MaxQueueTokens < 0 {
		errs = append(errs, fmt.Errorf("max-queue-tokens: must not be negative, got %d; 0 is 8 × slots × context", c.MaxQueueTokens))
	}
	if c.MaxRequestTime < 0 {
		errs = append(errs, fmt.Errorf("max-request-time: must not be negative, got %v; 0s is no bound", c.MaxRequestTime))
	}
	if c.MaxConcurrency < 0 {
		errs = append(errs, fmt.Errorf("max-concurrency: must not be negative, got %d; 0 takes the engine's own", c.MaxConcurrency))
	}
	if c.MaxBodyBytes <= 0 {
		errs = append(errs, fmt.Errorf("max-body-bytes: must be positive, got %d; the default is 8388608", c.MaxBodyBytes))
	}
	if c.MaxMediaBodyBytes < c.MaxBodyBytes {
		errs = append(errs, fmt.Errorf("max-media-body-bytes: must be at least --max-body-bytes, %d, got %d", c.MaxBodyBytes, c.MaxMediaBodyBytes))
	}
	if c.MaxConnections <= 0 {
		errs = append(errs, fmt.Errorf("max-connections: must be positive, got %d; the default is 4096", c.MaxConnections))
	}
	if err := c.Policy.Faults(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// margin is the end of Grace that is kept for cutting streams here and for
// stopping the engine after Run has returned.
func (c Config) margin() time.Duration { return min(c.Grace/5, 5*time.Second) }

// linger is how long even an idle server stays open once it drains. Platforms
// take a replica out of their routes when they signal it, not when a probe
// fails; that takes a moment, in which a closed port would be an error to the
// client while a 503 is retried elsewhere. Whoever stops infer by hand should
// not notice.
func (c Config) linger() time.Duration { return min(c.Grace/30, time.Second) }
