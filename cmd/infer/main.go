// Command infer serves a model over the OpenAI API from one process and one
// port. serve runs the engine and the server, chat talks to a running one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// process is what a program gets from its surroundings, so that a test can
// start the whole of it.
type process struct {
	args    []string
	getenv  func(string) string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	signals <-chan os.Signal
}

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	err := run(context.Background(), process{
		args: os.Args[1:], getenv: os.Getenv, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, signals: signals,
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "infer: %v\n", err)
	}
	os.Exit(exitCode(err))
}

// run parses the command line and runs the command that it names.
func run(ctx context.Context, p process) error {
	c, command, err := parse(p)
	switch {
	case errors.Is(err, errHelp):
		return nil
	case err != nil:
	case command == "chat":
		return c.Chat.run(ctx, p)
	case command == "simulate":
		return c.Simulate.run(ctx, p)
	case command == "version":
		return c.Version.run(p)
	case command == "batch":
		err = c.Batch.run(ctx, p)
	case command == "guard":
		return c.Guard.run(p)
	default:
		err = c.Serve.run(ctx, p)
	}
	// Running `infer chat` inside a container must not overwrite what the
	// container's own process had to say.
	if err != nil && serves(p.args) {
		noteTermination(c.Serve.TerminationLog, err)
	}
	return err
}

// serves says whether args, which may be faulty, ask for a server.
func serves(args []string) bool {
	return len(args) == 0 || !slices.Contains([]string{"chat", "simulate", "version", "guard"}, args[0])
}
