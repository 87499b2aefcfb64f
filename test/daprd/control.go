package main

import (
	"context"

	place "github.com/dapr/dapr/cmd/placement/options"
	schedule "github.com/dapr/dapr/cmd/scheduler/options"
	"github.com/dapr/dapr/pkg/healthz"
	"github.com/dapr/dapr/pkg/modes"
	"github.com/dapr/dapr/pkg/placement"
	"github.com/dapr/dapr/pkg/scheduler/server"
	"github.com/dapr/dapr/pkg/security"
	"github.com/dapr/kit/logger"
)

// runPlacement is the service that knows which sidecar has which actor. Unlike
// Dapr's own program, which listens for them on every address, this one and the
// next have no probes and no metrics.
func runPlacement(ctx context.Context, args []string) error {
	o, err := place.New(args)
	if err != nil {
		return err
	}
	if err := logger.ApplyOptionsToLoggers(&o.Logger); err != nil {
		return err
	}
	health := healthz.New()
	service := func(ctx context.Context, handler security.Handler) error {
		p, err := placement.New(placement.Options{
			NodeID: o.RaftID, Peers: o.RaftPeers, Port: o.PlacementPort, ListenAddress: o.PlacementListenAddress,
			KeepAliveTime: o.KeepAliveTime, KeepAliveTimeout: o.KeepAliveTimeout, ReplicationFactor: int64(o.ReplicationFactor),
			DisseminateTimeout: o.DisseminateTimeout, DisseminateCoalesceWindow: o.DisseminateCoalesceWindow,
			Healthz: health, Security: handler,
		})
		if err != nil {
			return err
		}
		return p.Run(ctx)
	}
	return secured(ctx, identity("dapr-placement", o.TrustDomain, health), service)
}

// runScheduler is the service that reminds actors, with its etcd in the process.
func runScheduler(ctx context.Context, args []string) error {
	o, err := schedule.New(args)
	if err != nil {
		return err
	}
	if err := logger.ApplyOptionsToLoggers(&o.Logger); err != nil {
		return err
	}
	health := healthz.New()
	service := func(ctx context.Context, handler security.Handler) error {
		s, err := server.New(ctx, server.Options{
			Port: o.Port, ListenAddress: o.ListenAddress, Mode: modes.DaprMode(o.Mode), Workers: o.Workers,
			EtcdEmbed: o.EtcdEmbed, EtcdName: o.ID, EtcdDataDir: o.EtcdDataDir, EtcdInitialCluster: o.EtcdInitialCluster,
			EtcdClientPort: o.EtcdClientPort, EtcdClientListenAddress: o.EtcdClientListenAddress,
			EtcdSpaceQuota: o.EtcdSpaceQuota, EtcdCompactionMode: o.EtcdCompactionMode, EtcdCompactionRetention: o.EtcdCompactionRetention,
			EtcdSnapshotCount: o.EtcdSnapshotCount, EtcdMaxSnapshots: o.EtcdMaxSnapshots, EtcdMaxWALs: o.EtcdMaxWALs,
			EtcdBackendBatchLimit: o.EtcdBackendBatchLimit, EtcdBackendBatchInterval: o.EtcdBackendBatchInterval,
			EtcdMaxTxnOps: o.EtcdMaxTxnOps, EtcdDefragThresholdMB: o.EtcdDefragThresholdMB, EtcdMetrics: o.EtcdMetrics,
			Healthz: health, Security: handler,
		})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	}
	return secured(ctx, identity("dapr-scheduler", o.TrustDomain, health), service)
}

// identity is that of a service of the control plane.
func identity(name, trustDomain string, health healthz.Healthz) security.Options {
	return security.Options{
		AppID: name, Mode: modes.StandaloneMode, Healthz: health,
		ControlPlaneTrustDomain: trustDomain, ControlPlaneNamespace: security.CurrentNamespace(),
	}
}
