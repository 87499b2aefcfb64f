// Package serve is the HTTP surface: it puts routes, limits, admission, honest
// errors, probes, metrics and a drain in front of one engine.
package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/admission"
	"infer/internal/engine"
	"infer/internal/policy"
)

// Limits of a connection. There is no write timeout: a stream may take hours.
const (
	readHeaderTimeout = 10 * time.Second
	readBodyTimeout   = 60 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 64 << 10
	maxHeaderValues   = 200
	maxStreams        = 128 // of one HTTP/2 connection
)

// Server answers for one engine.
type Server struct {
	cfg     Config
	eng     engine.Engine
	log     *slog.Logger
	gate    *admission.Gate
	policy  *policy.Policy
	metrics *metrics
	life    *life
	router  *chi.Mux
	started atomic.Bool // the engine was ready once

	instance string // this run, for whoever sums up replicas
}

// New checks cfg, registers the metrics on reg, which /metrics exposes, and
// starts nothing.
func New(cfg Config, eng engine.Engine, reg *prometheus.Registry, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, eng: eng, log: log, instance: rand.Text(), gate: admission.New(admission.Config{
		MaxQueue: cfg.MaxQueue, MaxQueueTokens: cfg.MaxQueueTokens, MaxQueueBytes: cfg.MaxQueueBytes,
		Hold: cfg.Hold, Expected: cfg.MaxConcurrency,
	})}
	var err error
	if s.policy, err = policy.New(cfg.Policy); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(reg, s); err == nil {
		err = s.registerLife(reg)
	}
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	s.router = s.routes(reg)
	s.apply(eng.Status())
	return s, nil
}

// Handler answers every route. A held request is released only while Run runs.
func (s *Server) Handler() http.Handler { return s.router }

// Run serves on ln until ctx ends, then drains: new work is refused while open
// requests run on, until the end of the grace period less a margin, when those
// that are left are cut with an error. It closes ln and returns nil after a
// drain.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	// Requests outlive ctx, so that streams can drain; cut ends them.
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	srv := s.httpServer(base)
	served := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cut(nil)
	wg.Go(func() { s.follow(base) })
	wg.Go(func() { served <- srv.Serve(ln) })
	select {
	case err := <-served:
		_ = srv.Close() // the connections that are still open
		return fmt.Errorf("serve http: %w", err)
	case <-ctx.Done():
		return s.drain(srv, cut)
	}
}

func (s *Server) httpServer(base context.Context) *http.Server {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true) // platforms that take http2 from their clients pass it on
	open := conns{limit: int64(s.cfg.MaxConnections)}
	return &http.Server{
		Handler:             s.router,
		ReadHeaderTimeout:   readHeaderTimeout,
		IdleTimeout:         idleTimeout,
		MaxHeaderBytes:      maxHeaderBytes,
		MaxHeaderValueCount: maxHeaderValues,
		Protocols:           &p,
		// OPTIONS * is no exception from the routes.
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext:                  open.arrive,
		ConnState:                    open.leave,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// drain keeps the listener open while admitted work runs, so that whoever has
// not yet noticed the readiness gets a 503 instead of a refused connection.
func (s *Server) drain(srv *http.Server, cut context.CancelCauseFunc) error {
	began := time.Now()
	st := s.gate.Stats()
	s.log.Info("drain begins", "running", st.Running, "waiting", st.Waiting, "held", st.Held)
	// The deadline outlives the context that asked for the drain.
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Grace-s.cfg.margin())
	defer cancel()
	noticed := time.After(s.cfg.linger())
	select {
	case <-s.gate.Drain():
	case <-ctx.Done():
	}
	select {
	case <-noticed:
	case <-ctx.Done():
	}
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("drain deadline: cutting open requests", "running", s.gate.Stats().Running)
		cut(errDrainCut)
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.margin()/2)
		defer cancel()
		if err = srv.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
			s.log.Warn("closing connections whose clients do not read or whose engine does not return")
			err = srv.Close()
		}
	}
	s.log.Info("drain ended", "seconds", time.Since(began).Seconds())
	if err != nil {
		return fmt.Errorf("stop http: %w", err)
	}
	return nil
}

// follow tells the gate and the metrics what the engine says of itself.
func (s *Server) follow(ctx context.Context) {
	for {
		changed := s.eng.Changed()
		s.apply(s.eng.Status())
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) apply(st engine.Status) {
	s.metrics.know(st.Models)
	s.life.see(st)
	switch st.Phase {
	case engine.Ready, engine.Asleep: // a request wakes a sleeping engine
		s.started.Store(true)
		s.gate.SetCapacity(s.capacity(st))
	case engine.Failed, engine.Stopped:
		s.gate.Fail()
	default:
		s.gate.SetCapacity(admission.Capacity{ReadyAt: st.ReadyAt})
	}
}
