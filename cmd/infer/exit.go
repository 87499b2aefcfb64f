package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"infer/internal/engine"
)

// The exit codes. A supervisor may restart on 70 and 75, and on another node on
// 78; 64 and 69 need a person.
const (
	exitUsage       = 64 // usage or configuration
	exitUnavailable = 69 // the engine cannot be made to work
	exitSoftware    = 70 // our own fault
	exitRetry       = 75 // a restart may help
	exitGPULost     = 78 // a restart on another node may help
)

// usageError is a fault of the command line, the environment or the
// configuration file.
type usageError struct{ err error }

// Error returns the faults, one a line.
func (e usageError) Error() string { return e.err.Error() }

// Unwrap returns the faults.
func (e usageError) Unwrap() error { return e.err }

// retryError is a fault that may be gone at the next start.
type retryError struct{ err error }

// Error returns the fault.
func (e retryError) Error() string { return e.err.Error() }

// Unwrap returns the fault.
func (e retryError) Unwrap() error { return e.err }

// unavailableError says that a server cannot be reached.
type unavailableError struct{ err error }

// Error returns the fault.
func (e unavailableError) Error() string { return e.err.Error() }

// Unwrap returns the fault.
func (e unavailableError) Unwrap() error { return e.err }

// signalError ends the program without waiting for anything.
type signalError struct{ signal os.Signal }

// Error says which signal it was.
func (e signalError) Error() string { return fmt.Sprintf("stopped at once by signal: %v", e.signal) }

// exitCode is the whole contract between errors and exit codes.
func exitCode(err error) int {
	var (
		usage   usageError
		retry   retryError
		signal  signalError
		absent  unavailableError
		server  serverError
		failure *engine.Failure
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &signal):
		number, _ := signal.signal.(syscall.Signal) // every signal is one on this platform
		return 128 + int(number)
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &retry):
		return exitRetry
	case errors.As(err, &failure) && failure.Cause == engine.CauseGPULost:
		return exitGPULost
	case errors.As(err, &failure) && failure.Retryable:
		return exitRetry
	case errors.As(err, &server):
		return server.exitCode()
	case errors.As(err, &absent):
		return exitUnavailable
	case errors.As(err, &failure):
		return exitUnavailable
	default:
		return exitSoftware
	}
}

// noteTermination writes err where Kubernetes looks for a container's last
// words. It never creates the file: outside a container there is none.
func noteTermination(path string, err error) {
	f, openErr := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if openErr != nil {
		return // not in a container that has one
	}
	_, _ = f.WriteString(err.Error() + "\n") // the same text goes to stderr
	_ = f.Close()
}
