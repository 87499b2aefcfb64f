// Command relay measures what infer costs as a relay of streams, beside a plain
// TCP copy, httputil.ReverseProxy and nginx. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// plan is what is measured.
type plan struct {
	infer, nginx string
	arms         []string
	streams      []int // densities of the paced streams
	rate         int   // tokens a second of each stream
	seconds      int   // of one measurement
	rounds       int
	asks         int   // requests for the time to the first token
	open         []int // streams held open for their memory
	flood        time.Duration
	out          io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	raiseFiles()
	if filepath.Base(os.Args[0]) == "vllm" { // infer starts it
		return runVLLM(ctx, args)
	}
	if len(args) > 0 {
		if role, ok := roles[args[0]]; ok {
			return role(ctx, args[1:])
		}
	}
	p, err := parse(args, out)
	if err != nil {
		return err
	}
	return p.measure(ctx)
}

func parse(args []string, out io.Writer) (*plan, error) {
	p := &plan{out: out}
	f := flag.NewFlagSet("relay", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&p.infer, "infer", "../../bin/infer", "the built program")
	f.StringVar(&p.nginx, "nginx", "nginx", "nginx; its arms are left out when it is not there")
	arms := f.String("arms", "copy,proxy,nginx,infer,copy-tcp,infer-tcp", "what is measured; -tcp has the upstream on TCP, the others on a Unix socket")
	streams := f.String("streams", "20,80", "numbers of paced streams")
	open := f.String("open", "1000,4000", "numbers of streams held open for their memory")
	f.IntVar(&p.rate, "rate", 50, "tokens a second of each paced stream")
	f.IntVar(&p.seconds, "seconds", 8, "length of a paced stream")
	f.IntVar(&p.rounds, "rounds", 3, "interleaved rounds, of which medians are taken")
	f.IntVar(&p.asks, "asks", 300, "requests for the time to the first token, in each round")
	f.DurationVar(&p.flood, "flood", 2*time.Second, "how long whole answers are asked for, in each round")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	var errs []error
	p.arms = strings.Split(*arms, ",")
	p.streams = numbers(*streams, &errs)
	p.open = numbers(*open, &errs)
	return p, errors.Join(errs...)
}

// numbers reads a list such as 20,80; an empty one has none.
func numbers(list string, errs *[]error) []int {
	var all []int
	for _, s := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(s)
		if err != nil || n <= 0 {
			*errs = append(*errs, fmt.Errorf("%q is no list of numbers", list))
			return nil
		}
		all = append(all, n)
	}
	return all
}

// raiseFiles takes as many open files as the system gives.
func raiseFiles() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) // then fewer streams fit
	}
}
