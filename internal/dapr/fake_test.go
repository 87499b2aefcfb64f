package dapr

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// fake is a sidecar whose faults a test decides. It copies what the real one
// was seen to do: answers are matched by the event's id alone, and a stream
// with an event in flight is never ended from its side.
type fake struct {
	pb.UnimplementedDaprServer
	server  *grpc.Server
	health  *httptest.Server
	address string

	deliver chan *pb.TopicEventRequest // to whoever is subscribed

	mu        sync.Mutex
	streams   int // opened so far
	open      int
	breakNow  chan struct{} // closed to end the streams of now
	answers   chan answered
	published chan *pb.PublishEventRequest
	refuse    error // of PublishEvent
	meta      map[string]string
	headers   []metadata.MD // of every unary call
	parts     []*pb.RegisteredComponents
}

type answered struct {
	id     string
	status pb.TopicEventResponse_TopicEventResponseStatus
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{deliver: make(chan *pb.TopicEventRequest), answers: make(chan answered, 100), meta: map[string]string{},
		published: make(chan *pb.PublishEventRequest, 1000), breakNow: make(chan struct{})}
	f.health = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1.0/healthz/outbound" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(f.health.Close)
	f.start(t, "127.1.1.1:0") // where nobody else takes the port while the fake is away
	t.Cleanup(func() { f.server.Stop() })
	return f
}

func (f *fake) start(t *testing.T, address string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	f.address = ln.Addr().String()
	f.server = grpc.NewServer(grpc.MaxRecvMsgSize(4<<20), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			f.mu.Lock()
			f.headers = append(f.headers, md)
			f.mu.Unlock()
			return handler(ctx, req)
		}))
	pb.RegisterDaprServer(f.server, f)
	go func() { _ = f.server.Serve(ln) }()
}

func (f *fake) SubscribeTopicEventsAlpha1(stream pb.Dapr_SubscribeTopicEventsAlpha1Server) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetInitialRequest().GetTopic() != "infer.requests" {
		return status.Error(codes.InvalidArgument, "no such topic")
	}
	f.mu.Lock()
	f.streams++
	f.open++
	broken := f.breakNow
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.open--; f.mu.Unlock() }()
	err = stream.Send(&pb.SubscribeTopicEventsResponseAlpha1{
		SubscribeTopicEventsResponseType: &pb.SubscribeTopicEventsResponseAlpha1_InitialResponse{
			InitialResponse: &pb.SubscribeTopicEventsResponseInitialAlpha1{}}})
	if err != nil {
		return err
	}
	left := make(chan struct{}) // closed when the other side sends no more
	go func() {
		defer close(left)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			p := m.GetEventProcessed()
			f.answers <- answered{p.GetId(), p.GetStatus().GetStatus()}
		}
	}()
	for {
		select {
		case e := <-f.deliver:
			err := stream.Send(&pb.SubscribeTopicEventsResponseAlpha1{
				SubscribeTopicEventsResponseType: &pb.SubscribeTopicEventsResponseAlpha1_EventMessage{EventMessage: e}})
			if err != nil {
				return err
			}
		case <-broken:
			return status.Error(codes.Unavailable, "the sidecar stops")
		case <-left:
			return status.Error(codes.Canceled, "unsubscribed")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// cut ends every stream of now.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.breakNow)
	f.breakNow = make(chan struct{})
}

func (f *fake) count() (streams, open int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams, f.open
}

func (f *fake) PublishEvent(_ context.Context, r *pb.PublishEventRequest) (*emptypb.Empty, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return nil, f.refuse
	}
	f.published <- r
	return &emptypb.Empty{}, nil
}

func (f *fake) refusing(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = err
}

func (f *fake) SetMetadata(_ context.Context, r *pb.SetMetadataRequest) (*emptypb.Empty, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meta[r.GetKey()] = r.GetValue()
	return &emptypb.Empty{}, nil
}

func (f *fake) GetMetadata(context.Context, *pb.GetMetadataRequest) (*pb.GetMetadataResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &pb.GetMetadataResponse{Id: "infer", RegisteredComponents: f.parts}, nil
}

// config is that of a sidecar at f.
func (f *fake) config() Config {
	return Config{Mode: "on", PubSub: "events", Topic: "infer.requests", ReplyTopics: []string{"infer.results", "other"},
		Concurrency: 2, GRPC: f.address, HTTP: f.health.URL, Drain: 5 * time.Second}
}

// running is a Sidecar that runs until the test ends.
type running struct {
	*Sidecar
	reg  *prometheus.Registry
	log  *syncWriter
	stop func()
}

type syncWriter struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *syncWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *syncWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func program(h http.HandlerFunc) Program {
	return Program{Handler: h, Trust: func(r *http.Request, app string) *http.Request {
		r = r.Clone(r.Context())
		r.Header.Set("Trusted", "app:"+app)
		return r
	}, Work: func(r *http.Request) *http.Request {
		r = r.Clone(r.Context())
		r.Header.Set("Trusted", "topic")
		return r
	}, Describe: func() Description {
		return Description{Models: []string{"m"}, ContextTokens: 8, Capabilities: []string{"chat"}, Slots: 1}
	}}
}

func run(t *testing.T, cfg Config, p Program) *running {
	t.Helper()
	r := &running{reg: prometheus.NewRegistry(), log: new(syncWriter)}
	var err error
	if r.Sidecar, err = New(cfg, p, r.reg, slog.New(slog.NewTextHandler(r.log, nil))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("Run does not end")
		}
	})
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

// until waits for ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func next[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}

func read(r io.Reader) string {
	b, _ := io.ReadAll(r)
	return string(b)
}
