package onnx

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"infer/internal/engine"
)

const goodConfig = `{"model":{"type":"llama","context_length":128,"vocab_size":64,"eos_token_id":[2,3],"bos_token_id":1,
	"decoder":{"filename":"model.onnx","head_size":8,"num_hidden_layers":2,"num_key_value_heads":1,
	"inputs":{"past_key_names":"past_key_values.%d.key"},"outputs":{}}},"search":{"do_sample":true,"temperature":0.6,"top_k":20}}`

func modelFolder(tb testing.TB, config string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range map[string]string{configFile: config, "model.onnx": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func TestReadFolder(t *testing.T) {
	c, err := readFolder(modelFolder(t, goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Model.EOS) != 2 || len(c.Model.BOS) != 1 || c.Model.Decoder.Inputs.PastValue != "past_key_values.%d.value" {
		t.Errorf("read %+v", c.Model)
	}
	temperature, topP, topK := c.samplingDefaults()
	if temperature != 0.6 || topP != 1 || topK != 20 {
		t.Errorf("sampling defaults %v %v %v, want the model's own", temperature, topP, topK)
	}
}

func TestReadFolderRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		old, new string
		cause    engine.Cause
	}{
		"json":      {`{"model"`, `{"model`, engine.CauseModelInvalid},
		"types":     {`"vocab_size":64`, `"vocab_size":"many"`, engine.CauseModelInvalid},
		"zero":      {`"head_size":8`, `"head_size":0`, engine.CauseModelInvalid},
		"huge":      {`"num_hidden_layers":2`, `"num_hidden_layers":16777216`, engine.CauseModelInvalid},
		"negative":  {`"context_length":128`, `"context_length":-1`, engine.CauseModelInvalid},
		"traversal": {`"filename":"model.onnx"`, `"filename":"../model.onnx"`, engine.CauseModelInvalid},
		"absent":    {`"filename":"model.onnx"`, `"filename":"other.onnx"`, engine.CauseModelInvalid},
		"verb":      {`past_key_values.%d.key`, `past_key_values.%s.key`, engine.CauseModelInvalid},
		"twice":     {`past_key_values.%d.key`, `past_%d_%d`, engine.CauseModelInvalid},
		"window":    {`"head_size":8`, `"head_size":8,"sliding_window":{"size":5}`, engine.CauseModelUnsupported},
		"vision":    {`"context_length":128`, `"context_length":128,"vision":{}`, engine.CauseModelUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(goodConfig, tc.old, tc.new, 1)
			if bad == goodConfig {
				t.Fatal("nothing replaced")
			}
			_, err := readFolder(modelFolder(t, bad))
			f, ok := err.(*engine.Failure)
			if !ok || f.Cause != tc.cause || f.Remedy == "" {
				t.Errorf("readFolder() = %v, want cause %s with a remedy", err, tc.cause)
			}
		})
	}
}

func FuzzReadFolder(f *testing.F) {
	f.Add(goodConfig)
	f.Add(`{"model":{"eos_token_id":null,"decoder":null}}`)
	f.Fuzz(func(t *testing.T, config string) {
		c, err := readFolder(modelFolder(t, config))
		if err == nil && c.kvBytesPerToken(1)*int64(c.Model.ContextLength) <= 0 {
			t.Errorf("accepted %s", config)
		}
	})
}
