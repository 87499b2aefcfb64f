package onnx

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"infer/internal/engine"
	"infer/internal/engine/onnx/encoder"
	"infer/internal/engine/onnx/ort"
)

// encoded is any body of the encoder's routes, or an error.
type encoded struct {
	ID     string `json:"id"`
	Object string `json:"object"`
	Model  string `json:"model"`
	Data   []struct {
		Object    string    `json:"object"`
		Index     int       `json:"index"`
		Embedding any       `json:"embedding"`
		Score     float64   `json:"score"`
		Label     string    `json:"label"`
		Probs     []float64 `json:"probs"`
		Classes   int       `json:"num_classes"`
	} `json:"data"`
	Results []struct {
		Index    int     `json:"index"`
		Score    float64 `json:"relevance_score"`
		Document *struct {
			Text string `json:"text"`
		} `json:"document"`
	} `json:"results"`
	Usage struct {
		Prompt int `json:"prompt_tokens"`
		Total  int `json:"total_tokens"`
	} `json:"usage"`
	Error *struct {
		Message string  `json:"message"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	} `json:"error"`
}

func encode(tb testing.TB, srv *httptest.Server, path, body string) (int, encoded) {
	tb.Helper()
	return posted[encoded](tb, srv, path, body)
}

// embed returns the embeddings of a request that must succeed.
func embed(tb testing.TB, srv *httptest.Server, body string) ([][]float32, encoded) {
	tb.Helper()
	status, a := encode(tb, srv, "/v1/embeddings", body)
	if status != http.StatusOK || a.Object != "list" {
		tb.Fatalf("%.80s: %d %+v", body, status, a.Error)
	}
	var list [][]float32
	for i, d := range a.Data {
		if d.Index != i || d.Object != "embedding" {
			tb.Errorf("entry %d is %q %d", i, d.Object, d.Index)
		}
		var v []float32
		for _, x := range d.Embedding.([]any) {
			v = append(v, float32(x.(float64)))
		}
		list = append(list, v)
	}
	return list, a
}

// encoderConfig serves a folder of an encoder alone.
func encoderConfig(tb testing.TB, dir string) Config {
	return Config{Model: dir, Library: testEnv(tb, "INFER_TEST_ONNXRUNTIME"), Device: "cpu", Names: []string{"enc"}, Threads: 1}
}

func minilm(tb testing.TB) Config {
	return encoderConfig(tb, testEnv(tb, "INFER_TEST_EMBEDDING_MODEL"))
}

// tinyEncoder is a folder of one of package encoder's tiny graphs.
func tinyEncoder(tb testing.TB, graph, config string) string {
	tb.Helper()
	dir := tb.TempDir()
	b, err := os.ReadFile(filepath.Join("encoder/testdata/tiny", graph+".onnx"))
	if err != nil {
		tb.Fatal(err)
	}
	for name, text := range map[string]string{"model.onnx": string(b), "config.json": config,
		"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\nparis\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

const crossEncoder = `{"architectures":["BertForSequenceClassification"],"num_labels":1}`

func TestEmbeddingsTakeFourForms(t *testing.T) {
	srv := startReal(t, minilm(t))
	one, a := embed(t, srv, `{"model":"enc","input":"hello world","user":"u","encoding_format":"float"}`)
	if len(one) != 1 || len(one[0]) != 384 || a.Model != "enc" || a.Usage.Prompt != 4 || a.Usage.Total != 4 {
		t.Fatalf("%d of %d, model %q, usage %+v", len(one), len(one[0]), a.Model, a.Usage)
	}
	for _, body := range []string{
		`{"input":["hello world"]}`, `{"input":[101,7592,2088,102]}`, `{"input":[[101,7592,2088,102]]}`,
		`{"input":"Hello  WORLD"}`, `{"input":["hello world","hello world"]}`,
	} {
		many, _ := embed(t, srv, body)
		for i, v := range many {
			if cos := encoder.Cosine(v, one[0]); cos < 0.99999 {
				t.Errorf("%s: entry %d has cosine %v", body, i, cos)
			}
		}
	}
}

// A text whose vector is not finite is named, and harms neither other requests
// nor the engine.
func TestTextWithoutAFiniteVector(t *testing.T) {
	dir := tinyEncoder(t, "hidden", "{}")
	path := filepath.Join(dir, "model.onnx")
	graph, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	row := func(x float32) (out []byte) {
		for _, v := range []float32{2, -2, x, 2} { // of "good" and of "bad"
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		}
		return out
	}
	if err := os.WriteFile(path, bytes.Replace(graph, row(-2), row(float32(math.Inf(1))), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := startReal(t, encoderConfig(t, dir))
	for range 5 {
		status, a := encode(t, srv, "/v1/embeddings", `{"input":["good","bad"]}`)
		if status != http.StatusInternalServerError || a.Error == nil || a.Error.Code != "internal_error" || a.Error.Param == nil || *a.Error.Param != "input[1]" {
			t.Fatalf("status %d, %+v", status, a.Error)
		}
	}
	embed(t, srv, `{"input":["good","paris"]}`)
}

// The bytes, not just the shape: clients read little-endian fp32.
func TestEmbeddingsInBase64(t *testing.T) {
	srv := startReal(t, minilm(t))
	floats, _ := embed(t, srv, `{"input":"hello"}`)
	_, a := encode(t, srv, "/v1/embeddings", `{"input":"hello","encoding_format":"base64"}`)
	raw, err := base64.StdEncoding.DecodeString(a.Data[0].Embedding.(string))
	if err != nil || len(raw) != 4*384 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	var want bytes.Buffer
	if err := binary.Write(&want, binary.LittleEndian, floats[0]); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, want.Bytes()) {
		t.Error("the bytes are not those of the floats")
	}
	if got, want := base64Floats([]float32{1, -2}), "AACAPwAAAMA="; got != want {
		t.Errorf("1 and -2 are %q, want %q", got, want)
	}
}

func TestEmbeddingsAreCut(t *testing.T) {
	srv := startReal(t, minilm(t))
	whole, _ := embed(t, srv, `{"input":"hello"}`)
	short, _ := embed(t, srv, `{"input":"hello","dimensions":16}`)
	want := slices.Clone(whole[0][:16])
	encoder.Normalize(want)
	var length float64
	for _, x := range short[0] {
		length += float64(x) * float64(x)
	}
	if len(short[0]) != 16 || encoder.Cosine(short[0], want) < 0.99999 || math.Abs(length-1) > 1e-5 {
		t.Errorf("16 dimensions are %v, want %v", short[0], want)
	}
	long := strings.Repeat("word ", 300)
	for limit, tokens := range map[int]int{-1: 256, 256: 256, 10: 10} {
		if _, a := embed(t, srv, fmt.Sprintf(`{"input":%q,"truncate_prompt_tokens":%d}`, long, limit)); a.Usage.Prompt != tokens {
			t.Errorf("truncate_prompt_tokens %d: %d tokens, want %d", limit, a.Usage.Prompt, tokens)
		}
	}
	if _, a := embed(t, srv, `{"input":[101,7592,2088,102],"truncate_prompt_tokens":2}`); a.Usage.Prompt != 2 {
		t.Errorf("ids were cut to %d, want 2", a.Usage.Prompt)
	}
}

func TestEncoderRefuses(t *testing.T) {
	srv := startReal(t, minilm(t))
	many := `["a"` + strings.Repeat(`,"a"`, 2048) + `]`
	heavy := `["` + strings.TrimSuffix(strings.Repeat(strings.Repeat("a ", 250)+`","`, 1200), `,"`) + `]`
	for _, tt := range []struct{ path, body, param, code, words string }{
		{"/v1/embeddings", `{}`, "input", "missing_field", "input is required"},
		{"/v1/embeddings", `[]`, "", "invalid_json", "one JSON object"},
		{"/v1/embeddings", `{"input":""}`, "input", "invalid_value", "empty string"},
		{"/v1/embeddings", `{"input":["a",""]}`, "input[1]", "invalid_value", "input[1] is an empty string"},
		{"/v1/embeddings", `{"input":[]}`, "input", "invalid_value", "empty list"},
		{"/v1/embeddings", `{"input":[[1],[]]}`, "input[1]", "invalid_value", "at least one token"},

		{"/v1/embeddings", `{"input":7}`, "input", "invalid_value", "input must be"},
		{"/v1/embeddings", `{"input":{"a":1}}`, "input", "invalid_value", "input must be"},
		{"/v1/embeddings", `{"input":["a",1]}`, "input", "invalid_value", "input must be"},
		{"/v1/embeddings", `{"input":[30522]}`, "input", "invalid_value", "ids 0 to 30521"},
		{"/v1/embeddings", `{"input":[[-1]]}`, "input", "invalid_value", "token id -1"},
		{"/v1/embeddings", `{"input":` + many + `}`, "input", "invalid_value", "2049 entries, at most 2048"},
		{"/v1/embeddings", `{"input":` + heavy + `}`, "", "invalid_value", "302400 tokens, at most 300000"},
		{"/v1/embeddings", `{"input":"` + strings.Repeat("word ", 255) + `"}`, "input", "context_length_exceeded", "257 tokens and this model reads at most 256"},
		{"/v1/embeddings", `{"input":"a","dimensions":385}`, "dimensions", "invalid_value", "from 1 to 384"},
		{"/v1/embeddings", `{"input":"a","dimensions":0}`, "dimensions", "invalid_value", "from 1 to 384"},
		{"/v1/embeddings", `{"input":"a","encoding_format":"hex"}`, "encoding_format", "invalid_value", "float or base64"},
		{"/v1/embeddings", `{"input":"a","truncate_prompt_tokens":257}`, "truncate_prompt_tokens", "invalid_value", "from -1 to 256"},
		{"/v1/embeddings", `{"input":"a","input_type":"query"}`, "input_type", "unsupported_parameter", "leave it out"},
		{"/v1/embeddings", `{"input":"a","model":7}`, "model", "invalid_value", "a string"},
		{"/v1/embeddings", `{"input":"a","model":"gpt"}`, "model", "model_not_found", "name enc"},
		{"/v1/rerank", `{"documents":["a"]}`, "query", "missing_field", "query is required"},
		{"/v1/rerank", `{"query":"","documents":["a"]}`, "query", "invalid_value", "empty string"},
		{"/v1/rerank", `{"query":"a"}`, "documents", "missing_field", "documents is required"},
		{"/v1/rerank", `{"query":"a","documents":[]}`, "documents", "invalid_value", "empty list"},
		{"/v1/rerank", `{"query":"a","documents":["a",{"title":"b"}]}`, "documents[1]", "invalid_value", "objects with a text"},
		{"/v1/rerank", `{"query":"a","documents":["a"],"top_n":0}`, "top_n", "invalid_value", "from 1"},
		{"/v1/rerank", `{"query":"a","documents":["b","` + strings.Repeat("word ", 300) + `"]}`, "documents[1]", "context_length_exceeded", "documents[1] has 302"},
		{"/v1/score", `{"text_2":"a"}`, "text_1", "missing_field", "text_1 is required"},
		{"/v1/score", `{"text_1":["a","b"],"text_2":"a"}`, "text_1", "invalid_value", "as many as text_2"},
		{"/v1/score", `{"text_1":"a","text_2":"a","foo":1}`, "foo", "unsupported_parameter", "leave it out"},
		{"/classify", `{"input":"a"}`, "model", "invalid_value", "has no classes"},
		{"/v1/chat/completions", `{"messages":[]}`, "model", "model_not_found", "is an encoder"},
		{"/tokenize", `{"messages":[]}`, "messages", "unsupported_parameter", "is an encoder"},
		{"/tokenize", `{}`, "prompt", "missing_field", "is required"},
		{"/tokenize", `{"prompt":"a","return_token_strs":true}`, "return_token_strs", "unsupported_parameter", "leave it out"},
		{"/tokenize", `{"prompt":"a","model":"gpt"}`, "model", "model_not_found", "name enc"},
	} {
		status, a := encode(t, srv, tt.path, tt.body)
		want := http.StatusBadRequest
		if tt.code == "model_not_found" {
			want = http.StatusNotFound
		}
		if a.Error == nil || status != want || a.Error.Code != tt.code || !strings.Contains(a.Error.Message, tt.words) ||
			(a.Error.Param == nil) != (tt.param == "") || a.Error.Param != nil && *a.Error.Param != tt.param {
			t.Errorf("%s %.60s: %d %+v, want %s of %q with %q", tt.path, tt.body, status, a.Error, tt.code, tt.param, tt.words)
		}
	}
}

func TestRerankByCosine(t *testing.T) {
	srv := startReal(t, minilm(t))
	status, a := encode(t, srv, "/v1/rerank", `{"query":"capital of france","return_documents":true,"top_n":2,
		"documents":["I like cats",{"text":"Paris is the capital of France"},"Berlin is in Germany"]}`)
	if status != http.StatusOK || len(a.Results) != 2 || a.Results[0].Index != 1 || a.Results[0].Document.Text != "Paris is the capital of France" {
		t.Fatalf("%d %+v", status, a)
	}
	if a.Results[0].Score <= a.Results[1].Score || a.Results[0].Score > 1 || a.Usage.Total == 0 {
		t.Errorf("scores %+v, usage %+v", a.Results, a.Usage)
	}
	_, b := encode(t, srv, "/v1/score", `{"text_1":"capital of france","text_2":["I like cats","Paris is the capital of France"]}`)
	if len(b.Data) != 2 || math.Abs(b.Data[1].Score-a.Results[0].Score) > 0.02 {
		t.Errorf("score %+v, rerank %+v", b.Data, a.Results)
	}
}

func TestCrossEncoderScores(t *testing.T) {
	srv := startReal(t, encoderConfig(t, tinyEncoder(t, "cross", crossEncoder)))
	_, a := encode(t, srv, "/v1/rerank", `{"query":"good","documents":["bad","paris","good"]}`)
	var got []int
	for _, r := range a.Results {
		got = append(got, r.Index)
		if r.Document != nil {
			t.Error("documents were not asked for")
		}
	}
	if !slices.Equal(got, []int{1, 2, 0}) || math.Abs(a.Results[0].Score-1/(1+math.Exp(-4))) > 1e-9 {
		t.Errorf("%+v", a.Results)
	}
	_, a = encode(t, srv, "/v1/score", `{"text_1":["good","bad"],"text_2":["bad","paris"]}`)
	if len(a.Data) != 2 || a.Data[0].Object != "score" || math.Abs(a.Data[0].Score-1/(1+math.Exp(2))) > 1e-9 {
		t.Errorf("%+v", a.Data)
	}
	if status, a := encode(t, srv, "/v1/embeddings", `{"input":"good"}`); status != http.StatusBadRequest || !strings.Contains(a.Error.Message, "classifier") {
		t.Errorf("embeddings of a classifier: %d %+v", status, a.Error)
	}
	if _, a := encode(t, srv, "/classify", `{"input":"good"}`); len(a.Data) != 1 || a.Data[0].Probs[0] != 0.5 || a.Data[0].Label != "LABEL_0" {
		t.Errorf("one class: %+v", a.Data)
	}
}

// Two lists of one length are scored pair by pair.
func TestScoresOfPairs(t *testing.T) {
	const body = `{"text_1":["good","bad"],"text_2":["paris","paris"]}`
	cross := startReal(t, encoderConfig(t, tinyEncoder(t, "both", crossEncoder)))
	_, a := encode(t, cross, "/v1/score", body)
	for i, logit := range []float64{7, 3} { // [CLS] 1, good 2, bad -2, paris 4
		if len(a.Data) != 2 || math.Abs(a.Data[i].Score-1/(1+math.Exp(-logit))) > 1e-9 {
			t.Errorf("cross-encoder: %+v", a.Data)
		}
	}
	vectors := startReal(t, encoderConfig(t, tinyEncoder(t, "hidden", "{}")))
	_, a = encode(t, vectors, "/v1/score", body)
	want := []float64{encoder.Cosine([]float32{3, -1}, []float32{5, 1}), encoder.Cosine([]float32{-1, 3}, []float32{5, 1})}
	for i, s := range want {
		if len(a.Data) != 2 || math.Abs(a.Data[i].Score-s) > 1e-6 {
			t.Errorf("cosines: %+v, want %v", a.Data, want)
		}
	}
}

func TestClassify(t *testing.T) {
	srv := startReal(t, encoderConfig(t, tinyEncoder(t, "classes",
		`{"architectures":["BertForSequenceClassification"],"id2label":{"0":"POS","1":"NEG"}}`)))
	_, a := encode(t, srv, "/classify", `{"input":["good","bad bad"]}`)
	if len(a.Data) != 2 || a.Data[0].Label != "POS" || a.Data[1].Label != "NEG" || a.Data[0].Classes != 2 {
		t.Fatalf("%+v", a.Data)
	}
	// Logits 3 and -1: [CLS] good [SEP] is (1 0) + (2 -2) + (0 1).
	if want := 1 / (1 + math.Exp(-4)); math.Abs(a.Data[0].Probs[0]-want) > 1e-9 || math.Abs(a.Data[0].Probs[0]+a.Data[0].Probs[1]-1) > 1e-9 {
		t.Errorf("probabilities %v, want %v first", a.Data[0].Probs, want)
	}
	if status, a := encode(t, srv, "/v1/score", `{"text_1":"a","text_2":"b"}`); status != http.StatusBadRequest || !strings.Contains(a.Error.Message, "2 classes") {
		t.Errorf("score of two classes: %d %+v", status, a.Error)
	}
}

func TestEncoderBesideChat(t *testing.T) {
	cfg := realConfig(t)
	cfg.EmbeddingModel, cfg.EmbeddingNames = tinyEncoder(t, "hidden", "{}"), []string{"tiny", "small"}
	srv := startReal(t, cfg)
	e := srv.Config.Handler.(*Engine)
	var names []string
	for _, m := range e.Status().Models {
		names = append(names, fmt.Sprint(m.ID, " ", m.ContextTokens > 0))
	}
	if got := strings.Join(names, ", "); got != "smol true, tiny true, small true" {
		t.Errorf("models %s", got)
	}
	if _, a := embed(t, srv, `{"input":"paris","model":"small"}`); a.Model != "small" {
		t.Errorf("model %q", a.Model)
	}
	for model, want := range map[string]string{"small": "[2 7 3]", "smol": "[1095 271]", "": "[1095 271]"} {
		_, a := post(t, srv, "/tokenize", `{"prompt":"paris","model":"`+model+`"}`)
		if got := fmt.Sprint(a.Tokens); got != want {
			t.Errorf("tokens of %q: %s, want %s", model, got, want)
		}
	}
	if status, a := post(t, srv, "/v1/completions", `{"prompt":"1 2","max_tokens":1}`); status != http.StatusOK || len(a.Choices) != 1 {
		t.Errorf("completions: %d", status)
	}
	for path, body := range map[string]string{
		"/v1/embeddings": `{"input":"a","model":"smol"}`, "/v1/completions": `{"prompt":"a","model":"tiny"}`,
		"/v1/chat/completions": `{"messages":[{"role":"user","content":"a"}],"model":"small"}`,
	} {
		if status, a := encode(t, srv, path, body); status != http.StatusNotFound || a.Error.Code != "model_not_found" {
			t.Errorf("%s %s: %d %+v", path, body, status, a.Error)
		}
	}
}

func TestChatAloneHasNoEncoder(t *testing.T) {
	srv := startReal(t, realConfig(t))
	if status, a := encode(t, srv, "/v1/embeddings", `{"input":"a"}`); status != http.StatusNotFound || !strings.Contains(a.Error.Message, "--embedding-model") {
		t.Errorf("%d %+v", status, a.Error)
	}
}

func TestEncoderFailuresAreTyped(t *testing.T) {
	good := tinyEncoder(t, "hidden", "{}")
	for name, tt := range map[string]struct {
		model, embedding string
		want             engine.Cause
	}{
		"absent":      {good + "/nowhere", "", engine.CauseModelNotFound},
		"beside":      {testEnv(t, "INFER_TEST_MODEL_GGUF"), good + "/nowhere", engine.CauseModelNotFound},
		"empty":       {testEnv(t, "INFER_TEST_MODEL_GGUF"), t.TempDir(), engine.CauseModelInvalid},
		"damaged":     {tinyEncoder(t, "hidden", "{"), "", engine.CauseModelInvalid},
		"unsupported": {tinyEncoder(t, "hidden", `{"architectures":["BertForMaskedLM"]}`), "", engine.CauseModelUnsupported},
		"both":        {good, good + "/.", engine.CauseModelUnsupported},
	} {
		cfg := encoderConfig(t, tt.model)
		cfg.EmbeddingModel, cfg.EmbeddingNames = tt.embedding, nil
		if tt.embedding != "" {
			cfg.EmbeddingNames = []string{"other"}
		}
		e, err := New(cfg, quiet)
		if err != nil {
			t.Fatal(err)
		}
		f, ok := e.Run(t.Context()).(*engine.Failure)
		if !ok || f.Cause != tt.want || f.Remedy == "" {
			t.Errorf("%s: %v, want cause %s with a remedy", name, f, tt.want)
		}
	}
}

func TestEncoderSettings(t *testing.T) {
	for _, c := range []Config{
		{Model: "a", Device: "cpu", EmbeddingNames: []string{"b"}},
		{Model: "a", Device: "cpu", EmbeddingModel: "x/a"},
		{Model: "a", Names: []string{"c"}, Device: "cpu", EmbeddingModel: "x", EmbeddingNames: []string{"b", "c"}},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "embedding-model-name") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := (Config{Model: "a", Device: "cpu", EmbeddingModel: "b"}).Validate(); err != nil {
		t.Error(err)
	}
}

// meterOf records what a request is billed.
type meterOf struct{ prompt, tokens int }

func (m *meterOf) Prompt(tokens, _ int) { m.prompt += tokens }
func (m *meterOf) Tokens(n int)         { m.tokens += n }

func TestEncoderTellsTheMeter(t *testing.T) {
	srv := startReal(t, encoderConfig(t, tinyEncoder(t, "hidden", "{}")))
	m := &meterOf{}
	r := httptest.NewRequest("POST", "/v1/embeddings", strings.NewReader(`{"input":["good bad","paris"]}`))
	w := httptest.NewRecorder()
	srv.Config.Handler.ServeHTTP(w, r.WithContext(engine.WithMeter(r.Context(), m)))
	if w.Code != http.StatusOK || *m != (meterOf{prompt: 7}) {
		t.Errorf("%d, metered %+v, want a prompt of 7", w.Code, *m)
	}
}

// unrun is an engine whose encoder takes work and never does it.
func unrun(t *testing.T) *Engine {
	t.Helper()
	lib, err := ort.Open(testEnv(t, "INFER_TEST_ONNXRUNTIME"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	dir := tinyEncoder(t, "hidden", "{}")
	enc, err := encoder.Open(lib, encoder.Config{Dir: dir, Threads: 1, QueueTokens: 4}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { enc.Close(); lib.Close() })
	e, err := New(encoderConfig(t, dir), quiet)
	if err != nil {
		t.Fatal(err)
	}
	e.embed.Store(&embedder{enc, []string{"enc"}, true})
	return e
}

func TestEncoderQueueIsBounded(t *testing.T) {
	e := unrun(t)
	ask := func(ctx context.Context) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest("POST", "/v1/embeddings", strings.NewReader(`{"input":"good"}`)).WithContext(ctx))
		return w
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if w := ask(gone); w.Body.Len() != 0 {
		t.Errorf("who left was answered %s", w.Body)
	}
	if w := ask(t.Context()); w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), "queue_full") {
		t.Errorf("over the bound: %d %s", w.Code, w.Body)
	}
}

// An engine that ends leaves no goroutine behind, also with requests in it.
func TestEncoderLeaksNothing(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Run("serve", func(t *testing.T) {
		srv := startReal(t, encoderConfig(t, tinyEncoder(t, "hidden", "{}")))
		for range 20 {
			embed(t, srv, `{"input":["good","bad","paris"]}`)
		}
		srv.Client().CloseIdleConnections()
	})
	goleak.VerifyNone(t, ignore)
}
