// Package daprtest starts the real programs that tests of Dapr need.
package daprtest

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Output collects what a program writes.
type Output struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns what was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Until waits for ok, for two minutes: the longest pause that is no fault is a lease
// and what a replica waits after it.
func Until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Process is a program that a test has started.
type Process struct {
	Cmd    *exec.Cmd
	Out    *Output
	Exited chan struct{} // closed at its end
}

// Launch starts a program, which is killed when the test ends.
func Launch(t *testing.T, name string, args []string, env ...string) *Process {
	t.Helper()
	p := &Process{Cmd: exec.Command(name, args...), Out: new(Output), Exited: make(chan struct{})}
	p.Cmd.Stdout, p.Cmd.Stderr = p.Out, p.Out
	p.Cmd.Env = append(os.Environ(), env...)
	if err := p.Cmd.Start(); err != nil {
		t.Fatalf("start %s: %v; apt-get install -y redis-server, or make test-real", name, err)
	}
	go func() { _ = p.Cmd.Wait(); close(p.Exited) }()
	t.Cleanup(func() {
		p.Kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(name), lastOf(p.Out.String()))
		}
	})
	return p
}

func lastOf(s string) string { return s[max(len(s)-6000, 0):] }

// Kill signals and waits for the end.
func (p *Process) Kill(sig syscall.Signal) {
	_ = p.Cmd.Process.Signal(sig)
	<-p.Exited
}

// Ports returns n ports that were free a moment ago.
func Ports(t *testing.T, n int) []string {
	t.Helper()
	var free []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		free = append(free, port)
	}
	return free
}

// Redis starts a Redis that keeps nothing on disk.
func Redis(t *testing.T, port string) *Process {
	t.Helper()
	return redis(t, port, t.TempDir())
}

// KeptRedis starts a Redis that has every write in dir before it answers, and
// finds there what an earlier one was told.
func KeptRedis(t *testing.T, port, dir string) *Process {
	t.Helper()
	return redis(t, port, dir, "--appendonly", "yes", "--appendfsync", "always")
}

func redis(t *testing.T, port, dir string, args ...string) *Process {
	t.Helper()
	args = append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir}, args...)
	p := Launch(t, "redis-server", args)
	listens(t, "Redis", "127.0.0.1:"+port)
	return p
}

// listens waits until a program takes connections.
func listens(t *testing.T, what, addr string) {
	t.Helper()
	Until(t, what+" listens", func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// Sidecar is a real daprd.
type Sidecar struct {
	*Process
	GRPC, HTTP string // addresses, HTTP with its scheme
	Names      string // file in which sidecars find each other
	args       []string
	env        []string
}

const component = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: %s}
spec:
  type: %s
  version: v1
  metadata: [%s]
`

// Component is one resource: Metadata has NAME=VALUE words.
type Component struct{ Name, Type, Metadata string }

// Options are what a sidecar is started with.
type Options struct {
	AppID      string // default infer
	AppPort    string // empty for no app
	GRPCPort   string // empty for any
	HTTPPort   string // empty for any
	Names      string // file in which sidecars find each other; empty for none
	Components []Component
	Resources  string       // folder of more of them; empty for none
	Control    ControlPlane // zero for none
	Env        []string
}

func daprd(t *testing.T) string {
	t.Helper()
	program := os.Getenv("INFER_TEST_DAPRD")
	if program == "" {
		t.Fatal("INFER_TEST_DAPRD is empty; run make test-real, which builds daprd")
	}
	return program
}

// ControlPlane is the addresses of the services that workflows need.
type ControlPlane struct{ Placement, Scheduler string }

// Control starts placement and scheduler, which forget all when the test ends.
func Control(t *testing.T) ControlPlane {
	t.Helper()
	p := Ports(t, 5)
	c := ControlPlane{Placement: "127.0.0.1:" + p[0], Scheduler: "127.0.0.1:" + p[1]}
	Launch(t, daprd(t), []string{"placement", "--listen-address", "127.0.0.1", "--port", p[0], "--initial-cluster", "dapr-placement-0=127.0.0.1:" + p[2]})
	listens(t, "placement", c.Placement)
	Launch(t, daprd(t), []string{"scheduler", "--listen-address", "127.0.0.1", "--port", p[1], "--etcd-data-dir", t.TempDir(),
		"--etcd-client-listen-address", "127.0.0.1", "--etcd-client-port", p[3], "--etcd-initial-cluster", "dapr-scheduler-server-0=http://127.0.0.1:" + p[4]})
	listens(t, "scheduler", c.Scheduler)
	return c
}

// policy is what the project ships for a component named events. A sidecar
// without it loses what it hands over while a stream opens or closes.
const policy = "deploy/dapr/kubernetes/resiliency.yaml"

// Start starts daprd, with the shipped policy, and waits until its components
// are loaded.
func Start(t *testing.T, o Options) *Sidecar {
	t.Helper()
	program, dir := daprd(t), t.TempDir()
	for _, c := range o.Components {
		var items []string
		for pair := range strings.FieldsSeq(c.Metadata) {
			k, v, _ := strings.Cut(pair, "=")
			items = append(items, fmt.Sprintf(`{name: %s, value: "%s"}`, k, v))
		}
		text := fmt.Sprintf(component, c.Name, c.Type, strings.Join(items, ", "))
		if err := os.WriteFile(filepath.Join(dir, c.Name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", policy)) // from the folder of a test two below the project's
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "resiliency.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	p := Ports(t, 4)
	p[0], p[1] = cmp.Or(o.GRPCPort, p[0]), cmp.Or(o.HTTPPort, p[1])
	d := &Sidecar{GRPC: "127.0.0.1:" + p[0], HTTP: "http://127.0.0.1:" + p[1], Names: o.Names, env: o.Env}
	d.args = []string{program, "--app-id", cmp.Or(o.AppID, "infer"), "--mode", "standalone", "--resources-path", dir,
		"--dapr-grpc-port", p[0], "--dapr-http-port", p[1], "--dapr-internal-grpc-port", p[2], "--metrics-port", p[3], "--metrics-listen-address", "127.0.0.1",
		"--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1", "--log-level", "info"}
	if o.Resources != "" {
		d.args = append(d.args, "--resources-path", o.Resources)
	}
	if o.Control.Placement != "" {
		d.args = append(d.args, "--placement-host-address", o.Control.Placement, "--scheduler-host-address", o.Control.Scheduler)
	}
	if o.AppPort != "" {
		d.args = append(d.args, "--app-port", o.AppPort, "--app-protocol", "http")
	}
	if o.Names != "" {
		text := "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: config}\nspec: {nameResolution: {component: sqlite, version: v1, configuration: {connectionString: \"" + o.Names + "\"}}}\n"
		file := filepath.Join(dir, "..", filepath.Base(dir)+"-config.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d.args = append(d.args, "--config", file)
	}
	d.Restart(t)
	return d
}

// Restart starts daprd again on the same ports.
func (d *Sidecar) Restart(t *testing.T) {
	t.Helper()
	d.Process = Launch(t, d.args[0], d.args[1:], append([]string{"DAPR_HOST_IP=127.0.0.1"}, d.env...)...)
	Until(t, "daprd is ready", func() bool {
		r, err := http.Get(d.HTTP + "/v1.0/healthz/outbound")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusNoContent
	})
}
