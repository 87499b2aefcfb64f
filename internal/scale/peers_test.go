package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// fleet answers /scale on one port of several loopback addresses, as the pods
// behind a headless service do. A nil handler is an address where nothing listens.
func fleet(t *testing.T, handlers ...http.HandlerFunc) *peers {
	t.Helper()
	var addresses []string
	port := "0"
	for i, h := range handlers {
		address := fmt.Sprintf("127.0.0.%d", i+1)
		addresses = append(addresses, address)
		if h == nil {
			continue
		}
		ln, err := net.Listen("tcp", net.JoinHostPort(address, port))
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(ln.Addr().String())
		srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: h}}
		srv.Start()
		t.Cleanup(srv.Close)
	}
	p := newPeers("infer:"+port, func(_ context.Context, host string) ([]string, error) {
		if host != "infer" {
			return nil, errors.New("no such host")
		}
		return addresses, nil
	}, slog.New(slog.DiscardHandler))
	t.Cleanup(p.client.CloseIdleConnections)
	return p
}

func says(saturation float64, demand int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/scale" {
			http.NotFound(w, r)
			return
		}
		_, _ = fmt.Fprintf(w, `{"saturation":%v,"demand":%d,"phase":"ready"}`, saturation, demand)
	}
}

func TestSum(t *testing.T) {
	silent := make(chan struct{})
	defer close(silent)
	for _, test := range []struct {
		name string
		all  *peers
		want Signal
	}{
		{"four replicas", fleet(t, says(1, 8), says(0.5, 4), says(3, 3), says(0, 0)), Signal{4.5, 15}},
		{"one has not started", fleet(t, says(2, 2), nil), Signal{2, 2}},
		{"one wants a key", fleet(t, says(2, 2), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }), Signal{3, 3}},
		{"one talks nonsense", fleet(t, says(2, 2), says(-4, 2)), Signal{3, 3}},
		{"one is silent", fleet(t, says(2, 2), func(http.ResponseWriter, *http.Request) { <-silent }), Signal{3, 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.all.client.Timeout = 10 * time.Second // on a busy machine those who answer take their time, too
			if got, err := test.all.sum(t.Context()); err != nil || got != test.want {
				t.Errorf("sum() = %v, %v, want %v", got, err, test.want)
			}
		})
	}
}

// No name, no sum: zero would take every replica away.
func TestSumWithoutName(t *testing.T) {
	p := fleet(t, says(1, 1))
	p.host = "elsewhere"
	if _, err := p.sum(t.Context()); err == nil || !strings.Contains(err.Error(), "publishNotReadyAddresses") {
		t.Errorf("sum() = %v", err)
	}
}
