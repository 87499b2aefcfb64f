package onnx

import (
	"encoding/json/v2"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"infer/internal/engine"
)

// configFile is the file that makes a folder a model for ONNX Runtime GenAI
// and for this engine.
const configFile = "genai_config.json"

// genaiConfig is the part of genai_config.json that this engine reads. The
// format is that of ONNX Runtime GenAI's model builder:
// https://onnxruntime.ai/docs/genai/reference/config.html
type genaiConfig struct {
	Model struct {
		Type          string    `json:"type"`
		ContextLength int       `json:"context_length"`
		VocabSize     int       `json:"vocab_size"`
		EOS           oneOrMany `json:"eos_token_id"`
		BOS           oneOrMany `json:"bos_token_id"`
		Decoder       struct {
			Filename string `json:"filename"`
			HeadSize int    `json:"head_size"`
			Layers   int    `json:"num_hidden_layers"`
			KVHeads  int    `json:"num_key_value_heads"`
			Inputs   struct {
				InputIDs      string `json:"input_ids"`
				AttentionMask string `json:"attention_mask"`
				PositionIDs   string `json:"position_ids"`
				PastKey       string `json:"past_key_names"`
				PastValue     string `json:"past_value_names"`
			} `json:"inputs"`
			Outputs struct {
				Logits       string `json:"logits"`
				PresentKey   string `json:"present_key_names"`
				PresentValue string `json:"present_value_names"`
			} `json:"outputs"`
			// Pipeline and sliding windows are other graph conventions.
			Pipeline      []any `json:"pipeline"`
			SlidingWindow any   `json:"sliding_window"`
		} `json:"decoder"`
		Encoder any `json:"encoder"`
		Vision  any `json:"vision"`
	} `json:"model"`
	Search struct {
		DoSample    bool     `json:"do_sample"`
		Temperature *float64 `json:"temperature"`
		TopP        *float64 `json:"top_p"`
		TopK        *int     `json:"top_k"`
	} `json:"search"`
}

// oneOrMany is a token id or a list of them.
type oneOrMany []int32

// UnmarshalJSON implements json.Unmarshaler.
func (m *oneOrMany) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]int32)(m))
	}
	if string(b) == "null" {
		*m = nil
		return nil
	}
	var one int32
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*m = oneOrMany{one}
	return nil
}

// readFolder reads and checks a model folder's configuration. Every error is a
// *engine.Failure.
func readFolder(dir string) (*genaiConfig, error) {
	path := filepath.Join(dir, configFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, "adapter_config.json")); err == nil {
			return nil, adapterFailure(dir)
		}
		return nil, &engine.Failure{Cause: engine.CauseModelInvalid, Err: err,
			Message: fmt.Sprintf("model folder %s has no %s", dir, configFile),
			Remedy:  "pass a folder made by ONNX Runtime GenAI's model builder, or a .gguf file"}
	}
	if err != nil {
		return nil, notFound(dir, err)
	}
	c := &genaiConfig{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, invalidModel(fmt.Errorf("%s: %w", path, err))
	}
	c.defaults()
	if err := c.check(dir); err != nil {
		return nil, err
	}
	return c, nil
}

// defaults fills in the names that GenAI itself assumes.
func (c *genaiConfig) defaults() {
	d := &c.Model.Decoder
	for _, f := range []struct {
		p    *string
		name string
	}{
		{&d.Filename, "model.onnx"},
		{&d.Inputs.InputIDs, "input_ids"},
		{&d.Inputs.AttentionMask, "attention_mask"},
		{&d.Inputs.PositionIDs, "position_ids"},
		{&d.Inputs.PastKey, "past_key_values.%d.key"},
		{&d.Inputs.PastValue, "past_key_values.%d.value"},
		{&d.Outputs.Logits, "logits"},
		{&d.Outputs.PresentKey, "present.%d.key"},
		{&d.Outputs.PresentValue, "present.%d.value"},
	} {
		if *f.p == "" {
			*f.p = f.name
		}
	}
}

func (c *genaiConfig) check(dir string) error {
	d := &c.Model.Decoder
	for what, has := range map[string]bool{
		"an encoder (such as Whisper)": c.Model.Encoder != nil,
		"a vision part":                c.Model.Vision != nil,
		"a pipeline of graphs":         len(d.Pipeline) > 0,
		"a sliding window":             d.SlidingWindow != nil,
	} {
		if has {
			return &engine.Failure{Cause: engine.CauseModelUnsupported,
				Message: fmt.Sprintf("model %s (%s) has %s", dir, c.Model.Type, what),
				Remedy:  "only text decoders of one graph run here; choose another model"}
		}
	}
	var errs []error
	// The bounds are far over any model and keep products of them in 64 bits.
	for _, f := range []struct {
		name   string
		v, max int
	}{{"context_length", c.Model.ContextLength, 1 << 24}, {"vocab_size", c.Model.VocabSize, 1 << 24},
		{"head_size", d.HeadSize, 1 << 12}, {"num_hidden_layers", d.Layers, 1 << 10},
		{"num_key_value_heads", d.KVHeads, 1 << 10}} {
		if f.v <= 0 || f.v > f.max {
			errs = append(errs, fmt.Errorf("%s: %s is %d, must be from 1 to %d", configFile, f.name, f.v, f.max))
		}
	}
	if name := d.Filename; name != filepath.Base(name) {
		errs = append(errs, fmt.Errorf("%s: filename %q leaves the folder", configFile, name))
	} else if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
		errs = append(errs, err)
	}
	for _, p := range []string{d.Inputs.PastKey, d.Inputs.PastValue, d.Outputs.PresentKey, d.Outputs.PresentValue} {
		if strings.Count(p, "%d") != 1 || strings.Count(p, "%") != 1 {
			errs = append(errs, fmt.Errorf("%s: name %q must hold %%d once, for the layer", configFile, p))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return invalidModel(err)
	}
	return nil
}

// adapterFailure refuses a LoRA adapter: ONNX Runtime applies adapters by run
// options, "which does not affect RunWithBinding" (onnxruntime_c_api.h,
// RunOptionsAddActiveLoraAdapter), and a KV cache that stays in place needs
// bound runs.
func adapterFailure(dir string) *engine.Failure {
	return &engine.Failure{Cause: engine.CauseModelUnsupported,
		Message: fmt.Sprintf("%s is a LoRA adapter, which the ONNX engine cannot apply", dir),
		Remedy:  "merge the adapter into its model and convert that, or serve it with --engine vllm"}
}

func invalidModel(err error) *engine.Failure {
	return &engine.Failure{Cause: engine.CauseModelInvalid, Err: err,
		Message: fmt.Sprintf("model is damaged or incomplete: %v", err),
		Remedy:  "fetch or convert the model again"}
}

func notFound(path string, err error) *engine.Failure {
	return &engine.Failure{Cause: engine.CauseModelNotFound, Err: err,
		Message: fmt.Sprintf("model %s cannot be read: %v", path, err),
		Remedy:  "check --model and the volume it lies on"}
}
