package scale

import (
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Bounds of asking the other replicas; KEDA itself waits a few seconds.
const (
	peerTimeout    = time.Second
	lookupTimeout  = time.Second
	peerReplyBytes = 16 << 10
	peersAtOnce    = 64
)

// peers sums the signals of all replicas. KEDA asks one address, and behind a
// service that is any replica: each must be able to answer for all.
type peers struct {
	host, port string
	lookup     func(ctx context.Context, host string) ([]string, error)
	client     *http.Client
	log        *slog.Logger
}

func newPeers(hostPort string, lookup func(context.Context, string) ([]string, error), log *slog.Logger) *peers {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		panic(err) // Validate has seen it
	}
	return &peers{host: host, port: port, lookup: lookup, log: log, client: &http.Client{
		Timeout:       peerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: peerReplyBytes},
	}}
}

// sum asks every replica. An unknown name is an error, because a sum without
// replicas would look like no demand.
func (p *peers) sum(ctx context.Context) (Signal, error) {
	lookupCtx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := p.lookup(lookupCtx, p.host)
	if err != nil {
		return Signal{}, fmt.Errorf("find the replicas: %w; --scaler-peers must name a headless service with publishNotReadyAddresses", err)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total Signal
		slots = make(chan struct{}, peersAtOnce)
	)
	for _, address := range addresses {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			sig := p.ask(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			total.Saturation += sig.Saturation
			total.Demand += sig.Demand
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return Signal{}, err
	}
	return total, nil
}

// ask returns the signal of one replica. Where nothing listens nobody waits:
// that container has not started, or has gone. One that is there and says
// nothing counts as full, which neither adds a replica nor takes its place.
func (p *peers) ask(ctx context.Context, address string) Signal {
	sig, err := p.get(ctx, "http://"+net.JoinHostPort(address, p.port)+"/scale")
	switch {
	case err == nil:
		return sig
	case errors.Is(err, syscall.ECONNREFUSED):
		return Signal{}
	default:
		if ctx.Err() == nil {
			p.log.Warn("a replica does not say how full it is; counting it as full", "addr", address, "err", err)
		}
		return Signal{Saturation: 1, Demand: 1}
	}
}

func (p *peers) get(ctx context.Context, url string) (Signal, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Signal{}, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return Signal{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read or given up
	if resp.StatusCode != http.StatusOK {
		return Signal{}, fmt.Errorf("%s: the port must answer /scale without a key: --metrics-listen opens one", resp.Status)
	}
	var sig Signal
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, peerReplyBytes), &sig); err != nil {
		return Signal{}, err
	}
	if math.IsNaN(sig.Saturation) || sig.Saturation < 0 || sig.Demand < 0 {
		return Signal{}, fmt.Errorf("saturation is %v", sig.Saturation)
	}
	return sig, nil
}
