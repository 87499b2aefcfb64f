package engine

import "context"

// Meter is told what an engine did for one request while it does it, so that
// tokens are counted also for a client that cancels. Its methods are called by
// one goroutine at a time and must not block.
type Meter interface {
	// Prompt reports the prompt's tokens once they are known, and how many of
	// them came from a cache instead of being computed.
	Prompt(tokens, cached int)
	// Tokens reports n completion tokens that were just sampled.
	Tokens(n int)
}

type meterKey struct{}

// WithMeter returns a context that carries m to the engine's handler.
func WithMeter(ctx context.Context, m Meter) context.Context {
	return context.WithValue(ctx, meterKey{}, m)
}

// MeterFrom returns the Meter of a request, or one that discards.
func MeterFrom(ctx context.Context) Meter {
	if m, ok := ctx.Value(meterKey{}).(Meter); ok {
		return m
	}
	return discard{}
}

type discard struct{}

func (discard) Prompt(int, int) {}
func (discard) Tokens(int)      {}
