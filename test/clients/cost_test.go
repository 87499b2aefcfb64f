package clients

import (
	"encoding/json/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
)

// fakeGPU builds the NVML of the tests, with a GPU that is busy and takes 300 W.
func fakeGPU(t *testing.T) (library string) {
	t.Helper()
	library = filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	cmd := exec.CommandContext(timeout(t), "cc", "-shared", "-fPIC", "-w", "-o", library, "../../internal/gpu/gputest/testdata/fakenvml.c")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const gpu = "uuid GPU-0\nname A100\nlive 80\nwatts 300\ntotal 85899345920\nused 42949672960\n"
	var lines []byte
	for line := range strings.Lines(gpu) {
		lines = append(lines, "gpu0."+line...)
	}
	if err := os.WriteFile(library+".txt", lines, 0o600); err != nil {
		t.Fatal(err)
	}
	return library
}

// The clients give what they do not know to whoever asks for it, and the rest
// of the usage as ever.
func TestUsageCost(t *testing.T) {
	s := ready(t, "--usage-cost", "--nvml-library", fakeGPU(t))
	client := s.client(0)
	params := ask("Count to a thousand.", 64)
	s.until("a price to be known", func() bool {
		whole, err := client.Chat.Completions.New(timeout(t), params)
		if err != nil {
			t.Fatal(err)
		}
		return whole.Usage.JSON.ExtraFields["infer_cost"].Raw() != ""
	})
	whole, err := client.Chat.Completions.New(timeout(t), params)
	if err != nil {
		t.Fatal(err)
	}
	wantCost(t, whole.Usage)
	text, err := client.Completions.New(timeout(t), openai.CompletionNewParams{Model: model, MaxTokens: openai.Int(16),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("1, 2, 3,")}})
	if err != nil {
		t.Fatal(err)
	}
	wantCost(t, text.Usage)

	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(timeout(t), params)
	told := 0
	for stream.Next() {
		if chunk := stream.Current(); chunk.Usage.TotalTokens > 0 {
			told++
			wantCost(t, chunk.Usage)
		}
	}
	if err := stream.Err(); err != nil || told != 1 {
		t.Errorf("%v, usage in %d chunks, want 1", err, told)
	}
	cmd := exec.CommandContext(timeout(t), fromMake(t, "INFER_TEST_PYTHON"), "cost.py", s.url+"/v1", model)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("cost.py: %v\n%s", err, out)
	}
}

func wantCost(t *testing.T, u openai.CompletionUsage) {
	t.Helper()
	var cost struct {
		Seconds float64 `json:"gpu_seconds"`
		Joules  float64 `json:"joules"`
	}
	if err := json.Unmarshal([]byte(u.JSON.ExtraFields["infer_cost"].Raw()), &cost); err != nil || cost.Seconds <= 0 || cost.Joules <= 0 {
		t.Errorf("infer_cost %+v, %v, in %s", cost, err, u.RawJSON())
	}
	if u.PromptTokens < 5 || u.CompletionTokens < 1 || u.TotalTokens != u.PromptTokens+u.CompletionTokens {
		t.Errorf("usage %s", u.RawJSON())
	}
}
