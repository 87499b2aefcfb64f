package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"infer/internal/caller"
	"infer/internal/serve"
)

// callerFlags say who may call. Keys of the environment are in INFER_API_KEYS,
// which is no flag: a command line can be read by others.
type callerFlags struct {
	File      string   `name:"api-keys-file" placeholder:"PATH" help:"File of keys, one a line: NAME:KEY-OR-SHA256[:CLASS[:LIMITS]], or a folder with one key a file, as secrets are mounted. Read again when it changes. More keys may be in $$INFER_API_KEYS."`
	Tenant    string   `name:"entra-tenant" placeholder:"ID" help:"Accept access tokens of this tenant of Entra ID."`
	Audiences []string `name:"entra-audience" placeholder:"ID" help:"Application id or URI of this API, as tokens name it; may be repeated."`
	Roles     []string `name:"entra-role" placeholder:"ROLE" help:"Role or scope that a token must have one of; may be repeated. Default: none."`
	Limits    string   `name:"entra-limits" placeholder:"LIMITS" help:"Limits of each application that has no line in the file of keys, such as rpm=60,tpm=100000."`
	Authority string   `name:"entra-authority" default:"https://login.microsoftonline.com" help:"Address of the cloud's Entra ID."`

	keys   string // of INFER_API_KEYS
	limits caller.Limits
}

func (c *callerFlags) faults(getenv func(string) string) []error {
	c.keys = getenv("INFER_API_KEYS")
	var faults []error
	limits, err := caller.ParseLimits(c.Limits)
	if err != nil {
		faults = append(faults, fmt.Errorf("entra-limits: %w", err))
	}
	c.limits = limits
	if err := c.entra().Faults(); err != nil {
		faults = append(faults, err)
	}
	return faults
}

func (c *callerFlags) entra() caller.EntraConfig {
	return caller.EntraConfig{Tenant: c.Tenant, Audiences: c.Audiences, Roles: c.Roles, Authority: c.Authority, Limits: c.limits}
}

// callers opens the sources of keys, or returns nil when there are none.
func (c *callerFlags) callers(log *slog.Logger) (*serve.Callers, error) {
	if c.File == "" && c.keys == "" && c.Tenant == "" {
		return nil, nil
	}
	keys, err := caller.Open(caller.Config{File: c.File, Keys: c.keys}, log)
	if err != nil {
		return nil, fmt.Errorf("api keys: %w", err)
	}
	s := &serve.Callers{Keys: keys}
	if c.Tenant != "" {
		s.Entra, err = caller.NewEntra(c.entra(), keys, log)
	}
	return s, err
}

// runCallers keeps the keys fresh until ctx ends.
func runCallers(ctx context.Context, g *errgroup.Group, c *serve.Callers) {
	if c == nil {
		return
	}
	g.Go(func() error { return c.Keys.Run(ctx) })
	if c.Entra != nil {
		g.Go(func() error { return c.Entra.Run(ctx) })
	}
}

// runMetrics answers /metrics and /scale on a port of its own until ctx ends.
func runMetrics(ctx context.Context, ln net.Listener, srv *serve.Server, reg *prometheus.Registry) error {
	s := &http.Server{Handler: srv.MetricsHandler(reg), ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
