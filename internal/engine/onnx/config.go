package onnx

import (
	"errors"
	"fmt"
	"time"
)

// Config says which model runs, where and how.
type Config struct {
	// Model is a folder with genai_config.json, or a GGUF file, or the folder of
	// an encoder: see package encoder.
	Model string
	// Names are the model's names on the wire; the first is canonical. Empty
	// means the base name of Model.
	Names []string
	// EmbeddingModel is the folder of an encoder to run beside Model; empty
	// means none.
	EmbeddingModel string
	// EmbeddingNames are the encoder's names on the wire; empty means the base
	// name of EmbeddingModel.
	EmbeddingNames []string
	// Device is auto, cpu, cuda or cuda:N, which is GPU N of the visible ones
	// (CUDA_VISIBLE_DEVICES). auto takes CUDA when the library has it and a GPU
	// is present; cuda is cuda:0, and never ends on the CPU.
	Device string
	// Library is the path of libonnxruntime.so; empty means the usual places.
	Library string
	// CacheDir holds imported models.
	CacheDir string
	// Slots is how many sequences run at once; 0 means 4 on the CPU, 16 on CUDA.
	Slots int
	// ContextTokens bounds prompt plus completion; 0 means the model's own.
	ContextTokens int
	// KVBytes bounds the KV cache; 0 means 2 GiB. Slots × context is cut to fit.
	KVBytes int64
	// Threads are the intra-op threads of the CPU provider; 0 means one a core.
	Threads int
	// Spin lets idle threads spin for work: faster on a quiet machine, much
	// slower on a shared one.
	Spin bool
	// SleepAfter frees the weights and the KV cache when nothing was asked for
	// so long; the next request loads them again. 0 means never.
	SleepAfter time.Duration
	// AccuracyLevel is the compute precision of quantised products on the CPU:
	// 4 is int8, 0 is fp32 (slow, for equality tests). It is part of the
	// imported graph.
	AccuracyLevel int
}

// maxSlots bounds the batch.
const maxSlots = 1024

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.Model == "" {
		errs = append(errs, errors.New("model: empty; pass a folder with genai_config.json or a .gguf file"))
	}
	if _, _, err := parseDevice(c.Device); err != nil {
		errs = append(errs, fmt.Errorf("device: %w", err))
	}
	for name, v := range map[string]int{"slots": c.Slots, "context": c.ContextTokens, "threads": c.Threads} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("%s: must not be negative, got %d", name, v))
		}
	}
	if c.SleepAfter < 0 {
		errs = append(errs, fmt.Errorf("sleep-after: must not be negative, got %v", c.SleepAfter))
	}
	if c.Slots > maxSlots {
		errs = append(errs, fmt.Errorf("slots: at most %d, got %d", maxSlots, c.Slots))
	}
	if c.KVBytes < 0 {
		errs = append(errs, fmt.Errorf("kv-bytes: must not be negative, got %d", c.KVBytes))
	}
	errs = append(errs, c.validateEmbedding())
	return errors.Join(errs...)
}
