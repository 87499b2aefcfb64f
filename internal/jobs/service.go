// Package jobs is durable work: jobs, batches over files, background and kept
// responses, and answers that are given once for an idempotency key. All of it
// is written through one store.Store, runs through the chain that clients use,
// and survives the end of any process at any instant.
//
// # Who owns what
//
// A task is one key that moves through its states by compare-and-swap. Whoever
// runs it holds a lease; a replica that dies stops renewing, and another claims
// the task. A replica that lost its lease can write nothing more: every write
// names the holder. What runs a second time is only what was in flight; a
// result that is stored is never computed again.
//
// A task is accepted in two writes: first a reminder under todo/, then the task.
// A reminder without a task is nobody's and is removed after a minute; a task
// is never without its reminder until it has ended and whoever wants to be told
// of that was told.
package jobs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"infer/internal/policy"
	"infer/internal/store"
)

// Config bounds the durable work of one replica.
type Config struct {
	Parallel  int           `name:"jobs-parallel" default:"16" help:"Jobs and background responses that run at once, and as many lines of batches. Interactive requests go first."`
	MaxJobs   int           `name:"max-jobs" default:"10000" help:"Jobs, batches and background responses that one caller may have unfinished; 0 is no bound. Without keys all callers are one."`
	ResultTTL time.Duration `name:"result-ttl" default:"72h" help:"How long finished jobs, kept responses and answers of idempotency keys stay."`
	Keep      bool          `name:"keep-responses" default:"true" help:"Keep the responses of /v1/responses unless the request says store: false. Background ones are kept in any case. --keep-responses=false turns it off."`
	FileTTL   time.Duration `name:"file-ttl" default:"720h" help:"How long files and batches stay."`
	Deadline  time.Duration `name:"job-deadline" default:"24h" help:"How long a job may wait and run before it fails."`

	WebhookHosts    []string `name:"webhook-hosts" placeholder:"HOST" help:"Hosts that may be told of the end of a job, over https, as HOST, HOST:PORT or *.DOMAIN; http://HOST allows plain http. $$INFER_WEBHOOK_SECRET has the secret to sign with. Default: none."`
	WebhookNetworks []string `name:"webhook-networks" placeholder:"CIDR" help:"Private networks that webhook hosts may be in, such as 10.1.0.0/16."`
	WebhookSecret   Secret   `kong:"-"` // of the environment: a command line can be read by others

	Accepted func(*http.Request) `kong:"-"` // told of a request to the model whose work goes on without it; nil for nobody
}

// Faults reports every fault at once.
func (c Config) Faults() error {
	var errs []error
	if c.Parallel <= 0 {
		errs = append(errs, fmt.Errorf("jobs-parallel: must be positive, got %d; the default is 16", c.Parallel))
	}
	if c.MaxJobs < 0 {
		errs = append(errs, fmt.Errorf("max-jobs: must not be negative, got %d; 0 is no bound", c.MaxJobs))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"result-ttl", c.ResultTTL}, {"file-ttl", c.FileTTL}, {"job-deadline", c.Deadline}} {
		if d.value < time.Minute {
			errs = append(errs, fmt.Errorf("%s: must be at least 1m, got %v", d.name, d.value))
		}
	}
	errs = append(errs, policy.HostFaults("webhook-", c.WebhookHosts, c.WebhookNetworks))
	if len(c.WebhookHosts) > 0 {
		_, err := c.WebhookSecret.key()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Times of the leases. A lease is long beside what two replicas' clocks differ
// by, and beside a pause of the process.
const (
	leaseFor     = 30 * time.Second
	renewEvery   = leaseFor / 4
	settleEvery  = time.Second // between tries to write how a request with a key ended
	lookEvery    = 5 * time.Second
	lookPause    = time.Millisecond // after a look, for each reminder that it passed in vain
	lookMost     = lookEvery / 20   // longest pause after a look
	orphanAfter  = time.Minute
	maxAttempts  = 10 // of a task whose process dies each time
	maxBatches   = 4  // that one replica runs at once
	persistPause = 250 * time.Millisecond
)

// Chain returns the handler that answers as it would answer a client, with what
// others leave: caller is who pays, and counted says that the request was
// counted when it was accepted.
type Chain func(caller string, counted bool) http.Handler

// Service does the durable work of one replica.
type Service struct {
	cfg      Config
	store    store.Store
	blobs    blobs
	log      *slog.Logger
	caller   func(*http.Request) string
	replica  string // names this process in leases
	sole     bool   // no other process uses the store
	wake     chan struct{}
	stopping chan struct{} // closed when Run ends
	tasks    chan struct{} // one for each job or response that runs
	batches  chan struct{}
	lines    chan struct{}
	hooks    chan struct{}
	outcomes chan *outcome // of requests with a key, which the store did not take
	sender   *sender       // nil when nobody may be told
	quota    quota
	metrics  metrics
	unkept   seldom // warnings of responses that were not kept

	followers followers
	early     map[string]time.Time // when a task can be claimed or a delivery tried again, by the key of its reminder; Run's own
	passed    int                  // reminders of one look; Run's own

	mu      sync.Mutex
	running map[string]*holding // by the key of the task
	wg      sync.WaitGroup
	chain   Chain // set by Run
}

// New returns a service that keeps what is small in st. Large contents go to
// dir if it is not empty, which, like st then, belongs to this process alone,
// otherwise to st in pieces. caller names who sent a request; what one caller owns does not
// exist for others. New starts nothing.
func New(cfg Config, st store.Store, dir string, caller func(*http.Request) string, log *slog.Logger) (*Service, error) {
	if err := cfg.Faults(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, store: st, blobs: chunks{st}, log: log, caller: caller, replica: rand.Text(),
		wake: make(chan struct{}, 1), stopping: make(chan struct{}), tasks: make(chan struct{}, cfg.Parallel), batches: make(chan struct{}, maxBatches),
		lines: make(chan struct{}, cfg.Parallel), running: map[string]*holding{}, hooks: make(chan struct{}, maxHooks),
		outcomes: make(chan *outcome, maxOutcomes), early: map[string]time.Time{},
		quota: newQuota(cfg.MaxJobs, st), metrics: newMetrics()}
	var err error
	if s.sender, err = newSender(cfg); err != nil {
		return nil, err
	}
	if dir != "" {
		b, err := openFolder(dir)
		if err != nil {
			return nil, err
		}
		s.blobs, s.sole = b, true
	}
	return s, nil
}

// Run works off what is there until ctx ends, and then hands back what is not
// done. It is called once.
func (s *Service) Run(ctx context.Context, chain Chain) error {
	s.chain = chain
	defer s.wg.Wait()
	defer close(s.stopping)
	s.wg.Go(func() { s.writeOutcomes(ctx) })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if pause := s.look(ctx); pause > 0 && wait(ctx, pause) != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.blobs.sweep()
		case <-s.wake:
		}
	}
}

// nudge lets Run look at once.
func (s *Service) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// newID returns a name that sorts before those made earlier, so that a list in
// the order of keys begins with the newest.
func newID(prefix string) string {
	return fmt.Sprintf("%s%012x%s", prefix, (1<<48-1)-time.Now().UnixMilli(), rand.Text()[:16])
}

// ownerKey is the part of a key that keeps callers apart.
func ownerKey(caller string) string {
	if caller == "" {
		return "-"
	}
	sum := sha256.Sum256([]byte(caller))
	return hex.EncodeToString(sum[:8])
}

// validID says whether a client's id can be part of a key.
func validID(id string) bool { return len(id) <= 80 && store.CheckKey(id) == nil }
