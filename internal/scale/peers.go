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
	"strings"
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
		wg      sync.WaitGroup
		answers = make([]answer, len(addresses))
		slots   = make(chan struct{}, peersAtOnce)
	)
	for i, address := range addresses {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answers[i] = p.ask(ctx, address)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return Signal{}, err
	}
	return total(answers), nil
}

// answer is what one address has said. A replica may have several: in a
// dual-stack cluster one of IPv4 and one of IPv6.
type answer struct {
	reply
	address string
	absent  bool // nothing listens: that container has not started, or has gone
	silent  bool // somebody is there and does not say how full it is
}

// reply is what is read of GET /scale.
type reply struct {
	Signal
	Instance string `json:"instance"` // who answers; empty from a replica that knows of none
}

// total counts each replica once. One that is there and says nothing counts as
// full, which neither adds a replica nor takes its place; those are no more
// than a family of addresses shows beyond the replicas that have answered.
func total(answers []answer) Signal {
	replicas := map[string]Signal{}
	there, silent := map[bool]int{}, map[bool]int{} // by whether it is IPv6
	for _, a := range answers {
		if a.absent {
			continue
		}
		family := strings.Contains(a.address, ":")
		there[family]++
		switch {
		case a.silent:
			silent[family]++
		case a.Instance != "":
			replicas[a.Instance] = a.Signal
		default:
			replicas[a.address] = a.Signal
		}
	}
	unheard := max(0, max(there[false], there[true])-len(replicas))
	full := min(unheard, max(silent[false], silent[true]))
	sum := Signal{Saturation: float64(full), Demand: full}
	for _, sig := range replicas {
		sum.Saturation += sig.Saturation
		sum.Demand += sig.Demand
	}
	return sum
}

// ask returns what is said at one address.
func (p *peers) ask(ctx context.Context, address string) answer {
	said, err := p.get(ctx, "http://"+net.JoinHostPort(address, p.port)+"/scale")
	switch {
	case err == nil:
		return answer{reply: said, address: address}
	case errors.Is(err, syscall.ECONNREFUSED): // nobody waits there
		return answer{address: address, absent: true}
	case ctx.Err() == nil:
		p.log.Warn("a replica does not say how full it is, and counts as full where no other address of it does", "addr", address, "err", err)
	}
	return answer{address: address, silent: true}
}

func (p *peers) get(ctx context.Context, url string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return reply{}, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read or given up
	if resp.StatusCode != http.StatusOK {
		return reply{}, fmt.Errorf("%s: the port must answer /scale without a key: --metrics-listen opens one", resp.Status)
	}
	var said reply
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, peerReplyBytes), &said); err != nil {
		return reply{}, err
	}
	if math.IsNaN(said.Saturation) || said.Saturation < 0 || said.Demand < 0 {
		return reply{}, fmt.Errorf("saturation is %v", said.Saturation)
	}
	return said, nil
}
