package engine

import "context"

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
