package engine

// Cause names why an engine cannot work. The set is closed, so that a cause
// may be a metric label.
type Cause string

// The causes known today.
const (
	CauseModelNotFound      Cause = "model_not_found"    // no such file, folder or repository
	CauseModelInvalid       Cause = "model_invalid"      // damaged, truncated or not a model
	CauseModelUnsupported   Cause = "model_unsupported"  // an architecture or quantisation that is not implemented
	CauseModelGated         Cause = "model_gated"        // the hub wants a token or an accepted licence
	CauseHubLimited         Cause = "hub_rate_limited"   // the hub answers 429
	CauseHubUnreachable     Cause = "hub_unreachable"    // the hub does not answer
	CauseLibraryMissing     Cause = "library_missing"    // a shared library or a module cannot be loaded
	CauseLibraryTooOld      Cause = "library_too_old"    // a shared library lacks what is needed
	CauseProgramMissing     Cause = "program_missing"    // the engine's program cannot be run
	CauseBadFlag            Cause = "bad_flag"           // the engine refuses a flag or its value
	CauseDeviceUnavailable  Cause = "device_unavailable" // the requested device cannot be used
	CauseDriverMismatch     Cause = "driver_mismatch"    // the driver does not fit the engine's CUDA
	CauseGPULost            Cause = "gpu_lost"           // the GPU does not answer any more
	CauseOutOfMemoryAtStart Cause = "out_of_memory_load" // weights or KV cache do not fit
	CauseOutOfMemoryAtRun   Cause = "out_of_memory_run"  // device memory ran out while it ran
	CauseHostOutOfMemory    Cause = "host_out_of_memory" // the kernel killed it for the host's memory
	CauseMemoryHeld         Cause = "memory_held"        // a former process still holds the device's memory
	CauseDiskFull           Cause = "disk_full"          // the cache cannot be written
	CauseSocket             Cause = "socket"             // a port, socket or its folder cannot be used
	CauseNotVLLM            Cause = "not_vllm"           // what answers at the given address is another server
	CauseStartTimeout       Cause = "start_timeout"      // the start made no progress for too long
	CauseStalled            Cause = "engine_stalled"     // work was in flight and nothing moved
	CauseEngineFault        Cause = "engine_fault"       // the engine broke while it ran
	CauseKilled             Cause = "killed"             // somebody else ended the engine
	CauseUnknown            Cause = "unknown"            // none of the above
)

// Causes lists every cause, for metrics that report all of them.
func Causes() []Cause {
	return []Cause{CauseModelNotFound, CauseModelInvalid, CauseModelUnsupported, CauseModelGated, CauseHubLimited,
		CauseHubUnreachable, CauseLibraryMissing, CauseLibraryTooOld, CauseProgramMissing, CauseBadFlag,
		CauseDeviceUnavailable, CauseDriverMismatch, CauseGPULost, CauseOutOfMemoryAtStart, CauseOutOfMemoryAtRun,
		CauseHostOutOfMemory, CauseMemoryHeld, CauseDiskFull, CauseSocket, CauseNotVLLM, CauseStartTimeout,
		CauseStalled, CauseEngineFault, CauseKilled, CauseUnknown}
}

// Failure is a typed end of an engine. Message says what happened, Remedy what
// the operator can do about it; both are shown to people as they are.
type Failure struct {
	Cause     Cause
	Message   string
	Remedy    string
	Retryable bool  // a restart may succeed
	Err       error // what was underneath; may be nil
}

// Error joins message and remedy on one line.
func (f *Failure) Error() string {
	if f.Remedy == "" {
		return f.Message
	}
	return f.Message + "; " + f.Remedy
}

// Unwrap returns what was underneath.
func (f *Failure) Unwrap() error { return f.Err }
