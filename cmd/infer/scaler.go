package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/sync/errgroup"

	"infer/internal/scale"
	"infer/internal/serve"
)

// scalerFlags are the port that KEDA asks.
type scalerFlags struct {
	Listen string `name:"scaler-listen" placeholder:"ADDR" help:"Address of a gRPC port for KEDA's external scaler, which asks for no key. Default: none."`
	Peers  string `name:"scaler-peers" placeholder:"HOST:PORT" help:"Headless service of all replicas and their port with /scale: the answer to KEDA is then the sum. Default: this replica alone."`
}

func (f scalerFlags) faults() []error {
	var faults []error
	if f.Listen != "" {
		if _, _, err := net.SplitHostPort(f.Listen); err != nil {
			faults = append(faults, fmt.Errorf("scaler-listen: %q is not HOST:PORT or :PORT", f.Listen))
		}
	} else if f.Peers != "" {
		faults = append(faults, fmt.Errorf("scaler-peers: nobody asks without --scaler-listen; set both"))
	}
	if err := (scale.Config{Peers: f.Peers}).Validate(); err != nil {
		faults = append(faults, err)
	}
	return faults
}

// start takes the port and answers on it, in g, until ctx ends.
func (f scalerFlags) start(ctx context.Context, g *errgroup.Group, srv *serve.Server, log *slog.Logger) error {
	if f.Listen == "" {
		return nil
	}
	scaler, err := scale.New(scale.Config{Peers: f.Peers}, func() scale.Signal {
		now := srv.Scale()
		return scale.Signal{Saturation: now.Saturation, Demand: now.Demand}
	}, log)
	if err != nil {
		return usageError{err}
	}
	ln, err := listen(ctx, f.Listen)
	if err != nil {
		return err
	}
	log.Info("scaler listening", "addr", ln.Addr().String())
	g.Go(func() error { return scaler.Run(ctx, ln) })
	return nil
}
