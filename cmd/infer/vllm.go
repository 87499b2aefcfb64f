package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"infer/internal/engine"
	"infer/internal/engine/onnx"
	"infer/internal/engine/vllm"
	"infer/internal/gpu"
)

// vllmFlags are the settings that only vLLM has. Its own flags follow a --.
type vllmFlags struct {
	URL     string        `name:"vllm-url" placeholder:"URL" help:"Attach to a running vLLM, http://HOST:PORT or unix:///PATH, instead of starting one."`
	Program string        `name:"vllm-program" default:"vllm" help:"Command of vLLM. What follows -- is passed to its serve as it is."`
	Stall   time.Duration `name:"stall-timeout" default:"60s" help:"Start vLLM again when requests are in flight and nothing moves for so long."`
	LoRA    []string      `name:"lora" placeholder:"NAME=PATH" sep:"none" help:"Serve an adapter as a model of this name; may be repeated."`
	Args    []string      `kong:"-"` // after --

	utilization float64 // GPU_MEMORY_UTILIZATION
	maxLen      int     // MAX_MODEL_LEN
	key         string  // VLLM_API_KEY
}

// splitArgs cuts off what is for vLLM. Other commands read a -- themselves.
func splitArgs(args []string) (ours, theirs []string) {
	at := slices.Index(args, "--")
	if at < 0 || !serves(args) {
		return args, nil
	}
	return args[:at], args[at+1:]
}

// chosen is the engine that auto stands for: onnx for what only it reads, and
// when nothing is named.
func (c *serveCmd) chosen() string {
	if c.Engine != "auto" {
		return c.Engine
	}
	if c.VLLM.URL != "" || (c.Model != "" && !isONNX(c.Model)) {
		return "vllm"
	}
	return "onnx"
}

// isONNX says whether path is a GGUF file or a folder with a graph in it.
func isONNX(path string) bool {
	if strings.HasSuffix(path, ".gguf") {
		return true
	}
	for _, pattern := range []string{"genai_config.json", "*.onnx", "onnx/*.onnx"} {
		if found, err := filepath.Glob(filepath.Join(path, pattern)); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// engineFaults reads the variables that vLLM's users know, and checks the
// settings of the chosen engine.
func (c *serveCmd) engineFaults(getenv func(string) string) []error {
	var faults []error
	note := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	if c.chosen() != "vllm" {
		if len(c.VLLM.Args) > 0 {
			note(fmt.Errorf("arguments after -- are for vllm, and the engine is %s; leave them out or pass --engine vllm", c.chosen()))
		}
		note(c.onnx().Validate())
		return faults
	}
	var err error
	if v := getenv("GPU_MEMORY_UTILIZATION"); v != "" {
		if c.VLLM.utilization, err = strconv.ParseFloat(v, 64); err != nil {
			note(fmt.Errorf("GPU_MEMORY_UTILIZATION: %q is not a number; write a share such as 0.9", v))
		}
	}
	if v := getenv("MAX_MODEL_LEN"); v != "" {
		if c.VLLM.maxLen, err = strconv.Atoi(v); err != nil {
			note(fmt.Errorf("MAX_MODEL_LEN: %q is not a whole number of tokens", v))
		}
	}
	c.VLLM.key = getenv("VLLM_API_KEY")
	note(c.vllm().Validate())
	return faults
}

func (c *serveCmd) vllm() vllm.Config {
	maxLen := c.VLLM.maxLen
	if c.Context > 0 {
		maxLen = c.Context
	}
	return vllm.Config{
		Model: c.Model, Names: c.Names, LoRA: c.VLLM.LoRA, Args: c.VLLM.Args, Program: c.VLLM.Program,
		URL: c.VLLM.URL, Key: c.VLLM.key, MemoryUtilization: c.VLLM.utilization, MaxModelLen: maxLen,
		StallTimeout: c.VLLM.Stall, SleepAfter: c.SleepAfter, Grace: c.Server.Grace, StateDir: c.Cache,
		Guard: guardCommand,
	}
}

// engine makes the chosen engine.
func (c *serveCmd) engine(gpus *gpu.Monitor, log *slog.Logger) (engine.Engine, error) {
	if c.chosen() == "vllm" {
		return vllm.New(c.vllm(), gpuMemory{gpus, c.Device != "cpu"}, log)
	}
	return onnx.New(c.onnx(), log)
}
