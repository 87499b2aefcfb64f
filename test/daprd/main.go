// Command daprd is Dapr's own sidecar with the few components that the tests
// need: the whole one takes ten times as long to build. Its flags are those of
// daprd. With placement or scheduler as its first argument it is that service,
// with the flags of that service: workflows need both.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"go.opencensus.io/stats/view"

	contribPubsub "github.com/dapr/components-contrib/pubsub"
	memoryPubsub "github.com/dapr/components-contrib/pubsub/in-memory"
	redisPubsub "github.com/dapr/components-contrib/pubsub/redis"

	contribNames "github.com/dapr/components-contrib/nameresolution"
	sqliteNames "github.com/dapr/components-contrib/nameresolution/sqlite"

	contribState "github.com/dapr/components-contrib/state"
	memoryState "github.com/dapr/components-contrib/state/in-memory"
	redisState "github.com/dapr/components-contrib/state/redis"
	sqliteState "github.com/dapr/components-contrib/state/sqlite"

	"github.com/dapr/dapr/cmd/daprd/options"
	"github.com/dapr/dapr/pkg/components/bindings"
	"github.com/dapr/dapr/pkg/components/configuration"
	"github.com/dapr/dapr/pkg/components/conversation"
	"github.com/dapr/dapr/pkg/components/crypto"
	"github.com/dapr/dapr/pkg/components/lock"
	"github.com/dapr/dapr/pkg/components/middleware/http"
	"github.com/dapr/dapr/pkg/components/nameresolution"
	"github.com/dapr/dapr/pkg/components/pubsub"
	"github.com/dapr/dapr/pkg/components/secretstores"
	"github.com/dapr/dapr/pkg/components/state"
	"github.com/dapr/dapr/pkg/healthz"
	"github.com/dapr/dapr/pkg/metrics"
	"github.com/dapr/dapr/pkg/modes"
	"github.com/dapr/dapr/pkg/runtime"
	"github.com/dapr/dapr/pkg/runtime/registry"
	"github.com/dapr/dapr/pkg/security"
	"github.com/dapr/kit/concurrency"
	"github.com/dapr/kit/logger"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

// components is everything that a resource file may name.
func components() *registry.Options {
	contrib := logger.NewLogger("dapr.contrib")
	states, pubsubs, names := state.NewRegistry(), pubsub.NewRegistry(), nameresolution.NewRegistry()
	states.Logger, pubsubs.Logger, names.Logger = contrib, contrib, contrib
	states.RegisterComponent(func(l logger.Logger) contribState.Store { return memoryState.NewInMemoryStateStore(l) }, "in-memory")
	states.RegisterComponent(func(l logger.Logger) contribState.Store { return sqliteState.NewSQLiteStateStore(l) }, "sqlite")
	states.RegisterComponent(func(l logger.Logger) contribState.Store { return redisState.NewRedisStateStore(l) }, "redis")
	pubsubs.RegisterComponent(func(l logger.Logger) contribPubsub.PubSub { return memoryPubsub.New(l) }, "in-memory")
	pubsubs.RegisterComponent(func(l logger.Logger) contribPubsub.PubSub { return redisPubsub.NewRedisStreams(l) }, "redis")
	names.RegisterComponent(func(l logger.Logger) contribNames.Resolver { return sqliteNames.NewResolver(l) }, "sqlite")
	return registry.NewOptions().WithStateStores(states).WithPubSubs(pubsubs).WithNameResolutions(names).
		WithSecretStores(secretstores.NewRegistry()).WithConfigurations(configuration.NewRegistry()).
		WithLocks(lock.NewRegistry()).WithBindings(bindings.NewRegistry()).WithCryptoProviders(crypto.NewRegistry()).
		WithHTTPMiddlewares(http.NewRegistry()).WithConversations(conversation.NewRegistry())
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "placement" {
		return runPlacement(ctx, args[1:])
	}
	if len(args) > 0 && args[0] == "scheduler" {
		return runScheduler(ctx, args[1:])
	}
	return runSidecar(ctx, args)
}

func runSidecar(ctx context.Context, args []string) error {
	o, err := options.New(args)
	if err != nil {
		return err
	}
	o.Logger.SetAppID(o.AppID)
	if err := logger.ApplyOptionsToLoggers(&o.Logger); err != nil {
		return err
	}
	health := healthz.New()
	sidecar := func(ctx context.Context, handler security.Handler) error {
		rt, err := runtime.FromConfig(ctx, config(o, health, handler))
		if err != nil {
			return err
		}
		return rt.Run(ctx)
	}
	return secured(ctx, security.Options{
		AppID: o.AppID, Mode: modes.DaprMode(o.Mode), Healthz: health,
		ControlPlaneTrustDomain: o.ControlPlaneTrustDomain, ControlPlaneNamespace: o.ControlPlaneNamespace,
	}, sidecar)
}

// secured runs a service with what secures it, which is no TLS here.
func secured(ctx context.Context, o security.Options, service func(context.Context, security.Handler) error) error {
	provider, err := security.New(ctx, o)
	if err != nil {
		return err
	}
	return concurrency.NewRunnerManager(provider.Run, func(ctx context.Context) error {
		handler, err := provider.Handler(ctx)
		if err != nil {
			return err
		}
		return service(ctx, handler)
	}).Run(ctx)
}

// config hands the flags on that mean something without TLS.
func config(o *options.Options, health healthz.Healthz, handler security.Handler) *runtime.Config {
	return &runtime.Config{
		AppID: o.AppID, Mode: o.Mode, Config: o.Config, ResourcesPath: o.ResourcesPath,
		ApplicationPort: o.AppPort, AppProtocol: o.AppProtocol, AppChannelAddress: o.AppChannelAddress,
		AppMaxConcurrency: o.AppMaxConcurrency, AllowedOrigins: o.AllowedOrigins,
		EnableAppHealthCheck: o.EnableAppHealthCheck, AppHealthCheckPath: o.AppHealthCheckPath,
		AppHealthProbeInterval: o.AppHealthProbeInterval, AppHealthProbeTimeout: o.AppHealthProbeTimeout,
		AppHealthThreshold: o.AppHealthThreshold,
		DaprHTTPPort:       o.DaprHTTPPort, DaprAPIGRPCPort: o.DaprAPIGRPCPort, DaprAPIListenAddresses: o.DaprAPIListenAddresses,
		DaprInternalGRPCPort: o.DaprInternalGRPCPort, DaprInternalGRPCListenAddress: o.DaprInternalGRPCListenAddress,
		DaprPublicPort: o.DaprPublicPort, DaprPublicListenAddress: o.DaprPublicListenAddress,
		DaprGracefulShutdownSeconds: o.DaprGracefulShutdownSeconds, DaprBlockShutdownDuration: o.DaprBlockShutdownDuration,
		MaxRequestSize: o.MaxRequestSize, ReadBufferSize: o.ReadBufferSize, UnixDomainSocket: o.UnixDomainSocket,
		ActorsService: o.ActorsService, ActorsDisseminationTimeout: o.ActorsDisseminationTimeout, RemindersService: o.RemindersService,
		SchedulerAddress: o.SchedulerAddress, SchedulerStreams: o.SchedulerJobStreams,
		EnableAPILogging: o.EnableAPILogging, ProfilePort: o.ProfilePort, EnableProfiling: o.EnableProfiling,
		DisableInitEndpoints: o.DisableInitEndpoints, DisableBuiltinK8sSecretStore: true,
		Registry: components(), Security: handler, Healthz: health,
		Metrics: metrics.Options{
			Enabled: o.Metrics.Enabled(), Port: o.Metrics.Port(), ListenAddress: o.Metrics.ListenAddress(),
			Log: logger.NewLogger("dapr.runtime"), Namespace: metrics.DefaultMetricNamespace, Healthz: health, Meter: view.NewMeter(),
		},
	}
}
