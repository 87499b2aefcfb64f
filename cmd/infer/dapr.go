package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/caller"
	"infer/internal/dapr"
	"infer/internal/engine"
	"infer/internal/serve"
)

// daprFlags are the settings of a Dapr sidecar.
type daprFlags struct {
	Sidecar dapr.Config `embed:""`
	Limits  string      `name:"dapr-limits" placeholder:"LIMITS" help:"Limits of each Dapr app that calls through the sidecar, such as rpm=60,tpm=100000."`

	limits caller.Limits
}

func (c *daprFlags) faults(getenv func(string) string, grace time.Duration) []error {
	var faults []error
	var err error
	if c.limits, err = caller.ParseLimits(c.Limits); err != nil {
		faults = append(faults, fmt.Errorf("dapr-limits: %w", err))
	}
	if err = c.Sidecar.FromEnvironment(getenv); err != nil {
		faults = append(faults, err)
	}
	if err = c.Sidecar.Faults(); err != nil {
		faults = append(faults, err)
	}
	c.Sidecar.Drain = max(grace-min(grace/5, 5*time.Second), 0)
	return faults
}

// sidecar connects to the sidecar, or returns nil when there is none. handler
// is the server's, which need not be there yet.
func (c *daprFlags) sidecar(eng engine.Engine, handler http.HandlerFunc, reg *prometheus.Registry, log *slog.Logger) (*dapr.Sidecar, error) {
	if !c.Sidecar.Enabled() {
		return nil, nil
	}
	peers, err := caller.NewPeers("dapr", caller.Interactive, c.limits)
	if err != nil {
		return nil, err
	}
	topic, err := caller.NewPeers("dapr", caller.Batch, caller.Limits{}) // the component bounds it
	if err != nil {
		return nil, err
	}
	return dapr.New(c.Sidecar, dapr.Program{
		Handler: handler,
		Trust:   func(r *http.Request, app string) *http.Request { return serve.As(r, peers.Account(app)) },
		Work:    func(r *http.Request) *http.Request { return serve.As(r, topic.Account("")) },
		Describe: func() dapr.Description {
			st := eng.Status()
			d := dapr.Description{Slots: st.Slots, Capabilities: []string{"openai", "anthropic"}}
			for i, m := range st.Models {
				if d.Models = append(d.Models, m.ID); i == 0 {
					d.ContextTokens = m.ContextTokens
				}
			}
			return d
		},
	}, reg, log)
}
