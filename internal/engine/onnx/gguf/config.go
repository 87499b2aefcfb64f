package gguf

import "slices"

// genaiConfig is genai_config.json as the GenAI model builder writes it
// (onnxruntime.ai/docs/genai/reference/config.html).
type genaiConfig struct {
	Model  genaiModel     `json:"model"`
	Search map[string]any `json:"search"`
}

type genaiModel struct {
	BOS           int          `json:"bos_token_id"`
	ContextLength int          `json:"context_length"`
	Decoder       genaiDecoder `json:"decoder"`
	EOS           any          `json:"eos_token_id"` // a number, or a list when there are several
	Pad           int          `json:"pad_token_id"`
	Type          string       `json:"type"`
	VocabSize     int          `json:"vocab_size"`
}

type genaiDecoder struct {
	SessionOptions map[string]any    `json:"session_options"`
	Filename       string            `json:"filename"`
	HeadSize       int               `json:"head_size"`
	HiddenSize     int               `json:"hidden_size"`
	Inputs         map[string]string `json:"inputs"`
	Outputs        map[string]string `json:"outputs"`
	Heads          int               `json:"num_attention_heads"`
	Layers         int               `json:"num_hidden_layers"`
	KVHeads        int               `json:"num_key_value_heads"`
}

func newConfig(m *llama) genaiConfig {
	var eos any = m.tok.ends
	if len(m.tok.ends) == 1 {
		eos = m.tok.ends[0]
	}
	return genaiConfig{
		Model: genaiModel{
			BOS: m.tok.bos, ContextLength: m.context, EOS: eos, Pad: m.tok.pad, Type: "llama", VocabSize: m.vocab,
			Decoder: genaiDecoder{
				SessionOptions: map[string]any{"log_id": "onnxruntime-genai", "provider_options": []any{}},
				Filename:       modelFile,
				HeadSize:       m.headDim, HiddenSize: m.embd, Heads: m.heads, Layers: m.layers, KVHeads: m.kvHeads,
				Inputs: map[string]string{
					"input_ids": "input_ids", "attention_mask": "attention_mask",
					"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value",
				},
				Outputs: map[string]string{
					"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value",
				},
			},
		},
		Search: map[string]any{
			"diversity_penalty": 0.0, "do_sample": false, "early_stopping": true, "length_penalty": 1.0,
			"max_length": m.context, "min_length": 0, "no_repeat_ngram_size": 0, "num_beams": 1,
			"num_return_sequences": 1, "past_present_share_buffer": true, "repetition_penalty": 1.0,
			"temperature": 1.0, "top_k": 50, "top_p": 1.0,
		},
	}
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
