package scale

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "infer/internal/scale/externalscaler"
)

// client starts a scaler on a free port and returns a client of it. The signal
// is what the test last stored.
func client(t *testing.T) (pb.ExternalScalerClient, *atomic.Value, context.CancelFunc) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var signal atomic.Value
	signal.Store(Signal{})
	s, err := New(Config{}, func() Signal { return signal.Load().(Signal) }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln) }()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
		_ = conn.Close()
		goleak.VerifyNone(t)
	})
	return pb.NewExternalScalerClient(conn), &signal, stop
}

func ref(pairs ...string) *pb.ScaledObjectRef {
	metadata := map[string]string{"scalerAddress": "infer:9000"}
	for i := 0; i < len(pairs); i += 2 {
		metadata[pairs[i]] = pairs[i+1]
	}
	return &pb.ScaledObjectRef{Name: "infer", Namespace: "default", ScalerMetadata: metadata}
}

func TestAnswers(t *testing.T) {
	c, signal, _ := client(t)
	for _, test := range []struct {
		name   string
		signal Signal
		ref    *pb.ScaledObjectRef
		target float64
		size   int64 // what a KEDA without fractions reads
		value  int64
		active bool
	}{
		{"idle", Signal{}, ref(), 1, 1, 0, false},
		{"half full", Signal{0.5, 4}, ref("target", "0.8"), 0.8, 1, 1, true},
		{"overfull while it loads", Signal{3, 3}, ref("target", "2"), 2, 2, 3, true},
		{"at the activation", Signal{0.5, 4}, ref("activation", "0.5"), 1, 1, 1, false},
		{"above it", Signal{0.51, 4}, ref("activation", "0.5", "target", "0.1"), 0.1, 1, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			signal.Store(test.signal)
			spec, err := c.GetMetricSpec(t.Context(), test.ref)
			if err != nil || len(spec.MetricSpecs) != 1 {
				t.Fatalf("GetMetricSpec() = %v, %v", spec, err)
			}
			if m := spec.MetricSpecs[0]; m.MetricName != "saturation" || m.TargetSizeFloat != test.target || m.TargetSize != test.size {
				t.Errorf("GetMetricSpec() = %v, want %v and %d", m, test.target, test.size)
			}
			got, err := c.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: test.ref, MetricName: "saturation"})
			if err != nil || len(got.MetricValues) != 1 {
				t.Fatalf("GetMetrics() = %v, %v", got, err)
			}
			if m := got.MetricValues[0]; m.MetricValueFloat != test.signal.Saturation || m.MetricValue != test.value {
				t.Errorf("GetMetrics() = %v, want %v and %d", m, test.signal.Saturation, test.value)
			}
			active, err := c.IsActive(t.Context(), test.ref)
			if err != nil || active.Result != test.active {
				t.Errorf("IsActive() = %v, %v, want %v", active, err, test.active)
			}
		})
	}
}

// A fault of the metadata names every wrong key, in every call.
func TestFaults(t *testing.T) {
	c, _, _ := client(t)
	wrong := ref("target", "0", "activation", "NaN", "threshold", "3")
	_, spec := c.GetMetricSpec(t.Context(), wrong)
	_, metrics := c.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: wrong, MetricName: "saturation"})
	_, active := c.IsActive(t.Context(), wrong)
	stream, err := c.StreamIsActive(t.Context(), wrong)
	if err == nil {
		_, err = stream.Recv()
	}
	for _, err := range []error{spec, metrics, active, err} {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v, want InvalidArgument", err)
		}
		for _, part := range []string{`target: "0" must be above 0`, `activation: "NaN" is not a number`, "threshold: is unknown"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	_, err = c.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref(), MetricName: "s0-saturation"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("an unknown metric: %v", err)
	}
}

// A stream says at once what is, then what changes, and ends with the server.
func TestStream(t *testing.T) {
	c, signal, stop := client(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := c.StreamIsActive(ctx, ref())
	if err != nil {
		t.Fatal(err)
	}
	for _, demand := range []int{0, 1, 0} {
		signal.Store(Signal{float64(demand), demand})
		if got, err := stream.Recv(); err != nil || got.Result != (demand > 0) {
			t.Fatalf("demand %d: %v, %v", demand, got, err)
		}
	}
	stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("after the end: %v, want Unavailable", err)
	}
}

func TestValidate(t *testing.T) {
	for peers, ok := range map[string]bool{"": true, "infer.default.svc:9090": true, "[::1]:9090": true,
		"infer": false, ":9090": false, "infer:": false, "http://infer:9090": false} {
		if err := (Config{Peers: peers}).Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", peers, err)
		}
	}
}
