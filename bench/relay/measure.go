package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// bench is one run.
type bench struct {
	*plan
	self, folder string
	unix, tcp    string // the upstream's addresses
	numbers      map[string]map[string][]float64
}

func (p *plan) measure(ctx context.Context) (err error) {
	b := &bench{plan: p, numbers: map[string]map[string][]float64{}}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.folder, err = os.MkdirTemp("", "relay-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.folder)) }()
	// infer starts this program as its vLLM.
	if err := os.Symlink(b.self, filepath.Join(b.folder, "vllm")); err != nil {
		return err
	}
	if _, err := exec.LookPath(p.nginx); err != nil {
		b.arms = slices.DeleteFunc(b.arms, func(a string) bool { return strings.HasPrefix(a, "nginx") })
		_, _ = fmt.Fprintln(b.out, "nginx is not installed and left out")
	}
	if b.tcp, err = free(); err != nil {
		return err
	}
	b.unix = "unix:" + filepath.Join(b.folder, "up.sock")
	up, err := start(b.folder, b.self, "upstream", b.unix, b.tcp)
	if err != nil {
		return err
	}
	defer up.stop()
	if err := until(ctx, b.unix); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(b.out, "%s, %d cores, load average before: %s\n", time.Now().Format(time.RFC3339), runtime.NumCPU(), load())
	if err := b.speed(ctx); err != nil {
		return err
	}
	for _, n := range p.open {
		for _, arm := range b.arms {
			if strings.HasSuffix(arm, "-tcp") {
				continue
			}
			if err := b.memory(ctx, arm, n); err != nil {
				return fmt.Errorf("%s, %d open streams: %w", arm, n, err)
			}
		}
	}
	b.report()
	_, _ = fmt.Fprintf(b.out, "load average after: %s\n", load())
	return nil
}

// free returns an address that nobody uses.
func free() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// arm starts one of the programs that are compared and waits until it answers.
func (b *bench) arm(ctx context.Context, name string) (p *process, address string, err error) {
	to := b.unix
	kind, tcp := strings.CutSuffix(name, "-tcp")
	if tcp {
		to = b.tcp
	}
	if address, err = free(); err != nil {
		return nil, "", err
	}
	switch kind {
	case "copy", "proxy":
		p, err = start(b.folder, b.self, kind, address, to)
	case "nginx":
		p, err = b.startNginx(address, to)
	case "infer":
		if tcp {
			p, err = start(b.folder, b.infer, append(inferFlags(address), "--vllm-url=http://"+to)...)
			break
		}
		// A vLLM of its own, which is told how many streams to expect: by
		// default 256 run and the rest would wait.
		p, err = start(b.folder, b.infer, append(inferFlags(address), "--model=m", "--", "--max-num-seqs=8192")...)
		if err == nil {
			p.alone = true
		}
	default:
		err = fmt.Errorf("no arm %q", name)
	}
	if err != nil {
		return nil, "", err
	}
	if err := until(ctx, address); err != nil {
		p.stop()
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	return p, address, nil
}

func inferFlags(address string) []string {
	return []string{"serve", "--engine=vllm", "--listen=" + address, "--max-queue=8192"}
}

func (b *bench) startNginx(address, to string) (*process, error) {
	conf, user := filepath.Join(b.folder, "nginx.conf"), ""
	if os.Getuid() == 0 { // its workers would be nobody, whom the socket's folder keeps out
		user = "user root; "
	}
	text := user + fmt.Sprintf(`daemon off; worker_processes 2; worker_rlimit_nofile 20000; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log;
events { worker_connections 10000; }
http { access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  upstream up { server %[2]s; keepalive 1024; }
  server { listen %[3]s; keepalive_requests 1000000;
    location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s; } } }
`, b.folder, to, address)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return start(b.folder, b.nginx, "-c", conf, "-e", filepath.Join(b.folder, "nginx.log"))
}

func (b *bench) note(arm, what string, v float64) {
	if b.numbers[arm] == nil {
		b.numbers[arm] = map[string][]float64{}
	}
	b.numbers[arm][what] = append(b.numbers[arm][what], v)
}

// speed keeps all arms up and takes one after the other, in another order each
// round, so that the machine's moods meet all of them.
func (b *bench) speed(ctx context.Context) error {
	type running struct {
		name, address string
		p             *process
	}
	var arms []running
	for _, name := range b.arms {
		p, address, err := b.arm(ctx, name)
		if err != nil {
			return err
		}
		defer p.stop()
		arms = append(arms, running{name, address, p})
	}
	for round := range b.rounds {
		_, _ = fmt.Fprintf(b.out, "round %d of %d, load average %s\n", round+1, b.rounds, load())
		rand.Shuffle(len(arms), func(i, j int) { arms[i], arms[j] = arms[j], arms[i] })
		for _, a := range arms {
			for _, n := range b.streams {
				if err := b.paced(ctx, a.name, a.address, a.p, n); err != nil {
					return fmt.Errorf("%s, %d streams: %w", a.name, n, err)
				}
			}
			if err := b.flooded(ctx, a.name, a.address); err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
		}
		for _, a := range arms {
			if err := b.first(ctx, a.name, a.address); err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
		}
	}
	return nil
}

// paced takes the CPU time of one token.
func (b *bench) paced(ctx context.Context, arm, address string, p *process, n int) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	tokens := b.rate * b.seconds
	if err := b.streamsOf(ctx, address, n, tokens, time.Second/time.Duration(b.rate), nil); err != nil {
		return err
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	b.note(arm, fmt.Sprintf("CPU-µs a token, %d streams", n), float64((after-before).Nanoseconds())/1000/float64(n*tokens))
	return nil
}

// streamsOf runs n streams at once and asserts every token of each. open is
// called when all have begun.
func (b *bench) streamsOf(ctx context.Context, address string, n, tokens int, gap time.Duration, open func() error) error {
	var wg sync.WaitGroup
	errs := make(chan error, n+1)
	body := paced(tokens, gap)
	for range n {
		c, err := connect(ctx, address)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer c.close()
			_, err := c.stream(body, tokens)
			errs <- err
		})
		if n > 500 { // a listener has a backlog
			<-time.After(time.Millisecond)
		}
	}
	if open != nil {
		errs <- open()
	}
	wg.Wait()
	close(errs)
	failed := 0
	var first error
	for err := range errs {
		if err != nil {
			failed++
			first = err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d streams were cut, such as: %w", failed, n, first)
	}
	return nil
}

// first takes the time to the first token of an idle relay, and what that is
// more than without one.
func (b *bench) first(ctx context.Context, arm, address string) error {
	near, err := connect(ctx, b.unix)
	if err != nil {
		return err
	}
	defer near.close()
	far, err := connect(ctx, address)
	if err != nil {
		return err
	}
	defer far.close()
	body := paced(1, time.Microsecond)
	var direct, through []float64
	for range b.asks {
		for _, way := range []struct {
			c  *client
			to *[]float64
		}{{near, &direct}, {far, &through}} {
			ttft, err := way.c.stream(body, 1)
			if err != nil {
				return err
			}
			*way.to = append(*way.to, ttft.Seconds()*1000)
		}
	}
	b.note(arm, "added TTFT p50, ms", median(through)-median(direct))
	return nil
}

// flooded takes the rate of whole answers.
func (b *bench) flooded(ctx context.Context, arm, address string) error {
	const clients = 16
	var wg sync.WaitGroup
	done := make([]int, clients)
	errs := make([]error, clients)
	began := time.Now()
	for i := range clients {
		c, err := connect(ctx, address)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer c.close()
			body := request("")
			for time.Since(began) < b.flood && errs[i] == nil {
				errs[i] = c.whole(body)
				done[i]++
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range done {
		sum += n
	}
	b.note(arm, "whole answers a second", float64(sum)/time.Since(began).Seconds())
	return errors.Join(errs...)
}

// memory takes what an open stream holds, of a fresh process.
func (b *bench) memory(ctx context.Context, arm string, n int) error {
	p, address, err := b.arm(ctx, arm)
	if err != nil {
		return err
	}
	defer p.stop()
	before, err := p.anonymous()
	if err != nil {
		return err
	}
	seconds := 6 + n/500
	return b.streamsOf(ctx, address, n, seconds, time.Second, func() error {
		<-time.After(3 * time.Second) // all run, at a token a second
		after, err := p.anonymous()
		b.note(arm, fmt.Sprintf("kB an open stream, %d", n), float64(after-before)/float64(n)/1000)
		return err
	})
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
