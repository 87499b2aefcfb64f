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

func saysAs(instance string, saturation float64, demand int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"saturation":%v,"demand":%d,"phase":"ready","instance":%q}`, saturation, demand, instance)
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
		{"a replica of two addresses, and one that knows of no instance", fleet(t, saysAs("a", 2, 2), says(1, 1), saysAs("a", 2, 2)), Signal{3, 3}},
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

// In a dual-stack cluster every replica has an address of each family.
func TestTotalOfTwoFamilies(t *testing.T) {
	heard := func(address, instance string) answer {
		return answer{address: address, reply: reply{Signal{2, 2}, instance}}
	}
	silent := func(address string) answer { return answer{address: address, silent: true} }
	absent := func(address string) answer { return answer{address: address, absent: true} }
	for _, test := range []struct {
		name    string
		answers []answer
		want    Signal
	}{
		{"two replicas", []answer{heard("10.0.0.1", "a"), heard("10.0.0.2", "b"), heard("fd00::1", "a"), heard("fd00::2", "b")}, Signal{4, 4}},
		{"no IPv6 gets through", []answer{heard("10.0.0.1", "a"), heard("10.0.0.2", "b"), silent("fd00::1"), silent("fd00::2")}, Signal{4, 4}},
		{"IPv4 only is listened to", []answer{heard("10.0.0.1", "a"), silent("10.0.0.2"), absent("fd00::1"), absent("fd00::2")}, Signal{3, 3}},
		{"one is silent", []answer{heard("10.0.0.1", "a"), silent("10.0.0.2"), heard("fd00::1", "a"), silent("fd00::2")}, Signal{3, 3}},
		{"one has not started, one is silent", []answer{absent("10.0.0.1"), silent("10.0.0.2"), absent("fd00::1"), silent("fd00::2")}, Signal{1, 1}},
		{"nobody has an address", nil, Signal{}},
	} {
		if got := total(test.answers); got != test.want {
			t.Errorf("%s: total() = %v, want %v", test.name, got, test.want)
		}
	}
}
