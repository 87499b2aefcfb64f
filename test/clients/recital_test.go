package clients

import (
	"encoding/json/v2"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/shared"
)

// recital serves one of the models of test/recital, which call tools and think
// of their own choice.
func recital(t *testing.T, name string) *server {
	t.Helper()
	folder := t.TempDir()
	cmd := exec.CommandContext(timeout(t), "go", "run", "-C", "../..", "./test/recital", folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("recital: %v\n%s", err, out)
	}
	return ready(t, "--model", filepath.Join(folder, name+".gguf"), "--served-model-name", name)
}

func TestPythonRecital(t *testing.T) {
	qwen, thinker := recital(t, "qwen"), recital(t, "thinker")
	cmd := exec.CommandContext(timeout(t), fromMake(t, "INFER_TEST_PYTHON"), "recital.py", qwen.url, thinker.url)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("recital.py: %v\n%s", err, out)
	}
}

func TestNodeRecital(t *testing.T) {
	if out, err := node(t, "recital.mjs", recital(t, "qwen").url).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Each family has its own way to write calls.
func TestCallFormats(t *testing.T) {
	for _, family := range []string{"mistral", "mistral11", "llama", "phi"} {
		t.Run(family, func(t *testing.T) { callAndAnswer(t, recital(t, family), family) })
	}
}

func callAndAnswer(t *testing.T, s *server, model string) {
	client := s.client(0)
	p := openai.ChatCompletionNewParams{
		Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("How is the weather?")},
		Tools: []openai.ChatCompletionToolUnionParam{
			openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "get_weather"}),
			openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "get_time"}),
		},
	}
	whole, err := client.Chat.Completions.New(timeout(t), p)
	if err != nil {
		t.Fatal(err)
	}
	wantCalls(t, whole)
	stream := client.Chat.Completions.NewStreaming(timeout(t), p)
	var sum openai.ChatCompletionAccumulator
	for stream.Next() {
		sum.AddChunk(stream.Current())
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, &sum.ChatCompletion)
	if model != "llama" { // which may call with or without its marker, and is held to go without
		forced := p
		forced.ToolChoice = openai.ChatCompletionToolChoiceOptionUnionParam{OfAuto: openai.String("required")}
		if whole, err = client.Chat.Completions.New(timeout(t), forced); err != nil {
			t.Fatal(err)
		}
		wantCalls(t, whole)
	}
	m := whole.Choices[0].Message
	p.Messages = append(p.Messages, m.ToParam(), openai.ToolMessage("sunny", m.ToolCalls[0].ID))
	answer, err := client.Chat.Completions.New(timeout(t), p)
	if err != nil {
		t.Fatal(err)
	}
	if c := answer.Choices[0]; c.Message.Content != "It is sunny in Paris." || c.FinishReason != "stop" {
		t.Errorf("after the result: %s", answer.RawJSON())
	}
}

func wantCalls(t *testing.T, c *openai.ChatCompletion) {
	t.Helper()
	m := c.Choices[0].Message
	if len(m.ToolCalls) != 2 || m.Content != "" || c.Choices[0].FinishReason != "tool_calls" {
		t.Fatalf("got %d calls, text %q, finish reason %q; want two calls", len(m.ToolCalls), m.Content, c.Choices[0].FinishReason)
	}
	var weather struct{ City string }
	first, second := m.ToolCalls[0], m.ToolCalls[1]
	err := json.Unmarshal([]byte(first.Function.Arguments), &weather, json.MatchCaseInsensitiveNames(true))
	if err != nil || weather.City != "Paris" || first.Function.Name != "get_weather" {
		t.Errorf("first call %s(%s), %v", first.Function.Name, first.Function.Arguments, err)
	}
	if second.Function.Name != "get_time" || second.Function.Arguments != "{}" || second.ID == first.ID || second.ID == "" {
		t.Errorf("second call %q %s(%s)", second.ID, second.Function.Name, second.Function.Arguments)
	}
}
