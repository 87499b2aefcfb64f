package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/dapr"
	"infer/internal/jobs"
	"infer/internal/serve"
	"infer/internal/store"
)

// jobsFlags is jobs.Config without its methods; see serverFlags.
type jobsFlags jobs.Config

// memoryBytes bounds what is kept without --state.
const memoryBytes = 512 << 20

// state is where durable work is kept.
type state struct {
	store store.Store
	dir   string // for large contents; empty when the store takes them, too
	where string // for people
}

// stateFaults checks the name, and tells the sidecar's settings of a component.
func (c *serveCmd) stateFaults() []error {
	scheme, component, ok := strings.Cut(c.State, "://")
	switch {
	case !ok:
		return nil
	case scheme != "dapr" || component == "":
		return []error{fmt.Errorf("state: %q is not a store of this build; name a folder, dapr://COMPONENT, or leave it out to keep state in memory", c.State)}
	case !c.Dapr.Sidecar.Enabled():
		return []error{fmt.Errorf("state: %s needs a Dapr sidecar, and none is announced; run infer with one, or pass --dapr on", c.State)}
	}
	c.Dapr.Sidecar.State = component
	return nil
}

// openState opens the store of the sidecar, in a folder, or in memory.
func openState(name string, sidecar *dapr.Sidecar) (state, error) {
	if component, ok := strings.CutPrefix(name, "dapr://"); ok {
		return state{store: sidecar.Store(component), where: "the component " + component + " of the Dapr sidecar"}, nil
	}
	if name == "" {
		return state{store: store.NewMemory(memoryBytes), where: "memory: jobs, batches, files and kept responses end with this process; --state names a folder that outlasts it"}, nil
	}
	b, err := store.OpenBolt(name)
	switch {
	case errors.Is(err, store.ErrLocked): // the one that drains may be gone after a restart
		return state{}, retryError{fmt.Errorf("state: %w", err)}
	case err != nil:
		return state{}, usageError{fmt.Errorf("state: %w", err)}
	}
	return state{store: b, dir: name, where: "folder " + name}, nil
}

const jobsIndex = `POST /v1/jobs                a request whose answer is fetched later
GET  /v1/jobs[/ID]          its state and answer; POST /v1/jobs/ID/cancel
GET  /v1/responses/ID       a kept response, also its stream; DELETE; /input_items; POST /v1/responses/ID/cancel
POST /v1/files              files of requests; GET lists, DELETE /v1/files/ID
POST /v1/batches            OpenAI batches over such files; GET /v1/batches/ID
`

// durable makes the service that keeps work in st, and what it adds to the
// server.
func (c *serveCmd) durable(st state, reg prometheus.Registerer, log *slog.Logger) (*jobs.Service, *serve.Extra, error) {
	c.Jobs.Accepted = serve.Accepted
	work, err := jobs.New(jobs.Config(c.Jobs), st.store, st.dir, serve.Caller, log)
	if err != nil {
		return nil, nil, err
	}
	if err := reg.Register(work); err != nil {
		return nil, nil, fmt.Errorf("register metrics: %w", err)
	}
	return work, &serve.Extra{Routes: work.Routes(), Index: jobsIndex, Before: work.Before}, nil
}

// runDurable works until ctx ends, through the server's own chain.
func runDurable(ctx context.Context, work *jobs.Service, srv *serve.Server) error {
	return work.Run(ctx, func(caller string, counted bool) http.Handler {
		return srv.Own(serve.Work{Caller: caller, Batch: true, Counted: counted})
	})
}
