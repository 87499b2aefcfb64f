// Package gpu watches the GPUs through NVML: what they do, what they cost, and
// whether they can still be trusted.
//
// One goroutine makes every call to the driver, because a call that hangs
// cannot be cancelled. Everybody else reads a snapshot that carries its age: a
// driver that hangs makes it stale, and nothing else waits.
package gpu
