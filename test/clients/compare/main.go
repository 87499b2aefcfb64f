// Command compare asks vLLM on a Unix socket and infer in front of it the same
// through OpenAI's client for Go, and prints every difference in what the
// client returns, one a line: compare SOCKET URL.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
)

// call is one use of the client; its result is what the client returns.
type call struct {
	name string
	run  func(context.Context, openai.Client) (any, error)
}

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, socket, url string) error {
	dialer := &net.Dialer{}
	direct := openai.NewClient(option.WithBaseURL("http://vllm/v1"), option.WithAPIKey("x"), option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}}}))
	through := openai.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("x"), option.WithMaxRetries(0))
	calls := calls()
	for _, c := range calls {
		a, err := result(c.run(ctx, direct))
		if err != nil {
			return fmt.Errorf("%s, direct: %w", c.name, err)
		}
		b, err := result(c.run(ctx, through))
		if err != nil {
			return fmt.Errorf("%s, through infer: %w", c.name, err)
		}
		differences(c.name, a, b)
	}
	fmt.Println(len(calls), "calls")
	return nil
}

func chat(change func(*openai.ChatCompletionNewParams)) openai.ChatCompletionNewParams {
	p := openai.ChatCompletionNewParams{Model: "smollm2", Temperature: openai.Float(0), MaxTokens: openai.Int(24),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Name the capital of France in one short sentence.")}}
	if change != nil {
		change(&p)
	}
	return p
}

func completion(change func(*openai.CompletionNewParams)) openai.CompletionNewParams {
	p := openai.CompletionNewParams{Model: "smollm2", Temperature: openai.Float(0), MaxTokens: openai.Int(6),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("The capital of France is")}}
	if change != nil {
		change(&p)
	}
	return p
}

func calls() []call {
	var all []call
	ask := func(name string, stream bool, change func(*openai.ChatCompletionNewParams)) {
		all = append(all, call{name, func(ctx context.Context, c openai.Client) (any, error) {
			if stream {
				return collect(c.Chat.Completions.NewStreaming(ctx, chat(change)))
			}
			return c.Chat.Completions.New(ctx, chat(change))
		}})
	}
	complete := func(name string, stream bool, change func(*openai.CompletionNewParams)) {
		all = append(all, call{name, func(ctx context.Context, c openai.Client) (any, error) {
			if stream {
				return collect(c.Completions.NewStreaming(ctx, completion(change)))
			}
			return c.Completions.New(ctx, completion(change))
		}})
	}
	usage := openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	long := func(p *openai.ChatCompletionNewParams) {
		p.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage(strings.Repeat("word ", 2000))}
	}
	ask("chat", false, nil)
	ask("chat with length", false, func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(3) })
	ask("chat with log-probabilities", false, func(p *openai.ChatCompletionNewParams) {
		p.Logprobs, p.TopLogprobs = openai.Bool(true), openai.Int(2)
	})
	ask("stream", true, nil)
	ask("stream with usage", true, func(p *openai.ChatCompletionNewParams) { p.StreamOptions = usage })
	complete("completion", false, nil)
	complete("completion of two prompts", false, func(p *openai.CompletionNewParams) {
		p.Prompt = openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"The capital of France is", "One, two,"}}
	})
	complete("completion stream", true, nil)
	complete("completion stream with usage", true, func(p *openai.CompletionNewParams) { p.StreamOptions = usage })
	ask("unknown model", false, func(p *openai.ChatCompletionNewParams) { p.Model = "other" })
	ask("unknown model in a stream", true, func(p *openai.ChatCompletionNewParams) { p.Model = "other" })
	ask("too long", false, long)
	ask("too long stream", true, long)
	ask("bad temperature", false, func(p *openai.ChatCompletionNewParams) { p.Temperature = openai.Float(9) })
	all = append(all, call{"embeddings of a chat model", func(ctx context.Context, c openai.Client) (any, error) {
		return c.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "smollm2", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("x")}})
	}})
	return all
}

// collect reads a stream to its end.
func collect[T any](s *ssestream.Stream[T]) (any, error) {
	var all []any
	for s.Next() {
		all = append(all, s.Current())
	}
	return all, s.Err()
}

// join puts the events of a stream of one choice into one, since vLLM puts into
// one what was sampled while it had no time to send it: texts are joined, and
// of all else the last holds.
func join(key string, a, b any) any {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			both := maps.Clone(x)
			for k, v := range y {
				both[k] = join(k, x[k], v)
			}
			return both
		}
	case []any:
		if y, ok := b.([]any); ok {
			both := append(slices.Clone(x), y[min(len(x), len(y)):]...)
			for i := range min(len(x), len(y)) {
				both[i] = join(key, x[i], y[i])
			}
			return both
		}
	case string:
		if y, ok := b.(string); ok && (key == "content" || key == "text" || y == "") {
			return x + y
		}
	}
	if b == nil {
		return a
	}
	return b
}

// result makes plain values of what the client returned. An error of the API
// is a result; any other is a fault of this comparison.
func result(v any, err error) (any, error) {
	var refused *openai.Error
	switch {
	case errors.As(err, &refused):
		v = map[string]any{"status": refused.StatusCode, "type": refused.Type, "code": refused.Code, "param": refused.Param, "message": refused.Message}
	case err != nil:
		return nil, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write the result: %w", err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		return nil, fmt.Errorf("read the result: %w", err)
	}
	if events, ok := plain.([]any); ok {
		plain = nil
		for _, e := range events {
			plain = join("", plain, e)
		}
	}
	return plain, nil
}

// varying differ between any two answers.
var varying = []string{"id", "created", "system_fingerprint"}

func differences(path string, a, b any) {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		both := maps.Clone(x)
		maps.Copy(both, y)
		for _, k := range slices.Sorted(maps.Keys(both)) {
			if !slices.Contains(varying, k) {
				differences(path+"."+k, x[k], y[k])
			}
		}
		return
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			break
		}
		for i := range x {
			differences(fmt.Sprintf("%s[%d]", path, i), x[i], y[i])
		}
		return
	}
	if !reflect.DeepEqual(a, b) {
		fmt.Printf("%s %s -> %s\n", path, show(a), show(b))
	}
}

func show(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
