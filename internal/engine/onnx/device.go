package onnx

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"infer/internal/engine"
	"infer/internal/engine/onnx/ort"
)

// device is where a model runs: the CPU, or one of the visible GPUs.
type device struct {
	cuda  bool
	index int
}

// parseDevice reads --device; auto says that either will do.
func parseDevice(s string) (d device, auto bool, err error) {
	gpu, isCUDA := strings.CutPrefix(s, "cuda")
	number, numbered := strings.CutPrefix(gpu, ":")
	switch {
	case s == "auto":
		return device{cuda: true}, true, nil
	case s == "cpu":
		return device{}, false, nil
	case isCUDA && gpu == "":
		return device{cuda: true}, false, nil
	case isCUDA && numbered && strings.Contains(number, ","):
		return device{}, false, fmt.Errorf("%q names several GPUs, and the onnx engine runs a model on one: choose one, such as cuda:0, and run one replica a GPU, or divide the model with --engine vllm", s)
	case isCUDA && numbered:
		if n, err := strconv.ParseUint(number, 10, 8); err == nil {
			return device{cuda: true, index: int(n)}, false, nil
		}
	}
	return device{}, false, fmt.Errorf("%q is not auto, cpu, cuda or cuda:N", s)
}

// chooseDevice decides once where the model runs. cuda is an order: what
// forbids it is a *engine.Failure. auto takes the first GPU when it can be
// used, and otherwise says in one line why it takes the CPU.
func chooseDevice(cfg Config, lib *ort.Library, log *slog.Logger) (device, error) {
	d, auto, err := parseDevice(cfg.Device)
	if err != nil || !d.cuda {
		return d, err
	}
	if _, statErr := os.Stat("/dev/nvidiactl"); auto && statErr != nil && !lib.HasCUDA() {
		return device{}, nil // neither a GPU nor a library for one: nothing to tell
	}
	err = lib.CheckCUDA(d.index)
	if err != nil && auto {
		log.Info("running on the CPU", "device", cfg.Device, "reason", err.Error())
		return device{}, nil
	}
	if err != nil {
		return d, cudaFailure(err)
	}
	return d, nil
}

// cudaFailure types what forbids CUDA.
func cudaFailure(err error) *engine.Failure {
	f := &engine.Failure{Cause: engine.CauseDeviceUnavailable, Err: err, Message: err.Error(),
		Remedy: "give the container a GPU and the CUDA build of ONNX Runtime with its CUDA 13 libraries"}
	if fault, ok := errors.AsType[*ort.CUDAFault](err); ok {
		f.Remedy = fault.Remedy
		if fault.OldDriver {
			f.Cause = engine.CauseDriverMismatch
		}
	} else if errors.Is(err, ort.ErrNotOnCUDA) {
		f.Remedy = "convert the model as fp16 for CUDA (GenAI model builder: -p fp16 or int4, -e cuda); CUDA has attention for 16-bit types only"
	}
	f.Remedy += "; or run with --device cpu"
	return f
}

// openModel loads the graph on the device. auto takes the CPU when the graph
// is not one for CUDA, as fp32 graphs are not.
func (e *Engine) openModel(lib *ort.Library, dir string, gc *genaiConfig, d device) (*model, error) {
	m, err := newModel(lib, dir, gc, e.cfg, d)
	if d.cuda && e.cfg.Device == "auto" && errors.Is(err, ort.ErrNotOnCUDA) {
		e.log.Info("running on the CPU", "device", e.cfg.Device, "reason", err.Error())
		return newModel(lib, dir, gc, e.cfg, device{})
	}
	return m, err
}
