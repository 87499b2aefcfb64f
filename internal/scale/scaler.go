// Package scale answers KEDA's external scaler protocol with the saturation of
// this replica, or of all that a DNS name lists.
package scale

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "infer/internal/scale/externalscaler"
)

// metricName is the only metric; its target is one replica's share.
const metricName = "saturation"

// streamEvery is how often a stream of activity looks for a change.
const streamEvery = 2 * time.Second

// Signal is what is asked of replicas, or their sum.
type Signal struct {
	Saturation float64 `json:"saturation"` // demand ÷ capacity
	Demand     int     `json:"demand"`     // requests that have a slot or want one
}

// Config says whom a scaler answers for.
type Config struct {
	// Peers is HOST:PORT of GET /scale of every replica, this one among them:
	// all addresses of HOST are asked. Empty means that this replica is the only one.
	Peers string
}

// Validate reports every fault.
func (c Config) Validate() error {
	if c.Peers == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.Peers)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("scaler-peers: %q is not HOST:PORT; name a headless service and the port that answers /scale", c.Peers)
	}
	return nil
}

// Scaler answers KEDA. Its methods may be called by any goroutine.
type Scaler struct {
	pb.UnimplementedExternalScalerServer
	read func(context.Context) (Signal, error)
	log  *slog.Logger
	stop chan struct{} // closed when Run ends, for the streams
}

// New returns a Scaler that reads this replica by own, which must not block.
func New(cfg Config, own func() Signal, log *slog.Logger) (*Scaler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Scaler{log: log, stop: make(chan struct{})}
	s.read = func(context.Context) (Signal, error) { return own(), nil }
	if cfg.Peers != "" {
		s.read = newPeers(cfg.Peers, net.DefaultResolver.LookupHost, log).sum
	}
	return s, nil
}

// Run serves on ln until ctx ends, and closes ln. It is called once.
func (s *Scaler) Run(ctx context.Context, ln net.Listener) error {
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(64<<10), grpc.MaxConcurrentStreams(64),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	pb.RegisterExternalScalerServer(srv, s)
	ended := make(chan struct{})
	stopped := context.AfterFunc(ctx, func() {
		defer close(ended)
		close(s.stop)
		srv.GracefulStop()
	})
	err := srv.Serve(ln)
	if !stopped() { // ctx has ended: Serve returned for that
		<-ended
		return nil
	}
	return fmt.Errorf("serve the scaler: %w", err)
}

// IsActive implements the protocol: is there any demand above the activation.
func (s *Scaler) IsActive(ctx context.Context, ref *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	opts, err := parseOptions(ref.GetScalerMetadata())
	if err != nil {
		return nil, err
	}
	active, err := s.active(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &pb.IsActiveResponse{Result: active}, nil
}

// StreamIsActive implements the protocol: it says at once whether there is
// demand, and again when that changes.
func (s *Scaler) StreamIsActive(ref *pb.ScaledObjectRef, stream grpc.ServerStreamingServer[pb.IsActiveResponse]) error {
	opts, err := parseOptions(ref.GetScalerMetadata())
	if err != nil {
		return err
	}
	ticker := time.NewTicker(streamEvery)
	defer ticker.Stop()
	for first, was := true, false; ; {
		active, err := s.active(stream.Context(), opts)
		if err != nil {
			return err
		}
		if first || active != was {
			if err := stream.Send(&pb.IsActiveResponse{Result: active}); err != nil {
				return err
			}
		}
		first, was = false, active
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.stop:
			return status.Error(codes.Unavailable, "this replica is stopping; ask another")
		}
	}
}

// GetMetricSpec implements the protocol: the target of one replica.
func (s *Scaler) GetMetricSpec(_ context.Context, ref *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	opts, err := parseOptions(ref.GetScalerMetadata())
	if err != nil {
		return nil, err
	}
	return &pb.GetMetricSpecResponse{MetricSpecs: []*pb.MetricSpec{{
		MetricName: metricName, TargetSizeFloat: opts.target,
		TargetSize: max(int64(math.Round(opts.target)), 1),
	}}}, nil
}

// GetMetrics implements the protocol: the saturation, summed over the replicas.
func (s *Scaler) GetMetrics(ctx context.Context, req *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	if _, err := parseOptions(req.GetScaledObjectRef().GetScalerMetadata()); err != nil {
		return nil, err
	}
	if name := req.GetMetricName(); name != metricName {
		return nil, status.Errorf(codes.InvalidArgument, "there is no metric %q; the only one is %q", name, metricName)
	}
	sig, err := s.read(ctx)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "%v", err)
	}
	return &pb.GetMetricsResponse{MetricValues: []*pb.MetricValue{{
		MetricName: metricName, MetricValueFloat: sig.Saturation,
		MetricValue: int64(math.Ceil(sig.Saturation)),
	}}}, nil
}

// active says whether KEDA should keep a replica at all.
func (s *Scaler) active(ctx context.Context, opts options) (bool, error) {
	sig, err := s.read(ctx)
	if err != nil {
		return false, status.Errorf(codes.Unavailable, "%v", err)
	}
	return sig.Saturation > opts.activation, nil
}
