package engine

// Cause names why an engine cannot work. The set is closed, so that a cause
// may be a metric label.
type Cause string

// The causes known today.
const (
	CauseModelNotFound      Cause = "model_not_found"    // no such file or folder
	CauseModelInvalid       Cause = "model_invalid"      // damaged, truncated or not a model
	CauseModelUnsupported   Cause = "model_unsupported"  // an architecture or quantisation that is not implemented
	CauseLibraryMissing     Cause = "library_missing"    // a shared library cannot be loaded
	CauseLibraryTooOld      Cause = "library_too_old"    // a shared library lacks what is needed
	CauseDeviceUnavailable  Cause = "device_unavailable" // the requested device cannot be used
	CauseOutOfMemoryAtStart Cause = "out_of_memory_load" // weights or KV cache do not fit
	CauseDiskFull           Cause = "disk_full"          // the cache cannot be written
	CauseEngineFault        Cause = "engine_fault"       // the engine broke while it ran
	CauseUnknown            Cause = "unknown"            // none of the above
)

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
