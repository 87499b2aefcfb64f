package clients

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/openai/openai-go/v3"
)

func TestChatAndStreamSayTheSame(t *testing.T) {
	s := ready(t)
	client := s.client(0)
	params := ask("Name three fruits.", 24)
	s.warm(params)
	whole, err := client.Chat.Completions.New(timeout(t), params)
	if err != nil {
		t.Fatal(err)
	}
	choice := whole.Choices[0]
	if choice.Message.Content == "" || choice.Message.Role != "assistant" || whole.Model != model || whole.Object != "chat.completion" {
		t.Errorf("got %s", whole.RawJSON())
	}
	if u := whole.Usage; u.CompletionTokens < 1 || u.CompletionTokens > 24 || u.PromptTokens < 5 || u.TotalTokens != u.PromptTokens+u.CompletionTokens {
		t.Errorf("usage %+v", u)
	}

	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(timeout(t), params)
	var sum openai.ChatCompletionAccumulator
	for stream.Next() {
		if !sum.AddChunk(stream.Current()) {
			t.Errorf("a chunk that does not belong: %s", stream.Current().RawJSON())
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if got, want := sum.Choices[0].Message.Content, choice.Message.Content; got != want {
		t.Errorf("streamed %q, whole %q", got, want)
	}
	if got, want := sum.Choices[0].FinishReason, choice.FinishReason; got != want {
		t.Errorf("streamed finish reason %q, whole %q", got, want)
	}
	if sum.Usage.TotalTokens != whole.Usage.TotalTokens {
		t.Errorf("streamed usage %+v, whole %+v", sum.Usage, whole.Usage)
	}
}

func TestCompletionAndStreamSayTheSame(t *testing.T) {
	s := ready(t)
	client := s.client(0)
	whole, err := client.Completions.New(timeout(t), count(16))
	if err != nil {
		t.Fatal(err)
	}
	if u := whole.Usage; u.CompletionTokens != 16 || whole.Choices[0].FinishReason != "length" {
		t.Errorf("got %s", whole.RawJSON())
	}
	if !strings.HasPrefix(strings.TrimSpace(whole.Choices[0].Text), "8, 9, 10") {
		t.Errorf("the model cannot count: %q", whole.Choices[0].Text)
	}
	params := count(16)
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Completions.NewStreaming(timeout(t), params)
	var text string
	var used int64
	for stream.Next() {
		chunk := stream.Current()
		used += chunk.Usage.CompletionTokens
		for _, choice := range chunk.Choices {
			text += choice.Text
		}
	}
	if err := stream.Err(); err != nil || text != whole.Choices[0].Text || used != 16 {
		t.Errorf("streamed %q, %d tokens, %v; whole %q", text, used, err, whole.Choices[0].Text)
	}
}

func TestModels(t *testing.T) {
	s := ready(t, "--served-model-name=alias/two")
	client := s.client(0)
	page, err := client.Models.List(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range page.Data {
		ids = append(ids, m.ID)
	}
	if got := strings.Join(ids, " "); got != model+" alias/two" {
		t.Errorf("models %q", got)
	}
	for _, id := range ids {
		if m, err := client.Models.Get(timeout(t), id); err != nil || m.ID != id {
			t.Errorf("get %q: %v, %v", id, m, err)
		}
		params := ask("Hi", 1)
		params.Model = id
		if _, err := client.Chat.Completions.New(timeout(t), params); err != nil {
			t.Errorf("chat with %q: %v", id, err)
		}
	}
}

// apiError returns the error that the client made of the server's answer.
func apiError(t *testing.T, err error) *openai.Error {
	t.Helper()
	var e *openai.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an error of the API", err)
	}
	return e
}

func TestErrors(t *testing.T) {
	s := ready(t, "--context=256")
	client := s.client(0)
	for _, tt := range []struct {
		name   string
		change func(*openai.ChatCompletionNewParams)
		status int
		kind   string
		code   string
		param  string
	}{
		{"no such model", func(p *openai.ChatCompletionNewParams) { p.Model = "gpt-4o" }, 404, "not_found_error", "model_not_found", "model"},
		{"impossible value", func(p *openai.ChatCompletionNewParams) { p.Temperature = openai.Float(-1) }, 400, "invalid_request_error", "invalid_value", "temperature"},
		{"no messages", func(p *openai.ChatCompletionNewParams) { p.Messages = []openai.ChatCompletionMessageParamUnion{} }, 400, "invalid_request_error", "", "messages"},
		{"not implemented", func(p *openai.ChatCompletionNewParams) {
			p.SetExtraFields(map[string]any{"guided_regex": "a+"})
		}, 400, "invalid_request_error", "unsupported_parameter", "guided_regex"},
		{"prompt over the context", func(p *openai.ChatCompletionNewParams) {
			p.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage(strings.Repeat("word ", 400))}
		}, 400, "invalid_request_error", "context_length_exceeded", "messages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			params := ask("Hi", 4)
			tt.change(&params)
			_, err := client.Chat.Completions.New(timeout(t), params)
			e := apiError(t, err)
			if e.StatusCode != tt.status || e.Type != tt.kind || (tt.code != "" && e.Code != tt.code) || e.Param != tt.param || e.Message == "" {
				t.Errorf("got %d %s", e.StatusCode, e.RawJSON())
			}
		})
	}
	for path, want := range map[string]int{"/v1/chat/completions": http.StatusMethodNotAllowed, "/v1/nowhere": http.StatusNotFound} {
		if status, body := s.get(path); status != want || !strings.HasPrefix(body, `{"error":{`) {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	stream := client.Chat.Completions.NewStreaming(timeout(t), openai.ChatCompletionNewParams{Model: "gpt-4o"})
	for stream.Next() {
		t.Error("a stream for a model that is not there")
	}
	if e := apiError(t, stream.Err()); e.StatusCode < 400 {
		t.Errorf("a stream that cannot begin has status %d", e.StatusCode)
	}
}

// More streams than slots all come to their own end.
func TestConcurrentStreams(t *testing.T) {
	s := ready(t, "--slots=4")
	client := s.client(0)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			stream := client.Completions.NewStreaming(timeout(t), count(24))
			text := ""
			for stream.Next() {
				if c := stream.Current().Choices; len(c) > 0 {
					text += c[0].Text
				}
			}
			if err := stream.Err(); err != nil || !strings.HasPrefix(strings.TrimSpace(text), "8, 9, 10") {
				t.Errorf("streamed %q, %v", text, err)
			}
		})
	}
	wg.Wait()
	s.until("all slots to be free", func() bool { return s.metric("infer_requests_running") == 0 })
	if got := s.metric(`infer_tokens_total{kind="completion",model="` + model + `"}`); got != 12*24 {
		t.Errorf("%v tokens were counted, want %d", got, 12*24)
	}
}
