// Package admission decides which request runs now, which waits and which is
// refused. It knows slots, places in a queue, tokens and time; it does no I/O
// and starts no goroutine.
//
// # Slots and queue
//
// A request takes one of the engine's slots or waits for one. What waits is
// bounded by requests, by estimated prompt tokens and by the bytes of its
// bodies. Who leaves while waiting leaves the queue. An engine that is not
// ready has no slots; requests are held for it, in the same queue.
//
// # Whose turn
//
// Interactive work goes before batch work, which also leaves an eighth of the
// slots alone, so that it never fills a large engine. An engine that parks
// batch work by itself gets as much of it as it has slots, and interactive work
// as if there were none. Within a class the callers share by tokens: each has a
// counter of what it was served, an uncached prompt token counting 1 and a
// completion token 2, divided by its weight; the lowest counter is next, and
// one caller's requests go in the order of their arrival. This is the virtual
// token counter of Sheng et al., "Fairness in Serving Large Language Models"
// (OSDI 2024): an estimate is charged when a request gets its slot and
// corrected when it ends, and a caller that comes back is lifted to the counter
// of whoever was served last, so that idling saves no credit. With work of
// equal size, a caller with one request at a time waits for no more than the
// next slot that comes free.
//
// # Who gives way
//
// A full queue does not belong to whoever filled it. A newcomer takes the place
// of the last in line of the caller with the largest share of the queue (the
// largest of its three bounds), if that caller still has as large a share as
// the newcomer's afterwards. Interactive work takes the place of batch work
// without that condition.
//
// # Time
//
// The gate measures how long a slot is kept for the work that was estimated,
// which makes errors of the estimate cancel out. From that it predicts waits: a
// request whose deadline is sooner is refused at once, and one whose deadline
// passes in the queue is refused then. Retry-After books the time at which
// places come free, one after the other, so that refused clients come back as
// they can be let in and not all together.
package admission

import "errors"

// The refusals of a Gate.
var (
	// ErrQueueFull: every place in the queue is taken.
	ErrQueueFull = errors.New("the queue is full")
	// ErrQueueTokens: the prompts of those who wait are over their bound.
	ErrQueueTokens = errors.New("the prompts in the queue are over their bound")
	// ErrQueueBytes: the bodies of those who wait are over their bound.
	ErrQueueBytes = errors.New("the bodies in the queue are over their bound")
	// ErrDisplaced: another caller, with a smaller share of the queue, got the place.
	ErrDisplaced = errors.New("the place in the queue went to a caller that holds fewer")
	// ErrTooSlow: the wait would outlast the deadline; see TooSlowError.
	ErrTooSlow = errors.New("the wait for a slot would outlast the request's deadline")
	// ErrDeadline: the deadline passed in the queue.
	ErrDeadline = errors.New("the request's deadline passed in the queue")
	// ErrHoldTimeout: the engine did not become ready while the request was held.
	ErrHoldTimeout = errors.New("the engine is not ready")
	// ErrDraining: the server is stopping and takes no new work.
	ErrDraining = errors.New("the server is draining")
	// ErrEngineFailed: the engine ended and waiting for it is no use.
	ErrEngineFailed = errors.New("the engine failed")
)
