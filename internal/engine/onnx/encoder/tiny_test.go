package encoder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

const normalizeOnly = `[{"type":"sentence_transformers.models.Transformer","path":""},{"type":"x.Normalize","path":"2_Normalize"}]`

// pooling says that the pooling module has the given settings, and that
// nothing follows it.
func pooling(config string) map[string]string {
	return map[string]string{"modules.json": `[{"type":"x.Pooling","path":"1_Pooling"}]`, "1_Pooling/config.json": config}
}

// Rows are [CLS] (1 0), good (2 -2), bad (-2 2), paris (4 0), [SEP] (0 1).
func TestPooling(t *testing.T) {
	sqrt := float32(math.Sqrt(4))
	for _, tt := range []struct {
		config string
		want   []float32 // of "good paris"
	}{
		{`{"pooling_mode_mean_tokens":true}`, []float32{7. / 4, -1. / 4}},
		{`{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}`, []float32{1, 0}},
		{`{"pooling_mode_max_tokens":true}`, []float32{4, 1}},
		{`{"pooling_mode_mean_sqrt_len_tokens":true}`, []float32{7 / sqrt, -1 / sqrt}},
		{`{"pooling_mode_weightedmean_tokens":true}`, []float32{17. / 10, 0}},
		{`{"pooling_mode_lasttoken":true}`, []float32{0, 1}},
		{`{"pooling_mode":"cls"}`, []float32{1, 0}},
	} {
		e := start(t, Config{Dir: tiny(t, "hidden", pooling(tt.config))})
		// A longer text in the same batch pads the first.
		got := vectors(t, e, "good paris", "bad bad bad bad bad bad bad")[0]
		for i := range got {
			if math.Abs(float64(got[i]-tt.want[i])) > 1e-6 {
				t.Errorf("%s: %v, want %v", tt.config, got, tt.want)
				break
			}
		}
	}
}

func TestOutputs(t *testing.T) {
	third := float32(5. / 3)
	for _, tt := range []struct {
		graph string
		files map[string]string
		want  []float32 // of "paris"
	}{
		{"hidden", nil, normal(third, 1./3)}, // the defaults: mean, normalised
		{"hidden", pooling(`{"pooling_mode_mean_tokens":true}`), []float32{third, 1. / 3}},
		{"hidden", map[string]string{"modules.json": normalizeOnly}, normal(third, 1./3)},
		{"half", nil, normal(third, 1./3)},
		{"bfloat", nil, normal(third, 1./3)},
		{"sentence", map[string]string{"modules.json": `[]`}, []float32{5, 1}},
		{"sentence", nil, normal(5, 1)},
	} {
		e := start(t, Config{Dir: tiny(t, tt.graph, tt.files)})
		got := vectors(t, e, "paris")[0]
		if !slices.EqualFunc(got, tt.want, func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-6 }) {
			t.Errorf("%s with %v: %v, want %v", tt.graph, tt.files, got, tt.want)
		}
	}
}

func normal(v ...float32) []float32 {
	Normalize(v)
	return v
}

func TestClassifiers(t *testing.T) {
	classes := `{"architectures":["BertForSequenceClassification"],"id2label":{"0":"POS","1":"NEG"}}`
	e := start(t, Config{Dir: tiny(t, "classes", map[string]string{"config.json": classes})})
	if !slices.Equal(e.Labels(), []string{"POS", "NEG"}) || e.Dimensions() != 2 {
		t.Errorf("labels %q, %d dimensions", e.Labels(), e.Dimensions())
	}
	if got := vectors(t, e, "good good")[0]; !slices.Equal(got, []float32{5, -3}) {
		t.Errorf("logits %v, want [5 -3]", got)
	}
	for config, want := range map[string]Activation{
		``: Sigmoid, `,"sbert_ce_default_activation_function":"torch.nn.modules.linear.Identity"`: Identity,
		`,"sentence_transformers":{"activation_fn":"torch.nn.modules.activation.Sigmoid"}`: Sigmoid,
	} {
		e := start(t, Config{Dir: tiny(t, "cross", map[string]string{
			"config.json": `{"architectures":["BertForSequenceClassification"],"num_labels":1` + config + `}`})})
		out, err := e.Vectors(t.Context(), append(framed(e, "bad"), e.FramePair(e.Tokens("bad"), e.Tokens("paris"), 0)))
		if err != nil || e.ScoreActivation() != want || !slices.Equal(e.Labels(), []string{"LABEL_0"}) {
			t.Fatalf("%v, %v, %v", err, e.ScoreActivation(), e.Labels())
		}
		if out[0][0] != 0 || out[1][0] != 4 { // the second text alone counts
			t.Errorf("logits %v, want 0 and 4", out)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	config := func(text string) map[string]string { return map[string]string{"config.json": text} }
	for name, tt := range map[string]struct {
		graph string
		files map[string]string
		kind  error
		want  string
	}{
		"graph":      {"hidden", map[string]string{"model.onnx": "x"}, ErrInvalid, "load"},
		"tokenizer":  {"hidden", map[string]string{"vocab.txt": "a"}, ErrUnsupported, "vocabulary of a BERT"},
		"json":       {"hidden", config("{"), ErrInvalid, "config.json"},
		"length":     {"hidden", map[string]string{"sentence_bert_config.json": `{"max_seq_length":2}`}, ErrInvalid, "maximum of 2"},
		"masked":     {"hidden", config(`{"architectures":["BertForMaskedLM"]}`), ErrUnsupported, "BertForMaskedLM"},
		"activation": {"cross", config(`{"architectures":["XForSequenceClassification"],"num_labels":1,"sbert_ce_default_activation_function":"a.Tanh"}`), ErrUnsupported, "Tanh"},
		"classes":    {"cross", config(`{"architectures":["XForSequenceClassification"],"num_labels":3}`), ErrInvalid, "1 classes, config.json names 3"},
		"labels":     {"classes", nil, ErrUnsupported, "none of the outputs"},
		"logits":     {"hidden", config(`{"architectures":["XForSequenceClassification"]}`), ErrUnsupported, "none of the outputs"},
		"module":     {"hidden", map[string]string{"modules.json": `[{"type":"x.Dense"}]`}, ErrUnsupported, "x.Dense"},
		"traversal":  {"hidden", map[string]string{"modules.json": `[{"type":"x.Pooling","path":"../.."}]`}, ErrInvalid, "leaves the folder"},
		"two modes":  {"hidden", pooling(`{"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":true}`), ErrUnsupported, "exactly one"},
		"mode":       {"hidden", pooling(`{"pooling_mode":"attention"}`), ErrUnsupported, "attention"},
		"type":       {"double", nil, ErrInvalid, "is not fp32, fp16 or bf16"},
		"inputs":     {"decoder", config(`{"architectures":["XForSequenceClassification"]}`), ErrUnsupported, `wants an input "past"`},
		"nan":        {"nan", nil, ErrInvalid, "no finite number"},
	} {
		e, err := Open(library(t), Config{Dir: tiny(t, tt.graph, tt.files)}, quiet)
		if err == nil {
			e.Close()
		}
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %v with %q", name, err, tt.kind, tt.want)
		}
	}
	if _, err := Open(library(t), Config{Dir: t.TempDir()}, quiet); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "model.onnx") {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestIsModel(t *testing.T) {
	for _, tt := range []struct {
		files map[string]string
		want  bool
	}{{nil, true}, {map[string]string{"genai_config.json": "{}"}, false}} {
		if got := IsModel(tiny(t, "hidden", tt.files)); got != tt.want {
			t.Errorf("IsModel with %v = %v", tt.files, got)
		}
	}
	if IsModel(t.TempDir()) {
		t.Error("an empty folder is no model")
	}
}

func TestVectorsRefuses(t *testing.T) {
	e := start(t, Config{Dir: tiny(t, "hidden", map[string]string{"sentence_bert_config.json": `{"max_seq_length":8}`})})
	in := framed(e, "good")
	for _, ids := range [][]int32{{}, make([]int32, 9)} {
		in[0].IDs, in[0].Types = ids, make([]int32, len(ids))
		if _, err := e.Vectors(t.Context(), in); err == nil {
			t.Errorf("%d tokens were taken", len(ids))
		}
	}
	if out, err := e.Vectors(t.Context(), nil); out != nil || err != nil {
		t.Errorf("nothing gives %v, %v", out, err)
	}
}

func TestCutsToALimit(t *testing.T) {
	e := open(t, Config{Dir: tiny(t, "hidden", nil)})
	defer e.Close()
	a, b := e.Tokens("good good good"), e.Tokens("bad bad bad bad")
	if got := e.Frame(a, 4).IDs; !slices.Equal(got, []int32{2, 5, 5, 3}) {
		t.Errorf("Frame within 4 = %v", got)
	}
	if got := e.FramePair(a, b, 8).IDs; !slices.Equal(got, []int32{2, 5, 5, 3, 6, 6, 6, 3}) {
		t.Errorf("FramePair within 8 = %v", got)
	}
	if got := e.Frame(a, 1).IDs; !slices.Equal(got, []int32{2, 3}) {
		t.Errorf("Frame within 1 = %v", got)
	}
}

func TestStopping(t *testing.T) {
	e := open(t, Config{Dir: tiny(t, "hidden", nil)})
	ctx, cancel := context.WithCancel(t.Context())
	waits := newCall(t.Context(), framed(e, "good"))
	if err := e.submit(waits); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Errorf("Run() = %v", err)
	}
	<-waits.done
	if !errors.Is(waits.err, ErrStopped) {
		t.Errorf("who waited got %v", waits.err)
	}
	if _, err := e.Vectors(t.Context(), waits.inputs); !errors.Is(err, ErrStopped) {
		t.Errorf("who came late got %v", err)
	}
}

// infinite is the graph of hidden.onnx with an infinity in the row of "bad".
func infinite(tb testing.TB) map[string]string {
	tb.Helper()
	b, err := os.ReadFile("testdata/tiny/hidden.onnx")
	if err != nil {
		tb.Fatal(err)
	}
	row := func(x float32) (out []byte) {
		for _, v := range []float32{2, -2, x, 2} { // good, bad
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		}
		return out
	}
	if bytes.Count(b, row(-2)) != 1 {
		tb.Fatal("hidden.onnx has no such rows")
	}
	return map[string]string{"model.onnx": string(bytes.Replace(b, row(-2), row(float32(math.Inf(1))), 1))}
}

// A text whose vector is not finite fails its call alone, however often.
func TestNotFiniteFailsItsCallAlone(t *testing.T) {
	e := open(t, Config{Dir: tiny(t, "hidden", infinite(t))})
	ctx, cancel := context.WithCancel(t.Context())
	good, bad := newCall(ctx, framed(e, "paris")), newCall(ctx, framed(e, "good", "bad"))
	for _, c := range []*call{bad, good} { // in one batch
		if err := e.submit(c); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	<-bad.done
	<-good.done
	if got, ok := errors.AsType[*NotFiniteError](bad.err); !ok || got.Input != 1 {
		t.Errorf("the call with the text: %v", bad.err)
	}
	if good.err != nil || len(good.out[0]) != 2 {
		t.Errorf("the call beside it: %v, %v", good.out, good.err)
	}
	for range maxFaults + 1 {
		_, err := e.Vectors(ctx, framed(e, "bad"))
		if _, ok := errors.AsType[*NotFiniteError](err); !ok {
			t.Errorf("Vectors() = %v", err)
		}
	}
	vectors(t, e, "good")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run() = %v", err)
	}
}

// A model that breaks in every run ends Run.
func TestFaultsEndRun(t *testing.T) {
	e := open(t, Config{Dir: tiny(t, "hidden", nil)})
	ended := make(chan error, 1)
	go func() { ended <- e.Run(context.Background()) }()
	bad := framed(e, "good")
	bad[0].IDs[1] = 99 // the table has no such row
	for range maxFaults {
		if _, err := e.Vectors(t.Context(), bad); err == nil {
			t.Fatal("an impossible id was run")
		}
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "in a row") {
		t.Errorf("Run() = %v", err)
	}
}
