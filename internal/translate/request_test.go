package translate

import (
	"net/http"
	"testing"
)

// okAnswer is a chat's answer to anything.
const okAnswer = `{"created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`

// What the chat handler is asked for each request.
func TestResponsesRequest(t *testing.T) {
	for _, tt := range []struct{ name, body, chat string }{
		{"string", `{"input":"hi"}`, `{"messages":[{"role":"user","content":"hi"}]}`},
		{"nulls", `{"model":"m","input":"hi","tools":null,"text":null,"reasoning":null,"metadata":null,"temperature":null,"store":null,"background":null,"stream":null,"truncation":null}`,
			`{"model":"m","messages":[{"role":"user","content":"hi"}]}`},
		{"settings", `{"input":"hi","instructions":"Be brief.","max_output_tokens":5,"temperature":0,"top_p":0.5,"presence_penalty":1,"frequency_penalty":-1,
			"user":"u","store":true,"metadata":{"a":"b"},"truncation":"disabled","service_tier":"auto","include":["reasoning.encrypted_content"],
			"stream":true,"stream_options":{"include_obfuscation":false},"parallel_tool_calls":true,"text":{"verbosity":"low"},"reasoning":{"effort":"high","summary":"auto"}}`,
			`{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"hi"}],"max_completion_tokens":5,"temperature":0,"top_p":0.5,
			"presence_penalty":1,"frequency_penalty":-1,"user":"u","stream":true,"stream_options":{"include_usage":true},"verbosity":"low","reasoning_effort":"high"}`},
		{"logprobs", `{"input":"hi","top_logprobs":2,"include":["message.output_text.logprobs"]}`,
			`{"messages":[{"role":"user","content":"hi"}],"logprobs":true,"top_logprobs":2}`},
		{"turns", `{"instructions":"A","input":[{"type":"message","role":"developer","content":"B"},{"role":"user","content":[{"type":"input_text","text":"q"},{"type":"input_text","text":"r"}]},
			{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]},{"role":"user","content":"s"}]}`,
			`{"messages":[{"role":"system","content":[{"type":"text","text":"A"},{"type":"text","text":"B"}]},{"role":"user","content":[{"type":"text","text":"q"},{"type":"text","text":"r"}]},
			{"role":"assistant","content":"a"},{"role":"user","content":"s"}]}`},
		{"calls", `{"input":[{"role":"user","content":"q"},{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
			{"type":"function_call","id":"fc_1","call_id":"c1","name":"f","arguments":"{}","status":"completed"},{"type":"function_call","call_id":"c2","name":"g","arguments":"{\"a\":1}"},
			{"type":"function_call_output","call_id":"c1","output":"1"},{"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"2"}]}]}`,
			`{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
			{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{\"a\":1}"}}]},
			{"role":"tool","tool_call_id":"c1","content":"1"},{"role":"tool","tool_call_id":"c2","content":"2"}]}`},
		{"tools", `{"input":"q","tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":true},{"type":"function","name":"g","parameters":null}],
			"tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":false}`,
			`{"messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}},{"type":"function","function":{"name":"g"}}],
			"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false}`},
		{"allowed tools", `{"input":"q","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}],"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"}]}}`,
			`{"messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"g"}}],"tool_choice":"required"}`},
		{"no tools to choose from", `{"input":"q","tool_choice":"auto"}`, `{"messages":[{"role":"user","content":"q"}]}`},
		{"schema", `{"input":"q","text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true}}}`,
			`{"messages":[{"role":"user","content":"q"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}}}`},
		{"object", `{"input":"q","text":{"format":{"type":"json_object"}}}`, `{"messages":[{"role":"user","content":"q"}],"response_format":{"type":"json_object"}}`},
		{"text", `{"input":"q","text":{"format":{"type":"text"}}}`, `{"messages":[{"role":"user","content":"q"}]}`},
	} {
		t.Run(tt.name, func(t *testing.T) { wantAsked(t, Responses, "/v1/chat/completions", tt.body, tt.chat) })
	}
}

func wantAsked(t *testing.T, wrap func(http.Handler) http.Handler, path, body, want string) {
	t.Helper()
	chat := answering(http.StatusOK, okAnswer)
	if w := post(wrap(chat), body); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if chat.path != path {
		t.Errorf("asked at %s, want %s", chat.path, path)
	}
	wantJSON(t, chat.asked, want)
}

func TestMessagesRequest(t *testing.T) {
	for _, tt := range []struct{ name, body, chat string }{
		{"string", `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`,
			`{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`},
		{"settings", `{"max_tokens":5,"system":"S","messages":[{"role":"user","content":"hi"}],"stream":true,"temperature":0.5,"top_p":0.9,"top_k":4,"stop_sequences":["a","b"],
			"metadata":{"user_id":"u"},"service_tier":"auto","thinking":{"type":"enabled","budget_tokens":1024},"cache_control":{"type":"ephemeral"},"output_config":{"effort":"low"}}`,
			`{"max_tokens":5,"messages":[{"role":"system","content":"S"},{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},
			"temperature":0.5,"top_p":0.9,"top_k":4,"stop":["a","b"],"user":"u","reasoning_effort":"low"}`},
		{"no thoughts", `{"max_tokens":5,"thinking":{"type":"disabled"},"messages":[{"role":"user","content":"hi"}]}`,
			`{"max_tokens":5,"messages":[{"role":"user","content":"hi"}],"chat_template_kwargs":{"enable_thinking":false,"thinking":false}}`},
		{"nulls", `{"max_tokens":5,"container":null,"top_k":null,"metadata":{"user_id":"u","more":null},"messages":[{"role":"user","name":null,"content":[{"type":"text","text":"null","extra":null}]}],
			"tools":[{"name":"f","input_schema":{"default":null},"extra":null}],"thinking":{"type":"enabled","extra":null}}`,
			`{"max_tokens":5,"messages":[{"role":"user","content":"null"}],"user":"u","tools":[{"type":"function","function":{"name":"f","parameters":{"default":null}}}]}`},
		{"blocks", `{"max_tokens":5,"system":[{"type":"text","text":"S","cache_control":{"type":"ephemeral"}},{"type":"text","text":"T"}],
			"messages":[{"role":"user","content":[{"type":"text","text":"a","citations":null},{"type":"text","text":"b"}]},{"role":"user","content":"c"}]}`,
			`{"max_tokens":5,"messages":[{"role":"system","content":[{"type":"text","text":"S"},{"type":"text","text":"T"}]},
			{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"text","text":"c"}]}]}`},
		{"calls", `{"max_tokens":5,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"redacted_thinking","data":"x"},
			{"type":"text","text":"Look."},{"type":"tool_use","id":"t1","name":"f","input":{"a": 1}},{"type":"tool_use","id":"t2","name":"g","input":{}},{"type":"tool_use","id":"t3","name":"g","input":{}}]},
			{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"1"},{"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"no"}],"is_error":true},
			{"type":"tool_result","tool_use_id":"t3"},{"type":"text","text":"and?"}]}]}`,
			`{"max_tokens":5,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"Look.","reasoning_content":"hm","tool_calls":[
			{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},{"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}},{"id":"t3","type":"function","function":{"name":"g","arguments":"{}"}}]},
			{"role":"tool","tool_call_id":"t1","content":"1"},{"role":"tool","tool_call_id":"t2","content":"error: no"},{"role":"tool","tool_call_id":"t3","content":""},{"role":"user","content":"and?"}]}`},
		{"tools", `{"max_tokens":5,"messages":[{"role":"user","content":"q"}],"tools":[{"name":"f","description":"d","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}},{"type":"custom","name":"g","input_schema":{"type":"object"},"strict":true}],
			"tool_choice":{"type":"tool","name":"g","disable_parallel_tool_use":true}}`,
			`{"max_tokens":5,"messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}},{"type":"function","function":{"name":"g","parameters":{"type":"object"},"strict":true}}],
			"tool_choice":{"type":"function","function":{"name":"g"}},"parallel_tool_calls":false}`},
		{"any", `{"max_tokens":5,"messages":[{"role":"user","content":"q"}],"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"any"}}`,
			`{"max_tokens":5,"messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"required"}`},
		{"none", `{"max_tokens":5,"messages":[{"role":"user","content":"q"}],"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"none"}}`,
			`{"max_tokens":5,"messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"none"}`},
		{"schema", `{"max_tokens":5,"messages":[{"role":"user","content":"q"}],"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}}`,
			`{"max_tokens":5,"messages":[{"role":"user","content":"q"}],"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":{"type":"object"},"strict":true}}}`},
		{"prefill", `{"max_tokens":5,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"It is ("}]}`,
			`{"max_tokens":5,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"It is ("}],"continue_final_message":true,"add_generation_prompt":false}`},
		{"empty content", `{"max_tokens":5,"messages":[{"role":"user","content":[]}]}`, `{"max_tokens":5,"messages":[{"role":"user","content":""}]}`},
	} {
		t.Run(tt.name, func(t *testing.T) { wantAsked(t, Messages, "/v1/chat/completions", tt.body, tt.chat) })
	}
}
