// Package dapr is the program's side of a Dapr sidecar: state, a worker on a
// topic of requests, what peers may know of this replica, and the trust in
// what the sidecar says of a caller.
//
// Nothing here delays or fails the endpoint: the connection is made when it is
// first used, a sidecar that is late or gone is a detail of readiness, and
// every loop starts again. The SDK is used for calls out over a connection of
// our own, because its constructors block, and its interceptors replace the
// headers of a trace by their token (dapr/go-sdk v1.15.0, client/client.go).
package dapr

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sdk "github.com/dapr/go-sdk/client"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

const (
	// maxMessageBytes bounds one message both ways. The sidecar has a bound of
	// its own, 4 MiB unless --max-body-size raises it.
	maxMessageBytes = 64 << 20
	probeEvery      = 5 * time.Second
	probeTimeout    = 2 * time.Second
)

// Sidecar is the connection to one sidecar.
type Sidecar struct {
	cfg     Config
	conn    *grpc.ClientConn
	client  sdk.Client
	probe   *http.Client
	log     *slog.Logger
	metrics *metrics

	program Program

	ready  atomic.Bool
	detail atomic.Pointer[string] // of the sidecar itself
	topic  atomic.Pointer[string] // of the worker; nil without one
	lack   atomic.Pointer[string] // what the components lack; nil for nothing
}

// Description is what peers may know of this replica.
type Description struct {
	Models        []string
	ContextTokens int // 0 while unknown
	Capabilities  []string
	Slots         int // 0 while unknown
}

// Program is the rest of the program, as this package needs it.
type Program struct {
	// Handler answers the routes that clients use, with admission, limits and
	// metering. The worker sends it requests that carry the event's name as
	// their Idempotency-Key.
	Handler http.Handler
	// Describe is asked whenever peers are told; it must not block.
	Describe func() Description
	// Trust marks a request as one of the Dapr app with this id, as the sidecar
	// said it; the id is empty when the sidecar said none or several.
	Trust func(r *http.Request, app string) *http.Request
	// Work marks a request as one of the topic of requests.
	Work func(r *http.Request) *http.Request
}

var silence = sync.OnceFunc(func() { sdk.SetLogger(log.New(io.Discard, "", 0)) }) // it would write to stdout

// New makes the connection without using it, and registers the metrics on reg.
func New(cfg Config, program Program, reg prometheus.Registerer, log *slog.Logger) (*Sidecar, error) {
	silence()
	creds := insecure.NewCredentials()
	if cfg.TLS {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	conn, err := grpc.NewClient("passthrough:///"+cfg.GRPC,
		grpc.WithTransportCredentials(creds),
		grpc.WithUnaryInterceptor(unary(cfg.Token)), grpc.WithStreamInterceptor(stream(cfg.Token)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithUserAgent("infer"))
	if err != nil {
		return nil, fmt.Errorf("connect to the sidecar at %s: %w", cfg.GRPC, err)
	}
	s := &Sidecar{cfg: cfg, conn: conn, client: sdk.NewClientWithConnection(conn), log: log, program: program,
		probe: &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}}
	s.say(&s.detail, "the sidecar has not answered yet")
	if s.metrics, err = newMetrics(reg, s); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return s, nil
}

// Close ends the connection, after everything that uses it has ended. Without
// a sidecar, s is nil, there is none.
func (s *Sidecar) Close() {
	if s != nil {
		_ = s.conn.Close()
	}
}

func (s *Sidecar) say(to *atomic.Pointer[string], text string) { to.Store(&text) }

// Ready says whether the sidecar answers and has loaded its components.
func (s *Sidecar) Ready() bool { return s.ready.Load() }

// Detail is one line for people on the sidecar, the worker and the components.
func (s *Sidecar) Detail() string {
	text := *s.detail.Load()
	for _, more := range []*string{s.topic.Load(), s.lack.Load()} {
		if more != nil {
			text += "; " + *more
		}
	}
	return text
}

// Run probes the sidecar, tells it what this replica is and works on the topic
// of requests until ctx ends and the work in flight has ended, at the latest
// cfg.Drain later. It returns nil. The connection stays for a Store.
func (s *Sidecar) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	if s.cfg.PubSub != "" {
		wg.Go(func() { s.subscribe(ctx) })
	}
	s.watch(ctx)
	wg.Wait()
	return nil
}

// watch keeps ready and what peers know up to date.
func (s *Sidecar) watch(ctx context.Context) {
	var told map[string]string
	for wait := time.Duration(0); ; {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = probeEvery
		err := s.outbound(ctx)
		if was := s.ready.Swap(err == nil); was != (err == nil) && ctx.Err() == nil {
			s.turned(ctx, err)
			told = nil // another sidecar knows nothing
		}
		if err != nil {
			s.say(&s.detail, "the sidecar does not answer: "+err.Error())
			wait = time.Second
			continue
		}
		s.say(&s.detail, "the sidecar is ready")
		told = s.tell(ctx, told)
	}
}

// turned is called when the sidecar came or went.
func (s *Sidecar) turned(ctx context.Context, err error) {
	if err != nil {
		s.log.Warn("the sidecar does not answer", "err", err, "address", s.cfg.HTTP)
		return
	}
	s.log.Info("the sidecar is ready", "address", s.cfg.GRPC)
	found := s.check(ctx)
	for _, finding := range found {
		s.log.Warn("the sidecar's components", "finding", finding)
	}
	if s.lack.Store(nil); len(found) > 0 {
		s.say(&s.lack, strings.Join(found, "; "))
	}
}

// outbound asks whether the sidecar's components are loaded. It is not
// /v1.0/healthz, which waits for this program's own port.
func (s *Sidecar) outbound(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.HTTP+"/v1.0/healthz/outbound", nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if s.cfg.Token != "" {
		r.Header.Set(tokenHeader, s.cfg.Token)
	}
	answer, err := s.probe.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("GET /v1.0/healthz/outbound: HTTP %d", answer.StatusCode)
	}
	return nil
}

// tokenHeader carries a token both ways.
const tokenHeader = "dapr-api-token"

// outgoing appends the token to what ctx carries already.
func outgoing(ctx context.Context, token string) context.Context {
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, tokenHeader, token)
	}
	if parent, ok := ctx.Value(traceKey{}).(trace); ok && parent.parent != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", parent.parent)
		if parent.state != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "tracestate", parent.state)
		}
	}
	return ctx
}

func unary(token string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoke(outgoing(ctx, token), method, req, reply, cc, opts...)
	}
}

func stream(token string) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return open(outgoing(ctx, token), desc, cc, method, opts...)
	}
}

// trace is the W3C context that work carries, as its headers say it.
type trace struct{ parent, state string }

type traceKey struct{}
