package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/sync/errgroup"

	"infer/internal/jobs"
	"infer/internal/serve"
)

// batchCmd runs a file of requests and ends, as a job of a platform does.
type batchCmd struct {
	Input    string   `arg:"" help:"File of requests, one a line, as OpenAI's batches have them."`
	Output   string   `short:"o" required:"" variable:"-" placeholder:"FILE" help:"File for the answers, one a line. What it has already is not asked again."`
	URL      string   `name:"url" variable:"INFER_URL" help:"Ask this running server, without /v1, instead of starting an engine."`
	APIKey   secret   `name:"api-key" variable:"OPENAI_API_KEY" help:"Sent to the server of --url as a bearer token."`
	Parallel int      `default:"16" variable:"-" help:"Requests at once."`
	Sidecar  bool     `name:"shutdown-sidecar" variable:"-" help:"At the end, stop the Dapr sidecar of this pod, which would outlive the job."`
	Server   serveCmd `embed:""`

	daprPort, daprToken string
}

func (c *batchCmd) faults(getenv func(string) string) []error {
	var faults []error
	if c.Parallel <= 0 {
		faults = append(faults, fmt.Errorf("parallel: must be positive, got %d; the default is 16", c.Parallel))
	}
	if c.daprPort, c.daprToken = getenv("DAPR_HTTP_PORT"), getenv("DAPR_API_TOKEN"); c.Sidecar && c.daprPort == "" {
		faults = append(faults, errors.New("shutdown-sidecar: DAPR_HTTP_PORT is empty, so that there is no sidecar to stop; leave the flag out"))
	}
	if c.URL != "" {
		return faults
	}
	return append(faults, c.Server.faults(getenv)...)
}

func (c *batchCmd) run(ctx context.Context, p process) error {
	if c.Sidecar {
		defer c.stopSidecar(context.WithoutCancel(ctx), p.stderr)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // ends with the program: a signal stops the batch, which can go on later
		select {
		case sig := <-p.signals:
			stop(signalError{sig})
		case <-ctx.Done():
		}
	}()
	show, done := progress(p.stderr)
	o := jobs.OneShot{In: c.Input, Out: c.Output, Parallel: c.Parallel, Progress: show}
	var tally jobs.Tally
	var err error
	if c.URL != "" {
		tally, err = c.remote(ctx, o)
	} else {
		tally, err = c.local(ctx, p, o)
	}
	done()
	if tally.Total > 0 {
		say(p.stderr, "%d of %d requests have an answer in %s: %d of earlier runs, %d of this one, of which %d are errors\n",
			tally.Done(), tally.Total, c.Output, tally.Earlier, tally.Succeeded+tally.Failed, tally.Failed)
	}
	var signal signalError
	switch {
	case errors.As(err, &signal):
		return signal
	case errors.Is(err, jobs.ErrInput):
		return usageError{err}
	case errors.Is(err, jobs.ErrLeft):
		return retryError{fmt.Errorf("batch: %d of %d requests have no answer, because the engine failed on them; run the same command again, which asks only for those", tally.Left, tally.Total)}
	}
	return err
}

// remote asks a running server.
func (c *batchCmd) remote(ctx context.Context, o jobs.OneShot) (jobs.Tally, error) {
	chat := newClient(chatCmd{URL: c.URL, APIKey: c.APIKey})
	if _, err := chat.firstModel(ctx); err != nil { // so that a wrong address is said before anything else
		return jobs.Tally{}, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = c.Parallel
	return o.Run(ctx, jobs.Remote(chat.base, string(c.APIKey), &http.Client{Transport: transport}))
}

// local starts the engine and the chain in front of it, which no other process
// can reach.
func (c *batchCmd) local(ctx context.Context, p process, o jobs.OneShot) (jobs.Tally, error) {
	s := &c.Server
	log := s.logger(p.stderr)
	gpus := s.watchGPUs(p.getenv, log)
	eng, err := s.engine(gpus, log)
	if err != nil {
		return jobs.Tally{}, usageError{err}
	}
	srv, err := serve.New(serve.Config(s.Server), eng, prometheus.NewRegistry(), log)
	if err != nil {
		return jobs.Tally{}, usageError{err}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return jobs.Tally{}, fmt.Errorf("listen: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	var tally jobs.Tally
	var asked error
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.runEngine(engineCtx, eng, gpus) })
	g.Go(func() error { defer stopEngine(); return srv.Run(ctx, ln) })
	s.runGPUs(engineCtx, ctx, g, gpus, eng)
	g.Go(func() error {
		defer stop()
		tally, asked = o.Run(ctx, srv.Own(serve.Work{}))
		return nil
	})
	if err := g.Wait(); err != nil { // why the engine failed says more than that requests are left
		return tally, err
	}
	return tally, asked
}

// progress returns what shows how far the batch is: a bar on a terminal, a line
// now and then elsewhere.
func progress(w io.Writer) (show func(jobs.Tally), done func()) {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) {
		next := time.Now().Add(10 * time.Second)
		return func(t jobs.Tally) {
			if now := time.Now(); now.After(next) {
				next = now.Add(10 * time.Second)
				say(w, "%d of %d requests done\n", t.Done(), t.Total)
			}
		}, func() {}
	}
	var bar *progressbar.ProgressBar
	return func(t jobs.Tally) {
			if bar == nil {
				bar = progressbar.NewOptions(t.Total, progressbar.OptionSetWriter(w), progressbar.OptionShowCount(),
					progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond))
			}
			_ = bar.Set(t.Done()) // a terminal that cannot be written to shows nothing
		}, func() {
			if bar != nil {
				say(w, "\n")
			}
		}
}

// stopSidecar ends the Dapr sidecar: a pod whose job has ended goes on for as
// long as its sidecar does.
func (c *batchCmd) stopSidecar(ctx context.Context, stderr io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+c.daprPort+"/v1.0/shutdown", strings.NewReader(""))
	if err == nil {
		if c.daprToken != "" {
			r.Header.Set("dapr-api-token", c.daprToken)
		}
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(r); err == nil {
			_ = resp.Body.Close() // it says nothing
			if resp.StatusCode >= 300 {
				err = fmt.Errorf("it answered %s", resp.Status)
			}
		}
	}
	if err != nil {
		say(stderr, "infer: the Dapr sidecar was not stopped: %v\n", err)
	}
}
