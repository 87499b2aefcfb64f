package encoder

import (
	"context"
	"fmt"
	"sync/atomic"

	"infer/internal/engine/onnx/tokenizer"
)

// maxFaults is how many runs in a row may break before Run gives up.
const maxFaults = 3

func (e *Encoder) submit(c *call) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return ErrStopped
	}
	if err := e.queue.add(c); err != nil {
		return err
	}
	e.nudge()
	return nil
}

func (e *Encoder) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Run executes batches until ctx ends, then fails what is left with ErrStopped
// and frees the model. It returns an error when the model cannot go on. It is
// called once.
func (e *Encoder) Run(ctx context.Context) error {
	defer e.graph.close()
	defer e.shut()
	stop := context.AfterFunc(ctx, e.nudge)
	defer stop()
	for faults := 0; ctx.Err() == nil; {
		e.mu.Lock()
		batch := e.queue.next(e.batch)
		e.mu.Unlock()
		if len(batch) == 0 {
			<-e.wake
			continue
		}
		err := e.execute(ctx, batch)
		if err == nil || ctx.Err() != nil {
			faults = 0
			continue
		}
		e.log.Error("encoder run", "err", err)
		if faults++; faults == maxFaults {
			return fmt.Errorf("%d runs of the encoder in a row broke off, the last with: %w", faults, err)
		}
	}
	return nil
}

// execute runs one batch and hands out its results. It returns an error when
// the run broke, not when everybody left.
func (e *Encoder) execute(ctx context.Context, batch []item) error {
	runCtx, free := whileAnyWaits(ctx, batch)
	defer free()
	texts := make([]tokenizer.Framed, len(batch))
	for i, it := range batch {
		texts[i] = it.call.inputs[it.input]
	}
	out, err := e.graph.run(runCtx, texts)
	broke := err != nil && runCtx.Err() == nil
	for i, it := range batch {
		c := it.call
		switch {
		case err == nil && out[i] != nil:
			c.out[it.input] = out[i]
		case c.err != nil:
		case err == nil: // the others in the batch have theirs
			c.err = &NotFiniteError{it.input}
		case ctx.Err() != nil:
			c.err = ErrStopped
		default:
			c.err = err
		}
		if c.running--; c.running == 0 && (len(c.pending) == 0 || c.err != nil) {
			e.end(c)
		}
	}
	if broke {
		return err
	}
	return nil
}

// end answers a call, whether or not all of it has run.
func (e *Encoder) end(c *call) {
	e.mu.Lock()
	e.queue.remove(c)
	e.mu.Unlock()
	close(c.done)
}

// whileAnyWaits is a context that ends with ctx, or when all whose inputs are
// in batch have left.
func whileAnyWaits(ctx context.Context, batch []item) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stops := map[*call]func() bool{}
	var waiting atomic.Int32
	for _, it := range batch {
		if _, ok := stops[it.call]; !ok {
			stops[it.call] = nil
			waiting.Add(1)
		}
	}
	for c := range stops {
		stops[c] = context.AfterFunc(c.ctx, func() {
			if waiting.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// shut fails everybody who waits and everybody who comes.
func (e *Encoder) shut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	for _, c := range e.queue.calls {
		c.err = ErrStopped
		close(c.done)
	}
	e.queue.calls = nil
}
