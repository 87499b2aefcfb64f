package translate

import (
	"net/http"
	"strings"
	"testing"

	"infer/internal/openai"
)

// What is refused before the chat handler is asked, and how.
func TestResponsesRefusals(t *testing.T) {
	for _, tt := range []struct{ body, param, code, message string }{
		{`{`, "", "invalid_json", "the body is not valid JSON; send one JSON object"},
		{`[]`, "", "invalid_json", "the body is JSON but not an object; send one JSON object"},
		{`{"input":"a","input":"b"}`, "", "invalid_json", "the body is not valid JSON; send one JSON object"},
		{`{"model":"m"}`, "input", "missing_field", "input is required: a string or a list of items"},
		{`{"input":7}`, "input", "invalid_value", "input must be a string or a list of items"},
		{`{"input":[]}`, "input", "invalid_value", "input is empty; give at least one item"},
		{`{"input":["hi"]}`, "input[0]", "invalid_value", "input[0] must be an object"},
		{`{"input":"q","temperature":"hot"}`, "temperature", "invalid_value", "temperature must be a number"},
		{`{"input":"q","max_output_tokens":1.5}`, "max_output_tokens", "invalid_value", "max_output_tokens must be an integer"},
		{`{"input":"q","include":"all"}`, "include", "invalid_value", "include must be a list"},
		{`{"input":"q","metadata":{"a":1}}`, "metadata.a", "invalid_value", "metadata.a must be a string"},
		{`{"input":"q","` + strings.Repeat("x", 999) + `":1}`, strings.Repeat("x", 64) + "…", "unsupported_parameter", strings.Repeat("x", 64) + "… is not supported here; leave it out"},
		{`{"input":"q","messages":[]}`, "messages", "unsupported_parameter", "messages is not supported here; leave it out"},
		{`{"input":"q","stream_options":{"include_usage":true}}`, "stream_options.include_usage", "unsupported_parameter", "stream_options.include_usage is not supported here; leave it out"},
		{`{"input":"q","previous_response_id":"resp_1"}`, "previous_response_id", "unsupported_parameter", "previous_response_id is not supported: no response is kept here; send the whole conversation in input"},
		{`{"input":"q","conversation":{"id":"c"}}`, "conversation", "unsupported_parameter", "conversation is not supported: no response is kept here; send the whole conversation in input"},
		{`{"input":"q","background":true}`, "background", "unsupported_parameter", "background is not supported: no response is kept here; leave it out and wait for the answer"},
		{`{"input":"q","truncation":"auto"}`, "truncation", "unsupported_parameter", `truncation "auto" is not supported: shorten the input yourself, or leave it out`},
		{`{"input":"q","truncation":"x"}`, "truncation", "invalid_value", `truncation must be "disabled"`},
		{`{"input":"q","include":["everything"]}`, "include[0]", "unsupported_parameter", "include[0] is not supported; message.output_text.logprobs is"},
		{`{"input":"q","tools":[{"type":"web_search"}]}`, "tools[0].type", "unsupported_parameter", `tools[0].type "web_search" is not supported; only function tools are`},
		{`{"input":"q","tools":[{"type":"function"}]}`, "tools[0].name", "missing_field", "tools[0].name is required: the name of the function"},
		{`{"input":"q","tools":[{"type":"function","name":"f","defer_loading":true}]}`, "tools[0].defer_loading", "unsupported_parameter", "tools[0].defer_loading is not supported here; leave it out"},
		{`{"input":"q","tool_choice":"maybe"}`, "tool_choice", "invalid_value", "tool_choice must be auto, none, required or an object"},
		{`{"input":"q","tool_choice":"required"}`, "tool_choice", "invalid_value", "tool_choice is required, but tools is empty"},
		{`{"input":"q","tool_choice":{"type":"function","name":"f"}}`, "tool_choice.name", "invalid_value", "tool_choice.name is not the name of a tool in tools"},
		{`{"input":"q","tool_choice":{"type":"mcp"}}`, "tool_choice.type", "unsupported_parameter", `tool_choice.type "mcp" is not supported; use function or allowed_tools`},
		{`{"input":"q","tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}}`, "tool_choice.tools[0]", "invalid_value", "tool_choice.tools[0] is not a function in tools"},
		{`{"input":"q","text":{"format":{"type":"xml"}}}`, "text.format.type", "invalid_value", "text.format.type must be text, json_object or json_schema"},
		{`{"input":"q","text":{"format":{"type":"json_schema","name":"n"}}}`, "text.format.schema", "missing_field", "text.format.schema is required: a JSON schema"},
		{`{"input":"q","text":{"format":{"type":"json_schema","schema":{}}}}`, "text.format.name", "missing_field", "text.format.name is required: a name for the schema"},
		{`{"input":[{"role":"robot","content":"a"}]}`, "input[0].role", "invalid_value", "input[0].role must be user, assistant, system or developer"},
		{`{"input":[{"role":"user"}]}`, "input[0].content", "missing_field", "input[0].content is required: a string or a list of parts"},
		{`{"input":[{"role":"user","content":[{"type":"input_text"}]}]}`, "input[0].content[0].text", "missing_field", "input[0].content[0].text is required: a string"},
		{`{"input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]}`, "input[0].content[0].type", "unsupported_parameter", `input[0].content[0].type "input_image" is not supported; this model takes text only`},
		{`{"input":[{"type":"reasoning","summary":[` + strings.Repeat(`{"type":"summary_text","text":"a","x":null},`, 16) + `{"type":"summary_text","text":"a","x":null}]}]}`,
			"input[0]", "invalid_value", "input[0] has unknown fields in too many of its objects; leave them out"},
		{`{"input":"q","reasoning":{"x":null,"y":1}}`, "reasoning.y", "unsupported_parameter", "reasoning.y is not supported here; leave it out"},
		{`{"input":[{"type":"item_reference","id":"x"}]}`, "input[0].type", "unsupported_parameter", `input[0].type "item_reference" is not supported: no item is kept here; send the item itself`},
		{`{"input":[{"type":"computer_call"}]}`, "input[0].type", "unsupported_parameter", `input[0].type "computer_call" is not supported; use message, function_call, function_call_output or reasoning`},
		{`{"input":[{"type":"function_call","name":"f","arguments":""}]}`, "input[0].call_id", "missing_field", "input[0].call_id is required: the id of the call"},
		{`{"input":[{"type":"function_call_output","call_id":"c"}]}`, "input[0].output", "missing_field", "input[0].output is required: a string or a list of parts"},
	} {
		want := openai.Invalid(tt.param, tt.code, "%s", tt.message)
		wantRefused(t, Responses, tt.body, string(want.Body()))
	}
}

func wantRefused(t *testing.T, wrap func(http.Handler) http.Handler, body, want string) {
	t.Helper()
	w := post(wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the chat handler was asked") })), body)
	if w.Code != http.StatusBadRequest || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%s\n got %d %s\nwant 400 %s", body, w.Code, w.Body, want)
	}
}

func TestMessagesRefusals(t *testing.T) {
	ask := func(rest string) string {
		return `{"max_tokens":1,"messages":[{"role":"user","content":"q"}],` + rest + `}`
	}
	say := func(role, block string) string {
		return `{"max_tokens":1,"messages":[{"role":"` + role + `","content":[` + block + `]}]}`
	}
	for _, tt := range []struct{ body, message string }{
		{`7`, "the body is JSON but not an object; send one JSON object"},
		{`{"messages":[{"role":"user","content":"q"}]}`, "max_tokens is required: the most tokens to generate"},
		{`{"max_tokens":1}`, "messages is required: a list of objects with role and content"},
		{`{"max_tokens":1,"messages":"q"}`, "messages must be a list of objects"},
		{`{"max_tokens":1,"messages":[]}`, "messages is empty; give at least one message"},
		{`{"max_tokens":1,"messages":[7]}`, "messages[0] must be an object"},
		{`{"max_tokens":1,"messages":[{"role":"tool","content":"q"}]}`, "messages[0].role must be user, assistant or system"},
		{`{"max_tokens":1,"messages":[{"role":"user"}]}`, "messages[0].content is required: a string or a list of blocks"},
		{`{"max_tokens":1,"messages":[{"role":"user","content":"q","name":"n"}]}`, "messages[0].name is not supported here; leave it out"},
		{ask(`"mcp_servers":[]`), "mcp_servers is not supported here; leave it out"},
		{ask(`"stop_sequences":"a"`), "stop_sequences must be a list"},
		{ask(`"thinking":{"type":"deep"}`), "thinking.type must be enabled, adaptive or disabled"},
		{ask(`"system":[{"type":"image"}]`), `system[0].type "image" is not supported; only text is`},
		{ask(`"tools":[{"type":"web_search_20250305","name":"web_search"}]`), `tools[0].type "web_search_20250305" is not supported; only tools of your own are`},
		{ask(`"tools":[{"name":"f"}]`), "tools[0].input_schema is required: a JSON schema"},
		{ask(`"tools":[{"input_schema":{}}]`), "tools[0].name is required: the name of the tool"},
		{ask(`"tools":[{"name":"f","input_schema":{},"defer_loading":true}]`), "tools[0].defer_loading is not supported; leave it out"},
		{ask(`"tool_choice":{"type":"any"}`), "tool_choice asks for a tool, but tools is empty"},
		{ask(`"tool_choice":{"type":"tool","name":"f"}`), "tool_choice.name is not the name of a tool in tools"},
		{ask(`"tool_choice":{"type":"some"}`), "tool_choice.type must be auto, any, tool or none"},
		{ask(`"output_config":{"format":{"type":"xml"}}`), "output_config.format.type must be json_schema"},
		{ask(`"output_config":{"format":{"type":"json_schema"}}`), "output_config.format.schema is required: a JSON schema"},
		{say("user", `{"type":"image","source":{}}`), `messages[0].content[0].type "image" is not supported in a message of the user; this model takes text, tool_use, tool_result and thinking`},
		{say("user", `{"type":"tool_use","id":"t","name":"f","input":{}}`), `messages[0].content[0].type "tool_use" is not supported in a message of the user; this model takes text, tool_use, tool_result and thinking`},
		{say("user", `{"type":"text"}`), "messages[0].content[0].text is required: a string"},
		{say("user", `{"type":"tool_result","content":"1"}`), "messages[0].content[0].tool_use_id is required: the id of the call"},
		{say("user", `{"type":"tool_result","tool_use_id":"t","content":[{"type":"image"}]}`), `messages[0].content[0].content[0].type "image" is not supported; only text is`},
		{say("assistant", `{"type":"tool_use","id":"t","name":"f","input":"x"}`), "messages[0].content[0].input must be an object"},
	} {
		e := openai.Invalid("", "", "%s", tt.message)
		wantRefused(t, Messages, tt.body, string(MessagesErrorBody(e, "req")))
	}
}

// A client that asks for a thread learns that it must send the whole
// conversation.
func TestThreadRefused(t *testing.T) {
	wantRefused(t, Messages, `{"max_tokens":1,"messages":[{"role":"user","content":"q"}],"thread":{"type":"create"}}`,
		`{"type":"error","error":{"type":"invalid_request_error","message":"thread is not supported here; leave it out",`+
			`"details":{"error_code":"thread_unsupported_request","unsupported":["thread"]}},"request_id":"req"}`)
}

// What the chat handler refuses reaches the client with its status, in its
// protocol and in the words of its request.
func TestChatRefuses(t *testing.T) {
	const context = `{"error":{"message":"the prompt has 9 tokens and max_completion_tokens asks for 9; lower max_completion_tokens","type":"invalid_request_error","param":"max_completion_tokens","code":"context_length_exceeded"}}`
	const prefill = `{"error":{"message":"continue_final_message is not supported by the engine; leave it out","type":"invalid_request_error","param":"continue_final_message","code":"unsupported_parameter"}}`
	for _, tt := range []struct {
		name, chat          string
		status              int
		responses, messages string
	}{
		{"renamed", context, 400,
			`{"error":{"message":"the prompt has 9 tokens and max_output_tokens asks for 9; lower max_output_tokens","type":"invalid_request_error","param":"max_output_tokens","code":"context_length_exceeded"}}`,
			`{"type":"error","error":{"type":"invalid_request_error","message":"the prompt has 9 tokens and max_completion_tokens asks for 9; lower max_completion_tokens"},"request_id":"req"}`},
		{"prefill", prefill, 400,
			`{"error":{"message":"continue_final_message is not supported by the engine; leave it out","type":"invalid_request_error","param":"continue_final_message","code":"unsupported_parameter"}}`,
			`{"type":"error","error":{"type":"invalid_request_error","message":"a last message of the assistant is not supported by the engine; leave it out"},"request_id":"req"}`},
		{"starting", `{"error":{"message":"not ready","type":"service_unavailable_error","param":null,"code":"engine_not_ready","phase":"loading","cause":"x"}}`, 503,
			`{"error":{"message":"not ready","type":"service_unavailable_error","param":null,"code":"engine_not_ready","phase":"loading","cause":"x"}}`,
			`{"type":"error","error":{"type":"overloaded_error","message":"not ready"},"request_id":"req"}`},
		{"a number as code", `{"error":{"message":"no","type":"BadRequestError","param":null,"code":400}}`, 400,
			`{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}`,
			`{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"req"}`},
		{"a string", `{"error":"Unauthorized"}`, 401,
			`{"error":{"message":"Unauthorized","type":"authentication_error","param":null,"code":null}}`,
			`{"type":"error","error":{"type":"authentication_error","message":"Unauthorized"},"request_id":"req"}`},
		{"no envelope", `<html>`, 500,
			`{"error":{"message":"the engine answered Internal Server Error without a reason","type":"server_error","param":null,"code":null}}`,
			`{"type":"error","error":{"type":"api_error","message":"the engine answered Internal Server Error without a reason"},"request_id":"req"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, stream := range []string{"true", "false"} {
				for _, p := range []struct {
					wrap       func(http.Handler) http.Handler
					body, want string
				}{{Responses, askResponse, tt.responses}, {Messages, askMessage, tt.messages}} {
					chat := answering(tt.status, tt.chat)
					chat.header.Set("Retry-After", "7")
					chat.header.Set("Content-Length", "9999")
					w := post(p.wrap(chat), strings.Replace(p.body, `"stream":true`, `"stream":`+stream, 1))
					if w.Code != tt.status || w.Body.String() != p.want {
						t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, tt.status, p.want)
					}
					if w.Header().Get("Retry-After") != "7" || w.Header().Get("Content-Length") == "9999" {
						t.Errorf("headers %v", w.Header())
					}
				}
			}
		})
	}
}
