package dapr

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config says whether there is a sidecar and what is done with it. The fields
// without a flag come from the environment: see FromEnvironment.
type Config struct {
	Mode        string   `name:"dapr" default:"auto" help:"auto, on or off. auto talks to a Dapr sidecar when DAPR_GRPC_PORT, DAPR_GRPC_ENDPOINT or DAPR_HTTP_PORT is set."`
	PubSub      string   `name:"dapr-pubsub" placeholder:"COMPONENT" help:"Pub/sub component whose topic of requests is worked on. Default: none."`
	Topic       string   `name:"dapr-topic" default:"infer.requests" help:"Topic of requests."`
	ReplyTopics []string `name:"dapr-reply-topics" default:"infer.results" help:"Topics that a request may name as reply_to; the first is the default."`
	DeadLetter  string   `name:"dapr-dead-letter" placeholder:"TOPIC" help:"Topic for what the sidecar gives up on: events that expired before they were worked on, and what is no event. Default: none."`
	Concurrency int      `name:"dapr-concurrency" default:"0" help:"Requests of the topic that are worked on at once; 0 is one more than the engine has slots."`
	DirectURL   string   `name:"direct-url" placeholder:"URL" help:"Where peers reach this server without a sidecar, which they need for streams on sidecars before 1.17.2."`

	State    string        `kong:"-"` // state component that holds durable work; empty for none
	GRPC     string        `kong:"-"` // HOST:PORT of the sidecar's gRPC API
	HTTP     string        `kong:"-"` // http://HOST:PORT of its HTTP API
	TLS      bool          `kong:"-"` // of both
	Token    string        `kong:"-"` // what the sidecar wants of us; empty when nothing
	AppToken string        `kong:"-"` // what it shows to us; empty when nothing
	Drain    time.Duration `kong:"-"` // how long work in flight may go on once Run is told to end
}

// FromEnvironment completes c by the variables that Dapr's injector and the
// platforms set, under Dapr's names.
func (c *Config) FromEnvironment(getenv func(string) string) error {
	c.Token, c.AppToken = getenv("DAPR_API_TOKEN"), getenv("APP_API_TOKEN")
	grpcPort, httpPort := getenv("DAPR_GRPC_PORT"), getenv("DAPR_HTTP_PORT")
	endpoint := getenv("DAPR_GRPC_ENDPOINT")
	if c.Mode == "auto" && grpcPort == "" && httpPort == "" && endpoint == "" {
		c.Mode = "off"
		return nil
	}
	c.GRPC = net.JoinHostPort("127.0.0.1", cmp.Or(grpcPort, "50001"))
	c.HTTP = cmp.Or(getenv("DAPR_HTTP_ENDPOINT"), "http://127.0.0.1:"+cmp.Or(httpPort, "3500"))
	if endpoint == "" {
		return nil
	}
	// Such as https://host:443, or host:port?tls=true, as the SDKs read it.
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return errors.New("DAPR_GRPC_ENDPOINT: not an address; write https://HOST:PORT or HOST:PORT")
	}
	c.TLS = u.Scheme == "https" || u.Query().Get("tls") == "true"
	c.GRPC = u.Host
	if u.Port() == "" {
		port := "80"
		if c.TLS {
			port = "443"
		}
		c.GRPC = net.JoinHostPort(u.Hostname(), port)
	}
	return nil
}

// Enabled says whether there is a sidecar to talk to.
func (c Config) Enabled() bool { return c.Mode != "off" }

// names is what a component or a topic may be called.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,254}$`)

// Faults reports every fault at once.
func (c Config) Faults() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.Mode {
	case "auto", "on", "off":
	default:
		fault("dapr: %q is not auto, on or off", c.Mode)
	}
	if c.PubSub != "" && !names.MatchString(c.PubSub) {
		fault("dapr-pubsub: %q is no component's name", c.PubSub)
	}
	for _, topic := range append([]string{c.Topic}, c.ReplyTopics...) {
		if !names.MatchString(topic) {
			fault("dapr-topic, dapr-reply-topics: %q is no topic's name", topic)
		}
	}
	if c.DeadLetter != "" && !names.MatchString(c.DeadLetter) {
		fault("dapr-dead-letter: %q is no topic's name", c.DeadLetter)
	}
	if c.DeadLetter == c.Topic || slices.Contains(c.ReplyTopics, c.Topic) {
		fault("dapr-topic: %q is also a topic of replies or of dead letters; what is published would come back as a request", c.Topic)
	}
	if len(c.ReplyTopics) == 0 {
		fault("dapr-reply-topics: give one topic at least; results go to the first")
	}
	if c.Concurrency < 0 {
		fault("dapr-concurrency: must not be negative, got %d; 0 follows the engine's slots", c.Concurrency)
	}
	if u, err := url.Parse(c.DirectURL); c.DirectURL != "" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https")) {
		fault("direct-url: %q is not an address; write http://HOST:PORT or https://HOST", c.DirectURL)
	}
	return errors.Join(errs...)
}
