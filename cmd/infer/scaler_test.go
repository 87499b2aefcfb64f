package main

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

func TestScalerFaults(t *testing.T) {
	for _, test := range []struct {
		flags scalerFlags
		want  string
	}{
		{scalerFlags{}, ""},
		{scalerFlags{Listen: ":9000", Peers: "infer:9090"}, ""},
		{scalerFlags{Listen: "9000"}, "scaler-listen"},
		{scalerFlags{Peers: "infer:9090"}, "set both"},
		{scalerFlags{Listen: ":9000", Peers: "infer"}, "scaler-peers"},
	} {
		faults := test.flags.faults()
		if (len(faults) > 0) != (test.want != "") || len(faults) > 0 && !strings.Contains(faults[0].Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.flags, faults, test.want)
		}
	}
}

// A port in use ends the start with a fault that a restart may mend.
func TestScalerPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	g := new(errgroup.Group)
	err = scalerFlags{Listen: ln.Addr().String()}.start(t.Context(), g, nil, nil)
	if exitCode(err) != exitRetry {
		t.Errorf("start() = %v, exit code %d", err, exitCode(err))
	}
}
