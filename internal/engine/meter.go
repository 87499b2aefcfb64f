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

type callerKey struct{}

// WithCaller returns a context that carries the name of the caller's key to the
// engine's handler. What an engine caches of one caller's requests it must not
// use for another's.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// CallerFrom returns the name of the caller's key, empty when there are no keys.
func CallerFrom(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

type batchKey struct{}

// WithBatch returns a context that tells the engine's handler that nobody waits
// for this request: whatever somebody waits for goes before it.
func WithBatch(ctx context.Context) context.Context {
	return context.WithValue(ctx, batchKey{}, true)
}

// IsBatch says whether ctx is of WithBatch.
func IsBatch(ctx context.Context) bool { return ctx.Value(batchKey{}) != nil }
