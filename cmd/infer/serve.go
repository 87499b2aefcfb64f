package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"infer/internal/engine/onnx"
	"infer/internal/jobs"
	"infer/internal/serve"
)

// defaultTerminationLog is where Kubernetes reads a container's last words.
const defaultTerminationLog = "/dev/termination-log"

// serverFlags is serve.Config without its methods: kong would call Validate
// itself, and stop there.
type serverFlags serve.Config

// serveCmd holds every setting of the server.
type serveCmd struct {
	Listen         string        `default:":8080" help:"Address of the only port: API, health and metrics."`
	Engine         string        `default:"auto" help:"auto, onnx or vllm. auto is onnx for ONNX files and GGUF, vllm for everything else."`
	Model          string        `help:"A folder with genai_config.json, a .gguf file, or the folder of an ONNX encoder; for vllm a folder or a hub's name. Also $$MODEL_NAME."`
	VLLM           vllmFlags     `embed:""`
	Names          []string      `name:"served-model-name" help:"Name of the model on the API; may be repeated, the first is canonical. Default: base name of the model."`
	Embedding      string        `name:"embedding-model" placeholder:"DIR" help:"Folder of an ONNX encoder to serve beside the model: embeddings, rerank, score."`
	EmbeddingNames []string      `name:"embedding-model-name" help:"Name of the encoder on the API; may be repeated. Default: base name of its folder."`
	Device         string        `default:"auto" help:"auto, cpu, cuda or cuda:N, the GPU with this number among the visible ones. cuda never falls back to the CPU."`
	Server         serverFlags   `embed:""`
	Callers        callerFlags   `embed:""`
	Scaler         scalerFlags   `embed:""`
	Dapr           daprFlags     `embed:""`
	State          string        `placeholder:"DIR" help:"Folder for jobs, batches, files and kept responses, or dapr://COMPONENT for a state component that replicas share. Default: in memory, which ends with the process."`
	Jobs           jobsFlags     `embed:""`
	Config         string        `placeholder:"FILE" help:"YAML file whose keys are the names of these flags."`
	Cache          string        `placeholder:"DIR" help:"Folder for imported models. Default: infer in $$XDG_CACHE_HOME or ~/.cache."`
	NVMLLibrary    string        `name:"nvml-library" placeholder:"FILE" help:"libnvidia-ml.so.1 of the GPU driver; empty means where the container runtime puts it."`
	OnnxLibrary    string        `placeholder:"FILE" help:"libonnxruntime.so; empty means the usual places."`
	Slots          int           `default:"0" help:"Sequences that run in one batch; 0 means 4 on the CPU, 16 on CUDA."`
	Context        int           `default:"0" help:"Bound of prompt plus completion tokens; 0 means the model's own."`
	KVBytes        size          `name:"kv-bytes" default:"2GiB" help:"Bound of the KV cache."`
	Threads        int           `default:"0" help:"Threads of the CPU provider; 0 means one a core."`
	SleepAfter     time.Duration `default:"0s" help:"Free the weights after so long without a request; the next one loads them again. 0 means never."`
	Spin           bool          `help:"Let idle threads spin: faster on a quiet machine, much slower on a shared one."`
	LogLevel       slog.Level    `default:"info" help:"debug, info, warn or error."`
	LogFormat      string        `default:"json" help:"json or text."`
	TerminationLog string        `default:"/dev/termination-log" placeholder:"FILE" help:"File for the cause of a failure, written if it exists."`
}

// faults reports every fault of the configuration, and fills what depends on
// the environment.
func (c *serveCmd) faults(getenv func(string) string) []error {
	var faults []error
	if c.Model == "" {
		c.Model = getenv("MODEL_NAME")
	}
	switch c.Engine {
	case "auto", "onnx", "vllm":
	default:
		faults = append(faults, fmt.Errorf("engine: %q is not auto, onnx or vllm", c.Engine))
	}
	if c.LogFormat != "json" && c.LogFormat != "text" {
		faults = append(faults, fmt.Errorf("log-format: %q is not json or text", c.LogFormat))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("listen: %q is not HOST:PORT or :PORT", c.Listen))
	}
	if c.Cache == "" {
		c.Cache = defaultCache(getenv)
	}
	if c.Cache == "" {
		faults = append(faults, errors.New("cache: HOME and XDG_CACHE_HOME are empty; pass a writable folder"))
	}
	if err := serve.Config(c.Server).Validate(); err != nil {
		faults = append(faults, err)
	}
	if listen := c.Server.MetricsListen; listen != "" {
		if _, _, err := net.SplitHostPort(listen); err != nil {
			faults = append(faults, fmt.Errorf("metrics-listen: %q is not HOST:PORT or :PORT", listen))
		}
	}
	c.Jobs.WebhookSecret = jobs.Secret(getenv("INFER_WEBHOOK_SECRET"))
	if err := jobs.Config(c.Jobs).Faults(); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, c.Scaler.faults()...)
	faults = append(faults, c.Callers.faults(getenv)...)
	faults = append(faults, c.Dapr.faults(getenv, c.Server.Grace)...)
	faults = append(faults, c.stateFaults()...)
	return append(faults, c.engineFaults(getenv)...)
}

func defaultCache(getenv func(string) string) string {
	if dir := getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "infer")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".cache", "infer")
	}
	return ""
}

func (c *serveCmd) onnx() onnx.Config {
	return onnx.Config{
		Model: c.Model, Names: c.Names, Device: c.Device, Library: c.OnnxLibrary,
		CacheDir: filepath.Join(c.Cache, "imported"), Slots: c.Slots, ContextTokens: c.Context,
		KVBytes: int64(c.KVBytes), Threads: c.Threads, Spin: c.Spin, SleepAfter: c.SleepAfter, AccuracyLevel: 4,
		EmbeddingModel: c.Embedding, EmbeddingNames: c.EmbeddingNames,
	}
}

// run listens before anything slow, so that the first probe is answered at
// once, and wires the engine to the server.
func (c *serveCmd) run(ctx context.Context, p process) error {
	log := c.logger(p.stderr)
	ln, err := listen(ctx, c.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }() // the server closes it too, when it is reached
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewBuildInfoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gpus := c.watchGPUs(p.getenv, log)
	reg.MustRegister(gpus)
	eng, err := c.engine(gpus, log)
	if err != nil {
		return usageError{err}
	}
	if c.Server.Callers, err = c.Callers.callers(log); err != nil {
		return usageError{err}
	}
	var srv *serve.Server
	sidecar, err := c.Dapr.sidecar(eng, func(w http.ResponseWriter, r *http.Request) { srv.Handler().ServeHTTP(w, r) }, reg, log)
	if err != nil {
		return usageError{err}
	}
	defer sidecar.Close() // the last results are stored through it
	st, err := openState(c.State, sidecar)
	if err != nil {
		return err
	}
	defer func() { _ = st.store.Close() }() // every write is on the disk already
	work, extra, err := c.durable(st, reg, log)
	if err != nil {
		return usageError{err}
	}
	c.Server.Extra = extra
	c.Server.Details = func() map[string]string { return map[string]string{"state": st.where} }
	if sidecar != nil {
		c.Server.Front, c.Server.Details = sidecar.Guard, func() map[string]string {
			return map[string]string{"state": st.where, "dapr": sidecar.Detail()}
		}
	}
	srv, err = serve.New(serve.Config(c.Server), eng, reg, log)
	if err != nil {
		return usageError{err}
	}
	log.Info("listening", "version", buildInfo().Version, "addr", ln.Addr().String(), "engine", c.chosen(), "model", c.Model, "device", c.Device)

	var metrics net.Listener
	if c.Server.MetricsListen != "" {
		if metrics, err = listen(ctx, c.Server.MetricsListen); err != nil {
			return err
		}
		defer func() { _ = metrics.Close() }()
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// The engine outlives the signal so that streams can drain.
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	g, ctx := errgroup.WithContext(ctx)
	if err := c.Scaler.start(engineCtx, g, srv, log); err != nil {
		return err
	}
	g.Go(func() error { return c.runEngine(engineCtx, eng, gpus) })
	// Scrapes and keys are of use until the last stream has drained.
	g.Go(func() error { defer stopEngine(); return srv.Run(ctx, ln) })
	if sidecar != nil {
		g.Go(func() error { return sidecar.Run(ctx) })
	}
	g.Go(func() error { return runDurable(ctx, work, srv) })
	runCallers(engineCtx, g, c.Server.Callers)
	c.runGPUs(engineCtx, ctx, g, gpus, eng)
	if metrics != nil {
		g.Go(func() error { return runMetrics(engineCtx, metrics, srv, reg) })
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()
	return untilSignal(p.signals, stop, ended, log)
}

// untilSignal turns the first signal into stop and the second into an end
// without waiting.
func untilSignal(signals <-chan os.Signal, stop func(), ended <-chan error, log *slog.Logger) error {
	select {
	case err := <-ended:
		return err
	case sig := <-signals:
		log.Info("draining", "signal", sig.String())
		stop()
	}
	select {
	case err := <-ended:
		return err
	case sig := <-signals:
		return signalError{sig}
	}
}

func (c *serveCmd) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// listen takes the port. A port in use is retryable, because after a restart
// the process that is still draining may have gone.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, retryError{fmt.Errorf("listen: %s is in use by another process; stop that one or choose another address with --listen", addr)}
	default:
		return nil, usageError{fmt.Errorf("listen: %w; choose an address of this machine and a free port above 1023", err)}
	}
}
