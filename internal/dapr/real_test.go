//go:build real

package dapr

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"infer/internal/store"
	"infer/internal/store/storetest"
)

// process is a program that a test has started.
type process struct {
	cmd    *exec.Cmd
	out    *syncWriter
	exited chan struct{}
}

func launch(t *testing.T, name string, args []string, env ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), out: new(syncWriter), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.Env = append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v; apt-get install -y redis-server, or make test-real", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.exited) }()
	t.Cleanup(func() {
		p.kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(name), lastOf(p.out.String()))
		}
	})
	return p
}

func lastOf(s string) string { return s[max(len(s)-6000, 0):] }

// kill signals and waits for the end.
func (p *process) kill(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	<-p.exited
}

// ports reserves n free ports.
func ports(t *testing.T, n int) []string {
	t.Helper()
	var free []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		free = append(free, port)
	}
	return free
}

func redis(t *testing.T, port string) *process {
	t.Helper()
	p := launch(t, "redis-server", []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir()})
	until(t, "Redis answers", func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return p
}

// daprd is a real sidecar.
type daprd struct {
	*process
	grpc, http string
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

// sidecarOf starts daprd with components: name, type and metadata.
func sidecarOf(t *testing.T, appPort string, components [][3]string, env ...string) *daprd {
	t.Helper()
	program := os.Getenv("INFER_TEST_DAPRD")
	if program == "" {
		t.Fatal("INFER_TEST_DAPRD is empty; run make test-real, which builds daprd")
	}
	dir := t.TempDir()
	for _, c := range components {
		var items []string
		for pair := range strings.FieldsSeq(c[2]) {
			k, v, _ := strings.Cut(pair, "=")
			items = append(items, fmt.Sprintf(`{name: %s, value: "%s"}`, k, v))
		}
		text := fmt.Sprintf(component, c[0], c[1], strings.Join(items, ", "))
		if err := os.WriteFile(filepath.Join(dir, c[0]+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := ports(t, 4)
	d := &daprd{grpc: "127.0.0.1:" + p[0], http: "http://127.0.0.1:" + p[1], env: env}
	d.args = []string{program, "--app-id", "infer", "--mode", "standalone", "--resources-path", dir,
		"--dapr-grpc-port", p[0], "--dapr-http-port", p[1], "--dapr-internal-grpc-port", p[2], "--metrics-port", p[3],
		"--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1", "--log-level", "info"}
	if appPort != "" {
		d.args = append(d.args, "--app-port", appPort, "--app-protocol", "http")
	}
	d.start(t)
	return d
}

func (d *daprd) start(t *testing.T) {
	t.Helper()
	d.process = launch(t, d.args[0], d.args[1:], append([]string{"DAPR_HOST_IP=127.0.0.1"}, d.env...)...)
	until(t, "daprd is ready", func() bool {
		r, err := http.Get(d.http + "/v1.0/healthz/outbound")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusNoContent
	})
}

func (d *daprd) config() Config {
	return Config{Mode: "on", Topic: "infer.requests", ReplyTopics: []string{"infer.results"}, GRPC: d.grpc, HTTP: d.http, Drain: 10 * time.Second}
}

// Real components pass the suite that every store passes.
func TestRealStores(t *testing.T) {
	port := ports(t, 1)[0]
	redis(t, port)
	d := sidecarOf(t, "", [][3]string{
		{"memory", "state.in-memory", ""},
		{"lite", "state.sqlite", "connectionString=" + filepath.Join(t.TempDir(), "state.db") + " cleanupInterval=1s"},
		{"redis", "state.redis", "redisHost=127.0.0.1:" + port},
	})
	s := run(t, d.config(), program(echo))
	for _, name := range []string{"memory", "lite", "redis"} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(*testing.T) store.Store { return s.Store(name) })
		})
	}
	if _, err := s.Store("absent").Get(context.Background(), "a"); err == nil || !strings.Contains(err.Error(), `no state component "absent"`) {
		t.Errorf("a component that is not there: %v", err)
	}
}
