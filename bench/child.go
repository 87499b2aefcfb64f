package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// engine is one thing that is measured, in a process of its own.
type engine interface {
	// prefill measures one prompt up to its first token.
	prefill(ctx context.Context, prompt []int32) (sample, error)
	// decode measures steps greedy tokens after each of prompts, all at once.
	// The prompts' own prefill is not part of the sample.
	decode(ctx context.Context, prompts [][]int32, steps int) (sample, error)
	// stop ends the process and returns when it has.
	stop() error
}

// order is one line to a child, reply its answer. Slot and Prompt are of op
// prefill, Rows and Steps of op decode. The bare engine's child has both types
// once more, since it belongs to another module.
type order struct {
	Op     string  `json:"op"`
	Slot   int     `json:"slot"`
	Prompt []int32 `json:"prompt,omitempty"`
	Rows   int     `json:"rows"`
	Steps  int     `json:"steps"`
	Mix    *mix    `json:"mix,omitempty"` // of op mix

	Texts []string `json:"texts,omitempty"` // of ops embed and vector
}

type reply struct {
	Error  string    `json:"error"`
	Mix    *mixTimes `json:"mix,omitempty"`
	Vector []float64 `json:"vector,omitempty"`
}

// piped is an engine without HTTP: a child that takes orders on its standard
// input and replies on its standard output.
type piped struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// stopGrace is how long a child may take to end by itself.
const stopGrace = 20 * time.Second

// startPiped returns before the child has loaded its model: the first order
// waits for that. The child ends with ctx or stop.
func startPiped(ctx context.Context, stderr io.Writer, env []string, path string, args ...string) (*piped, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = stderr
	cmd.WaitDelay = stopGrace
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	return &piped{cmd: cmd, in: in, out: json.NewDecoder(out)}, nil
}

func (p *piped) order(o order) (reply, error) {
	var r reply
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		return r, fmt.Errorf("order %s: %w; see the output of %s above", o.Op, err, p.cmd.Path)
	}
	if err := p.out.Decode(&r); err != nil {
		return r, fmt.Errorf("reply to %s: %w; see the output of %s above", o.Op, err, p.cmd.Path)
	}
	if r.Error != "" {
		return r, fmt.Errorf("%s: %s", o.Op, r.Error)
	}
	return r, nil
}

func (p *piped) measure(o order, tokens int) (sample, error) {
	m, err := startMeter(p.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	if _, err := p.order(o); err != nil {
		return sample{}, err
	}
	return m.stop(tokens)
}

func (p *piped) prefill(_ context.Context, prompt []int32) (sample, error) {
	return p.measure(order{Op: "prefill", Prompt: prompt}, len(prompt))
}

func (p *piped) decode(_ context.Context, prompts [][]int32, steps int) (sample, error) {
	for i, prompt := range prompts {
		if _, err := p.order(order{Op: "prefill", Slot: i, Prompt: prompt}); err != nil {
			return sample{}, err
		}
	}
	return p.measure(order{Op: "decode", Rows: len(prompts), Steps: steps}, len(prompts)*steps)
}

func (p *piped) stop() error {
	err := p.in.Close() // the child ends when there are no more orders
	kill := time.AfterFunc(stopGrace, func() { _ = p.cmd.Process.Signal(syscall.SIGKILL) })
	defer kill.Stop()
	return errors.Join(err, p.cmd.Wait())
}

// decoder is what the child has behind its pipe.
type decoder interface {
	prefill(slot int, prompt []int32) error
	decode(rows, steps int) error
	mix(m mix) (mixTimes, error)
}

// obey carries out the orders of in until it ends.
func obey(d decoder, in io.Reader, out io.Writer) error {
	orders, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		err := orders.Decode(&o)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		var r reply
		switch {
		case o.Op == "prefill":
			err = d.prefill(o.Slot, o.Prompt)
		case o.Op == "decode":
			err = d.decode(o.Rows, o.Steps)
		case o.Op == "mix" && o.Mix != nil:
			var times mixTimes
			times, err = d.mix(*o.Mix)
			r.Mix = &times
		default:
			err = fmt.Errorf("unknown order %q", o.Op)
		}
		if err != nil {
			r.Error = err.Error()
		}
		if err := replies.Encode(r); err != nil {
			return fmt.Errorf("write reply: %w", err)
		}
	}
}
