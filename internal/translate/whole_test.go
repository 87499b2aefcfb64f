package translate

import (
	"net/http"
	"strings"
	"testing"
)

const wholeTools = `{"created":1700000000,"model":"m","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":"Look.","reasoning_content":"hm",
	"tool_calls":[{"id":"call_a","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},{"id":"","type":"function","function":{"name":"g","arguments":""}}]}}],
	"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"prompt_tokens_details":null,"completion_tokens_details":{"reasoning_tokens":2}}}`

func TestWholeResponse(t *testing.T) {
	w := post(Responses(answering(http.StatusOK, wholeTools)), `{"model":"m","input":"q","instructions":"I","tools":[{"type":"function","name":"f"}],"tool_choice":"none","temperature":0.5,
		"reasoning":{"effort":"low"},"metadata":{"k":"v"},"store":true,"text":{"format":{"type":"json_schema","name":"n","schema":{}}}}`)
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	wantJSON(t, settled(w.Body.String()), `{"id":"resp_ID","object":"response","created_at":1700000000,"completed_at":0,"status":"completed","background":false,"error":null,"incomplete_details":null,
		"instructions":"I","max_output_tokens":null,"max_tool_calls":null,"model":"m","output":[
		{"id":"rs_ID","type":"reasoning","status":"completed","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
		{"id":"msg_ID","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Look.","annotations":[],"logprobs":[]}]},
		{"id":"fc_ID","type":"function_call","status":"completed","call_id":"call_a","name":"f","arguments":"{\"a\": 1}"},
		{"id":"fc_ID","type":"function_call","status":"completed","call_id":"call_ID","name":"g","arguments":""}],
		"parallel_tool_calls":true,"presence_penalty":0,"frequency_penalty":0,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{"effort":"low","summary":null},
		"safety_identifier":null,"service_tier":"default","store":false,"temperature":0.5,"text":{"format":{"type":"json_schema","name":"n","description":null,"schema":{},"strict":false}},"tool_choice":"none",
		"tools":[{"type":"function","name":"f","description":null,"parameters":null,"strict":null}],"top_logprobs":0,"top_p":1,"truncation":"disabled",
		"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":13},"user":null,"metadata":{"k":"v"}}`)
}

func TestWholeMessage(t *testing.T) {
	body := strings.Replace(askMessage, `"stream":true`, `"stream":false`, 1)
	w := post(Messages(answering(http.StatusOK, wholeTools)), body)
	wantJSON(t, settled(w.Body.String()), `{"id":"msg_ID","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"Look."},
		{"type":"tool_use","id":"call_a","name":"f","input":{"a":1}},{"type":"tool_use","id":"toolu_ID","name":"g","input":{}}],"stop_reason":"tool_use","stop_sequence":null,
		"usage":{"input_tokens":9,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":4}}`)
	muted := post(Messages(answering(http.StatusOK, wholeTools)), strings.Replace(body, `"max_tokens"`, `"thinking":{"type":"disabled"},"max_tokens"`, 1))
	if strings.Contains(muted.Body.String(), "hm") {
		t.Errorf("disabled thinking is told: %s", muted.Body)
	}
}

// Why a chat ended, in the words of both protocols.
func TestEnds(t *testing.T) {
	for _, tt := range []struct{ choice, responses, messages string }{
		{`"finish_reason":"stop"`, `"status":"completed"`, `"stop_reason":"end_turn","stop_sequence":null`},
		{`"finish_reason":"stop","stop_reason":null`, `"status":"completed"`, `"stop_reason":"end_turn","stop_sequence":null`},
		{`"finish_reason":"stop","stop_reason":151645`, `"status":"completed"`, `"stop_reason":"end_turn","stop_sequence":null`},
		{`"finish_reason":"stop","stop_reason":"\n"`, `"status":"completed"`, `"stop_reason":"stop_sequence","stop_sequence":"\n"`},
		{`"finish_reason":"length"`, `"incomplete_details":{"reason":"max_output_tokens"}`, `"stop_reason":"max_tokens","stop_sequence":null`},
		{`"finish_reason":"content_filter"`, `"incomplete_details":{"reason":"content_filter"}`, `"stop_reason":"refusal","stop_sequence":null`},
	} {
		chat := `{"model":"m","choices":[{"message":{"content":"x"},` + tt.choice + `}]}`
		if got := post(Responses(answering(200, chat)), `{"input":"q"}`).Body.String(); !strings.Contains(got, tt.responses) {
			t.Errorf("%s: %s", tt.choice, got)
		}
		if got := post(Messages(answering(200, chat)), strings.Replace(askMessage, `,"stream":true`, "", 1)).Body.String(); !strings.Contains(got, tt.messages) {
			t.Errorf("%s: %s", tt.choice, got)
		}
	}
}

// Arguments that are no object cannot be told as a block's input.
func TestBrokenArguments(t *testing.T) {
	chat := func(finish string) *fakeChat {
		return answering(200, `{"model":"m","choices":[{"message":{"tool_calls":[{"id":"t","function":{"name":"f","arguments":"{\"a\":"}}]},"finish_reason":"`+finish+`"}]}`)
	}
	body := strings.Replace(askMessage, `,"stream":true`, "", 1)
	if w := post(Messages(chat("tool_calls")), body); w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), "arguments that are no JSON object") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := post(Messages(chat("length")), body); w.Code != 200 || !strings.Contains(w.Body.String(), `"input":{}`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// An engine may stream where a whole answer was asked for, and the reverse.
func TestTheOtherForm(t *testing.T) {
	w := post(Messages(streaming(t, "text.sse")), strings.Replace(askMessage, `,"stream":true`, "", 1))
	if got := w.Body.String(); w.Code != 200 || !strings.Contains(got, `"content":[{"type":"text","text":"Hello`) {
		t.Errorf("%d %s", w.Code, got)
	}
	w = post(Messages(answering(200, okAnswer)), askMessage)
	if got := w.Body.String(); !strings.HasPrefix(got, "event: message_start\n") || !strings.HasSuffix(got, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n") {
		t.Errorf("%s", got)
	}
}

func TestCountTokens(t *testing.T) {
	body := `{"model":"m","system":"S","messages":[{"role":"user","content":"q"}],"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"any"},"thinking":{"type":"enabled","budget_tokens":1024}}`
	chat := answering(200, `{"count":12,"max_model_len":4096,"tokens":[1]}`)
	w := post(CountTokens(chat), body)
	if w.Code != 200 || w.Body.String() != `{"input_tokens":12}` || chat.path != "/tokenize" {
		t.Errorf("%s: %d %s", chat.path, w.Code, w.Body)
	}
	wantJSON(t, chat.asked, `{"model":"m","messages":[{"role":"system","content":"S"},{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]}`)
	for _, tt := range []struct {
		chat   *fakeChat
		status int
		want   string
	}{
		{answering(400, `{"error":{"message":"no tools","type":"invalid_request_error","param":"tools","code":"unsupported_parameter"}}`), 400, "no tools"},
		{answering(200, `{"n":1}`), 502, "counted in an unknown way"},
		{&fakeChat{abort: true}, 502, "the engine answered Bad Gateway"},
	} {
		if w := post(CountTokens(tt.chat), body); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%d %s, want %d %s", w.Code, w.Body, tt.status, tt.want)
		}
	}
	wantRefused(t, CountTokens, `{"max_tokens":1}`, `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens is not supported here; leave it out"},"request_id":"req"}`)
}
