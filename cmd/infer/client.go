package main

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"infer/internal/openai"
)

// maxReplyBytes bounds what is read of a body that is not a stream.
const maxReplyBytes = 1 << 20

// client speaks the part of the OpenAI API that chat needs.
type client struct {
	base    string
	key     string
	request chatRequest // without messages
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type chatRequest struct {
	Model         string          `json:"model"`
	Messages      []message       `json:"messages"`
	MaxTokens     int             `json:"max_tokens,omitzero"`
	Temperature   *float64        `json:"temperature,omitzero"`
	Stream        bool            `json:"stream"`
	StreamOptions map[string]bool `json:"stream_options"`
}

// chunk is one event of a stream: text, usage or an error.
type chunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
	Usage *struct {
		CompletionTokens int `json:"completion_tokens"`
	} `json:"usage"`
	Error *wireError `json:"error"`
}

type wireError struct {
	Message string `json:"message"`
}

// serverError is an answer that is an error.
type serverError struct {
	status  int // 0 when it came inside a stream
	message string
}

// Error returns what the server said, which names the remedy.
func (e serverError) Error() string {
	if e.status == 0 {
		return "server: " + e.message
	}
	return fmt.Sprintf("server: %s (HTTP %d)", e.message, e.status)
}

// exitCode tells a caller of chat whose fault it was.
func (e serverError) exitCode() int {
	switch {
	case e.status == http.StatusTooManyRequests || e.status == http.StatusServiceUnavailable:
		return exitRetry
	case e.status >= 400 && e.status < 500:
		return exitUsage
	default:
		return exitUnavailable
	}
}

func newClient(c chatCmd) client {
	base := strings.TrimSuffix(strings.TrimRight(c.URL, "/"), "/v1")
	return client{base: base, key: string(c.APIKey), request: chatRequest{
		Model: c.Model, MaxTokens: c.MaxTokens, Temperature: c.Temperature,
		Stream: true, StreamOptions: map[string]bool{"include_usage": true},
	}}
}

// firstModel returns the name of the model that the server lists first.
func (c client) firstModel(ctx context.Context) (string, error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, maxReplyBytes), &list); err != nil {
		return "", fmt.Errorf("read the list of models: %w; is %s an OpenAI API", err, c.base)
	}
	if len(list.Data) == 0 {
		return "", errors.New("the server lists no model; name one with --model")
	}
	return list.Data[0].ID, nil
}

// stream asks for the next message and calls show with each piece of it.
func (c client) stream(ctx context.Context, said []message, show func(string)) (answer, error) {
	c.request.Messages = said
	body, err := json.Marshal(c.request)
	if err != nil {
		return answer{}, fmt.Errorf("marshal request: %w", err)
	}
	began := time.Now()
	resp, err := c.do(ctx, http.MethodPost, "/v1/chat/completions", body)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var (
		a     answer
		text  strings.Builder
		first time.Time
	)
	for events := openai.NewReader(resp.Body); ; {
		piece, err := next(events, &a)
		if err != nil {
			a.text = text.String()
			if !first.IsZero() {
				a.ttft, a.decode = first.Sub(began), time.Since(first)
			}
			if err == io.EOF {
				return a, nil
			}
			return a, err
		}
		if piece != "" && first.IsZero() {
			first = time.Now()
		}
		text.WriteString(piece)
		show(piece)
	}
}

// next returns the text of the next event and notes usage in a.
func next(events *openai.Reader, a *answer) (string, error) {
	data, err := events.Next()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "", errors.New("the server broke off in the middle of the answer; ask again")
	}
	if err != nil {
		return "", err
	}
	var ch chunk
	if err := json.Unmarshal(data, &ch); err != nil {
		return "", fmt.Errorf("read an event of the stream: %w", err)
	}
	if ch.Error != nil {
		return "", serverError{message: ch.Error.Message}
	}
	if ch.Usage != nil {
		a.tokens = ch.Usage.CompletionTokens
	}
	if len(ch.Choices) == 0 {
		return "", nil
	}
	return ch.Choices[0].Delta.Content, nil
}

// do sends one request and turns every answer but 200 into an error.
func (c client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, usageError{fmt.Errorf("url: %w", err)}
	}
	req.Header.Set("Content-Type", "application/json")
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := http.DefaultClient.Do(req)
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err // it repeats method and address
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, unavailableError{fmt.Errorf("nothing listens at %s; start infer serve, or name a server with --url", c.base)}
	case err != nil:
		return nil, unavailableError{fmt.Errorf("ask %s: %w; is --url right", c.base, err)}
	case resp.StatusCode == http.StatusOK:
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, replyError(resp)
}

// replyError reads the error envelope, or says that there is none.
func replyError(resp *http.Response) error {
	var reply struct {
		Error wireError `json:"error"`
	}
	err := json.UnmarshalRead(io.LimitReader(resp.Body, maxReplyBytes), &reply)
	if err != nil || reply.Error.Message == "" {
		return serverError{resp.StatusCode, "an answer without a message; is --url an OpenAI API"}
	}
	return serverError{resp.StatusCode, reply.Error.Message}
}
