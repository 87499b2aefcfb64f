package vllm

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says which vLLM runs, or to which one to attach.
type Config struct {
	// Model is a folder, or a name that vLLM fetches from its hub.
	Model string
	// Names are the model's names on the wire; the first is canonical. Empty
	// means the base name of Model, and also all of it when it is a hub's.
	Names []string
	// LoRA are adapters as NAME=PATH, each served as a model of that name.
	LoRA []string
	// Args are passed to vllm serve as they are.
	Args []string
	// Env is added to the environment of this process, which vLLM inherits;
	// that is how HF_TOKEN gets there.
	Env []string
	// Program is vLLM's command; empty means vllm.
	Program string
	// URL attaches to a running vLLM, http://HOST:PORT or unix:///PATH, that
	// somebody else starts and stops. Empty means to run one.
	URL string
	// Key is what vLLM wants of its clients, when its environment has
	// VLLM_API_KEY; empty for none.
	Key string
	// MemoryUtilization becomes --gpu-memory-utilization; 0 is vLLM's own.
	MemoryUtilization float64
	// MaxModelLen becomes --max-model-len; 0 is the model's own.
	MaxModelLen int
	// StallTimeout is how long nothing may move while work is in flight.
	StallTimeout time.Duration
	// StartTimeout is how long a start may say nothing. 0 means 30 minutes: one
	// compilation was seen to take 37 (vllm-project/vllm issue 34399), but with
	// progress bars.
	StartTimeout time.Duration
	// SleepAfter frees the GPU when nothing was asked for so long; 0 is never.
	SleepAfter time.Duration
	// Grace is the platform's termination grace period, of whose end vLLM gets
	// a part to stop in.
	Grace time.Duration
	// StateDir keeps learned start durations; empty keeps them in memory.
	StateDir string
	// Guard is a command that calls the function Guard with its input, to end
	// vLLM's processes should this process be killed. Empty means none.
	Guard []string
	// RunDir is where the private folder of the socket is made; empty means
	// the system's for temporary files.
	RunDir string
}

// ours are flags that would take vLLM out of our hands.
var ours = map[string]string{
	"--uds":               "vLLM listens on a private socket only",
	"--host":              "vLLM listens on a private socket only",
	"--port":              "vLLM listens on a private socket only",
	"--grpc":              "vLLM listens on a private socket only",
	"--headless":          "vLLM must answer on its socket",
	"--root-path":         "paths are infer's",
	"--ssl-keyfile":       "TLS ends in front of infer",
	"--ssl-certfile":      "TLS ends in front of infer",
	"--api-key":           "nobody but infer reaches vLLM; keys are infer's (--api-keys-file)",
	"--served-model-name": "use infer's own --served-model-name in front of the --",
	"--lora-modules":      "use infer's own --lora NAME=PATH in front of the --",
	"--disable-log-stats": "vLLM's counters tell a long prefill from a frozen engine",
	"--config":            "write its flags after the --, so that they can be checked",
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Model == "" && c.URL == "" {
		fault("model: empty; pass a folder or a hub's name such as Qwen/Qwen3-0.6B, or attach with --vllm-url")
	}
	if c.URL != "" {
		if _, err := newUpstream(c.URL, ""); err != nil {
			fault("vllm-url: %w", err)
		}
		if len(c.Names) > 0 {
			fault("served-model-name: the vLLM at %s has names of its own", c.URL)
		}
		if len(c.Args) > 0 || len(c.LoRA) > 0 {
			fault("vllm-url: arguments after -- and --lora are for a vLLM that infer starts; give them to the one at %s", c.URL)
		}
	}
	if strings.HasPrefix(c.Model, "-") {
		fault("model: %q looks like a flag; write flags of vLLM after --", c.Model)
	}
	for _, arg := range c.Args {
		name, _, _ := strings.Cut(arg, "=")
		if why, ok := ours[strings.ReplaceAll(name, "_", "-")]; ok {
			fault("arguments after --: %s is not yours to set: %s", name, why)
		}
	}
	if c.MemoryUtilization < 0 || c.MemoryUtilization > 1 {
		fault("GPU_MEMORY_UTILIZATION: must be above 0 and at most 1, got %v", c.MemoryUtilization)
	}
	if c.MaxModelLen < 0 {
		fault("MAX_MODEL_LEN: must be positive, got %d", c.MaxModelLen)
	}
	if c.StallTimeout < time.Second {
		fault("stall-timeout: must be at least 1s, got %v; 60s is the default", c.StallTimeout)
	}
	if c.SleepAfter < 0 {
		fault("sleep-after: must not be negative, got %v", c.SleepAfter)
	}
	return errors.Join(append(errs, c.adapterFaults()...)...)
}

func (c Config) adapterFaults() []error {
	var errs []error
	seen := map[string]bool{}
	for _, name := range c.Names {
		seen[name] = true
	}
	for _, a := range c.LoRA {
		name, path, ok := strings.Cut(a, "=")
		switch {
		case !ok || name == "" || path == "":
			errs = append(errs, fmt.Errorf("lora: %q is not NAME=PATH", a))
		case seen[name]:
			errs = append(errs, fmt.Errorf("lora: the name %q is taken", name))
		case isPath(path):
			if _, err := os.Stat(filepath.Join(path, "adapter_config.json")); err != nil {
				errs = append(errs, fmt.Errorf("lora: %s has no adapter_config.json; pass the adapter's folder", path))
			}
		}
		seen[name] = true
	}
	return errs
}

// isPath tells a folder from a hub's name, which has at most one slash.
func isPath(s string) bool {
	return filepath.IsAbs(s) || strings.HasPrefix(s, ".") || strings.HasPrefix(s, "~") || strings.Count(s, "/") > 1
}

func (c Config) program() string             { return cmp.Or(c.Program, "vllm") }
func (c Config) startTimeout() time.Duration { return cmp.Or(c.StartTimeout, 30*time.Minute) }

// patience is how long vLLM may take to stop before it is killed. The server
// keeps the last fifth of the grace period, at most 5 s, and uses half of it.
func (c Config) patience() time.Duration {
	if c.Grace <= 0 {
		return 2 * time.Second
	}
	return min(c.Grace/12, 2*time.Second)
}

// names are the model's, canonical first, without adapters.
func (c Config) names() []string {
	if len(c.Names) > 0 {
		return c.Names
	}
	if c.Model == "" {
		return nil
	}
	base := filepath.Base(c.Model)
	if isPath(c.Model) || base == c.Model {
		return []string{base}
	}
	return []string{base, c.Model}
}

// has says whether the operator gave a flag after the --.
func (c Config) has(flag string) bool {
	_, ok := c.flag(flag)
	return ok
}

// flag returns the value of an operator's flag.
func (c Config) flag(flag string) (string, bool) {
	for i, arg := range c.Args {
		name, value, joined := strings.Cut(arg, "=")
		if strings.ReplaceAll(name, "_", "-") != flag {
			continue
		}
		if !joined && i+1 < len(c.Args) {
			value = c.Args[i+1]
		}
		return value, true
	}
	return "", false
}

// command is what to run for a server on socket. Flags that infer adds are old
// ones, so that it runs many releases.
func (c Config) command(socket string, sleep bool) command {
	args := []string{"serve", c.Model, "--uds", socket, "--served-model-name"}
	args = append(args, c.names()...)
	add := func(flag string, value ...string) {
		if !c.has(flag) {
			args = append(append(args, flag), value...)
		}
	}
	add("--enable-prompt-tokens-details")  // how much of a prompt came from the cache
	add("--scheduling-policy", "priority") // among equals it is the order of arrival
	if c.MemoryUtilization > 0 {
		add("--gpu-memory-utilization", strconv.FormatFloat(c.MemoryUtilization, 'g', -1, 64))
	}
	if c.MaxModelLen > 0 {
		add("--max-model-len", strconv.Itoa(c.MaxModelLen))
	}
	if len(c.LoRA) > 0 {
		add("--enable-lora")
		add("--max-loras", strconv.Itoa(min(len(c.LoRA), 8)))
		args = append(append(args, "--lora-modules"), c.LoRA...)
	}
	env := []string{"VLLM_NO_USAGE_STATS=1", "DO_NOT_TRACK=1", "PYTHONUNBUFFERED=1", "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH=0",
		"VLLM_MEDIA_URL_ALLOW_REDIRECTS=0"} // a second wall: no address reaches it
	if sleep {
		add("--enable-sleep-mode")
		env = append(env, "VLLM_SERVER_DEV_MODE=1") // its routes are on the private socket, and never relayed
	}
	return command{program: c.program(), args: append(args, c.Args...), env: append(env, slices.Clone(c.Env)...), guard: c.Guard}
}
