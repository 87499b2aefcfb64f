package vllm

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"

	"infer/internal/engine"
)

// ending is what is known of a child that ended without being asked to.
type ending struct {
	state     *os.ProcessState // nil when it could not be started
	lines     []string         // the last of its output
	ready     bool             // it had answered before
	oomKilled bool             // the kernel killed something of this container for memory

}

// symptom is one line of the table of causes. The first that matches a line
// decides; within one symptom the last line that matches is quoted.
type symptom struct {
	cause     engine.Cause
	retryable bool
	pattern   *regexp.Regexp
	remedy    string
}

// symptoms are ordered from the most particular. The words are those of vLLM,
// PyTorch, huggingface_hub and argparse; any of them may change with a release,
// and then the cause is a more general one.
var symptoms = []symptom{
	{engine.CauseGPULost, false, regexp.MustCompile(`(?i)GPU is lost|fallen off the bus|uncorrectable ECC|Unable to determine the device handle`),
		"this node's GPU needs a reset; run the container on another node"},
	{engine.CauseDriverMismatch, false, regexp.MustCompile(`(?i)CUDA driver version is insufficient|NVIDIA driver on your system is too old|no kernel image is available|forward compatibility was attempted|provided PTX was compiled with an unsupported toolchain`),
		"the node's driver does not fit this image's CUDA; use a node with a newer driver or an image with an older CUDA"},
	{engine.CauseDeviceUnavailable, false, regexp.MustCompile(`(?i)No CUDA GPUs are available|Failed to infer device type|Found no NVIDIA driver|no CUDA-capable device`),
		"give the container a GPU, or use --engine onnx on a CPU"},
	{engine.CauseMemoryHeld, true, regexp.MustCompile(`(?i)Free memory on device .* is less than desired GPU memory utilization`),
		"another process holds the GPU's memory; end it, or lower GPU_MEMORY_UTILIZATION"},
	{engine.CauseOutOfMemoryAtStart, false, regexp.MustCompile(`(?i)No available memory for the cache blocks|larger than the available KV cache memory|larger than the maximum number of tokens that can be stored in KV cache|estimated maximum model length is \d+`),
		"lower MAX_MODEL_LEN (--max-model-len), raise GPU_MEMORY_UTILIZATION, or use a GPU with more memory"},
	{engine.CauseOutOfMemoryAtStart, false, regexp.MustCompile(`(?i)CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|HIP out of memory`),
		"use a smaller or a quantised model, lower MAX_MODEL_LEN or --max-num-seqs, or use a GPU with more memory"},
	{engine.CauseBadFlag, false, regexp.MustCompile(`vllm( serve)?: error: |unrecognized arguments|error: argument -`),
		"correct the flags after --; vllm serve --help=all lists them"},
	{engine.CauseModelGated, false, regexp.MustCompile(`(?i)GatedRepoError|Cannot access gated repo|Access to model .* is restricted|40[13] Client Error|Invalid (user token|username or password)`),
		"accept the model's licence on its hub page and set HF_TOKEN to a token that may read it"},
	{engine.CauseHubLimited, true, regexp.MustCompile(`(?i)429 Client Error|Too Many Requests`),
		"the hub limits this address; set HF_TOKEN, or put the model on a volume"},
	{engine.CauseDiskFull, false, regexp.MustCompile(`(?i)No space left on device|Disk quota exceeded`),
		"free or enlarge the volume of the model cache (HF_HOME) and /dev/shm"},
	{engine.CauseModelUnsupported, false, regexp.MustCompile(`(?i)are not supported for now|Unknown quantization method|does not recognize this architecture|requires you to execute the configuration file|trust_remote_code=True`),
		"choose a model that this vLLM supports, or a newer vLLM; one with code of its own needs --trust-remote-code after --"},
	{engine.CauseModelNotFound, false, regexp.MustCompile(`(?i)RepositoryNotFoundError|is not a valid model identifier|Invalid repository ID or local directory|does not appear to have a file named|404 Client Error|Repo id must|No adapter found for|LoRA .* (not found|doesn't contain)`),
		"check the name or path; a folder needs config.json, tokenizer and weights"},
	{engine.CauseModelInvalid, false, regexp.MustCompile(`(?i)SafetensorError|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer|Cannot find any model weights|JSONDecodeError|size mismatch for`),
		"the model's files are damaged or incomplete; fetch them again"},
	{engine.CauseHubUnreachable, true, regexp.MustCompile(`(?i)couldn't connect to 'https?://|LocalEntryNotFoundError|Max retries exceeded|Temporary failure in name resolution|Name or service not known|OfflineModeIsEnabled`),
		"let the container reach the hub, or put the model on a volume"},
	{engine.CauseLibraryMissing, false, regexp.MustCompile(`ModuleNotFoundError|ImportError|PackageNotFoundError|cannot open shared object file`),
		"this installation of vLLM is incomplete; use its official image or install it again"},
	{engine.CauseSocket, true, regexp.MustCompile(`(?i)\[Errno 98\]|Address already in use|AF_UNIX path too long|\[Errno 13\] .*(sock|bind)`),
		"the socket's folder must be private to this process; set TMPDIR to a short, writable folder"},
	{engine.CauseBadFlag, false, regexp.MustCompile(`ValidationError: |validation errors? for \w*Config|ValueError: User-specified|ValueError: .*(--|must be|should be|not supported)|greater than the derived max_model_len`),
		"correct the flags after --, GPU_MEMORY_UTILIZATION or MAX_MODEL_LEN; the line above says which"},
	{engine.CauseEngineFault, true, regexp.MustCompile(`EngineDeadError|[Ee]ngine ?[Cc]ore (exited unexpectedly|encountered|initialization failed|died)|illegal memory access|CUDA error`),
		"it is started again; if it repeats, report the log lines to vLLM"},
}

// diagnose finds the cause of an ending: what the kernel did, then what the
// lines say, then the exit status.
func diagnose(e ending) *engine.Failure {
	if f := recognise(e); f != nil {
		return f
	}
	return byStatus(e)
}

// recognise returns nil when neither the kernel nor a line tells the cause.
func recognise(e ending) *engine.Failure {
	if e.oomKilled {
		return &engine.Failure{Cause: engine.CauseHostOutOfMemory, Retryable: true,
			Message: "vllm: the kernel killed it because the container's memory ran out",
			Remedy:  "raise the container's memory limit, or lower --swap-space and --max-num-seqs"}
	}
	for _, s := range symptoms {
		if e.ready && !s.whileReady() {
			continue
		}
		for i := len(e.lines) - 1; i >= 0; i-- {
			if serious(e.lines[i]) && s.pattern.MatchString(e.lines[i]) {
				return s.failure(e, e.lines[i])
			}
		}
	}
	return nil
}

// serious leaves out what vLLM itself does not take for an error: it imports
// and probes a lot that need not be there. Lines without a level are Python's
// own last words.
func serious(line string) bool {
	switch levelOf(line) {
	case "DEBUG", "INFO", "WARNING":
		return false
	}
	return true
}

// whileReady says whether a symptom can end an engine that has answered. The
// lines of such a one are full of what was wrong with requests.
func (s symptom) whileReady() bool {
	switch s.cause {
	case engine.CauseGPULost, engine.CauseOutOfMemoryAtStart, engine.CauseEngineFault:
		return true
	}
	return false
}

func (s symptom) failure(e ending, line string) *engine.Failure {
	f := &engine.Failure{Cause: s.cause, Retryable: s.retryable, Remedy: s.remedy,
		Message: "vllm: " + clip(strings.TrimPrefix(plain(line), "vllm: "), 300)}
	if s.cause == engine.CauseOutOfMemoryAtStart && e.ready {
		f.Cause, f.Retryable = engine.CauseOutOfMemoryAtRun, true
		f.Remedy = "lower GPU_MEMORY_UTILIZATION or --max-num-seqs, so that the engine has room for what a request needs"
	}
	if m := maxLength.FindStringSubmatch(line); m != nil {
		f.Remedy = "set MAX_MODEL_LEN to at most " + m[1] + ", raise GPU_MEMORY_UTILIZATION, or use a GPU with more memory"
	}
	return f
}

// maxLength finds the length that vLLM has computed to fit.
var maxLength = regexp.MustCompile(`estimated maximum model length is (\d+)`)

// byStatus knows only how the process ended.
func byStatus(e ending) *engine.Failure {
	status, _ := e.state.Sys().(syscall.WaitStatus)
	last := ""
	if n := len(e.lines); n > 0 {
		last = fmt.Sprintf("; its last line: %q", clip(plain(e.lines[n-1]), 200))
	}
	switch {
	case status.Signaled() && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGTERM || status.Signal() == syscall.SIGINT):
		return &engine.Failure{Cause: engine.CauseKilled, Retryable: true,
			Message: fmt.Sprintf("vllm: ended from outside by %v", status.Signal()),
			Remedy:  "find out who sends signals inside the container; it is started again"}
	case status.Signaled():
		return &engine.Failure{Cause: engine.CauseEngineFault, Retryable: true,
			Message: fmt.Sprintf("vllm: crashed with %v%s", status.Signal(), last),
			Remedy:  "it is started again; if it repeats, report the log lines to vLLM"}
	default:
		return &engine.Failure{Cause: engine.CauseUnknown, Retryable: true,
			Message: fmt.Sprintf("vllm: exited with code %d without being asked%s", status.ExitStatus(), last),
			Remedy:  "see its lines in the log"}
	}
}

func clip(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
