package onnx

// The bodies of the OpenAI wire that this engine writes, in its field order.

type usage struct {
	PromptTokens     int           `json:"prompt_tokens"`
	CompletionTokens int           `json:"completion_tokens"`
	TotalTokens      int           `json:"total_tokens"`
	PromptDetails    promptDetails `json:"prompt_tokens_details"`
	// Of a chat only, since no other answer is parsed.
	CompletionDetails *completionDetails `json:"completion_tokens_details,omitzero"`
}

type completionDetails struct {
	ReasoningTokens int `json:"reasoning_tokens"`
}

type promptDetails struct {
	CachedTokens int `json:"cached_tokens"`
}

// response is a whole answer or one chunk of a stream, of either route.
type response struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	// Fingerprint names model, library and device: with the same one, and the
	// same seed, an answer repeats as far as the compute is exact.
	Fingerprint string `json:"system_fingerprint"`
	Usage       any    `json:"usage,omitzero"` // *usage; untyped nil leaves it out, a nil *usage is null
}

type choice struct {
	Index        int          `json:"index"`
	Message      *chatMessage `json:"message,omitzero"`
	Delta        *delta       `json:"delta,omitzero"`
	Text         *string      `json:"text,omitzero"`
	Logprobs     any          `json:"logprobs"`
	FinishReason *string      `json:"finish_reason"`
	StopReason   any          `json:"stop_reason,omitzero"`
}

type chatMessage struct {
	Role      string     `json:"role"`
	Content   *string    `json:"content"`
	Refusal   *string    `json:"refusal"`
	Reasoning string     `json:"reasoning_content,omitzero"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type delta struct {
	Role      string     `json:"role,omitzero"`
	Content   *string    `json:"content,omitzero"`
	Reasoning *string    `json:"reasoning_content,omitzero"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

// toolCall is a whole call, or a delta of one, which has an index and, after
// its first event, no id, type or name.
type toolCall struct {
	Index    *int         `json:"index,omitzero"`
	ID       string       `json:"id,omitzero"`
	Type     string       `json:"type,omitzero"`
	Function functionCall `json:"function"`
}

type functionCall struct {
	Name      string `json:"name,omitzero"`
	Arguments string `json:"arguments"`
}
