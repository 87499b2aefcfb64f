package onnx

import (
	"encoding/json/v2"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

const weatherTools = `"tools":[{"type":"function","function":{"name":"get_weather","description":"Weather of a city",
	"parameters":{"type":"object","properties":{"city":{"type":"string","maxLength":20},"unit":{"enum":["c","f"]}},"required":["city","unit"],"additionalProperties":false}}},
	{"type":"function","function":{"name":"now"}}]`

type weather struct {
	City *string `json:"city"`
	Unit string  `json:"unit"`
}

// checkCalls holds that calls name given functions and that their arguments
// are what the functions take.
func checkCalls(t *testing.T, what string, calls []toolCall) {
	t.Helper()
	if len(calls) == 0 {
		t.Errorf("%s: no call", what)
	}
	for _, c := range calls {
		var w weather
		err := json.Unmarshal([]byte(c.Function.Arguments), &w, json.RejectUnknownMembers(c.Function.Name == "get_weather"))
		switch {
		case c.ID == "" || c.Type != "function":
			t.Errorf("%s: call %+v without id or type", what, c)
		case err != nil:
			t.Errorf("%s: arguments %q: %v", what, c.Function.Arguments, err)
		case c.Function.Name == "get_weather" && (w.City == nil || w.Unit != "c" && w.Unit != "f"):
			t.Errorf("%s: arguments %q", what, c.Function.Arguments)
		case c.Function.Name != "get_weather" && c.Function.Name != "now":
			t.Errorf("%s: function %q", what, c.Function.Name)
		}
	}
}

// forcedCalls asks for calls at a temperature at which the model alone would
// write nonsense.
func forcedCalls(t *testing.T, srv *httptest.Server) {
	const ask = `{"messages":[{"role":"system","content":"Be quick."},{"role":"user","content":"Weather in Oslo?"}],"temperature":1.5,"max_tokens":400,"seed":%d,"tool_choice":%s,"stream":%v,"parallel_tool_calls":%v,` + weatherTools + `}`
	named := `{"type":"function","function":{"name":"get_weather"}}`
	for seed := range 4 {
		_, a := post(t, srv, "/v1/chat/completions", fmt.Sprintf(ask, seed, named, false, true))
		if c := a.Choices[0]; *c.FinishReason == finishLength {
			continue // the model filled its tokens: nothing can be complete
		} else if *c.FinishReason != finishCalls || len(c.Message.ToolCalls) != 1 || c.Message.ToolCalls[0].Function.Name != "get_weather" || c.Message.Content != "" {
			t.Errorf("named: %+v (%s)", c.Message, *c.FinishReason)
		} else {
			checkCalls(t, "named", c.Message.ToolCalls)
		}
		_, a = post(t, srv, "/v1/chat/completions", fmt.Sprintf(ask, seed, `"required"`, false, false))
		if c := a.Choices[0]; *c.FinishReason != finishLength {
			checkCalls(t, "required", c.Message.ToolCalls)
			if len(c.Message.ToolCalls) != 1 {
				t.Errorf("not parallel: %d calls", len(c.Message.ToolCalls))
			}
		}
	}
	var calls []toolCall
	finish := ""
	for _, e := range events(t, srv, "/v1/chat/completions", fmt.Sprintf(ask, 1, named, true, true)) {
		c := e.Choices[0]
		for _, d := range c.Delta.ToolCalls {
			if *d.Index == len(calls) {
				calls = append(calls, d)
			} else if d.ID != "" || d.Type != "" || d.Function.Name != "" {
				t.Errorf("a later delta repeats the head: %+v", d)
			} else {
				calls[*d.Index].Function.Arguments += d.Function.Arguments
			}
		}
		if c.FinishReason != nil {
			finish = *c.FinishReason
		}
	}
	if finish == finishCalls {
		checkCalls(t, "streamed", calls)
	} else if finish != finishLength {
		t.Errorf("streamed calls finish with %q", finish)
	}
}

// structuredOutputs holds every answer to what was asked, at a temperature at
// which the model alone would not.
func structuredOutputs(t *testing.T, srv *httptest.Server) {
	const ask = `{"messages":[{"role":"user","content":"Describe a person."}],"temperature":1.4,"max_tokens":300,"seed":%d,%s}`
	schema := `{"type":"object","properties":{"name":{"type":"string","maxLength":12},"age":{"type":"integer","minimum":0,"maximum":120},"tags":{"type":"array","items":{"enum":["a","b"]},"maxItems":3}},"required":["name","age"],"additionalProperties":false}`
	for seed := range 5 {
		for what, tc := range map[string]struct {
			field string
			ok    func(string) bool
		}{
			"json_schema": {`"response_format":{"type":"json_schema","json_schema":{"name":"p","strict":true,"schema":` + schema + `}}`, func(s string) bool {
				var p struct {
					Name *string  `json:"name"`
					Age  *int     `json:"age"`
					Tags []string `json:"tags"`
				}
				return json.Unmarshal([]byte(s), &p, json.RejectUnknownMembers(true)) == nil && p.Name != nil && p.Age != nil && *p.Age >= 0 && *p.Age <= 120 && len(p.Tags) <= 3
			}},
			"regex":  {`"structured_outputs":{"regex":"[A-Z][a-z]{2,6} is [0-9]{1,2}"}`, regexp.MustCompile(`^[A-Z][a-z]{2,6} is [0-9]{1,2}$`).MatchString},
			"choice": {`"structured_outputs":{"choice":["young","old","of middle age"]}`, regexp.MustCompile(`^(young|old|of middle age)$`).MatchString},
			"json":   {`"structured_outputs":{"json":` + schema + `}`, func(s string) bool { return strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") }},
		} {
			_, a := post(t, srv, "/v1/chat/completions", fmt.Sprintf(ask, seed, tc.field))
			if len(a.Choices) == 0 {
				t.Fatalf("%s: %+v", what, a.Error)
			}
			if c := a.Choices[0]; *c.FinishReason != finishLength && !tc.ok(c.Message.Content) {
				t.Errorf("%s, seed %d: %q (%s)", what, seed, c.Message.Content, *c.FinishReason)
			} else if c.StopReason != nil {
				t.Errorf("%s, seed %d: stop reason %v, want none", what, seed, c.StopReason)
			}
		}
	}
	status, a := post(t, srv, "/v1/chat/completions", fmt.Sprintf(ask, 1, `"response_format":{"type":"json_object"},"stop":["}"],"include_stop_str_in_output":true`))
	if c := a.Choices[0]; status != http.StatusOK || !strings.HasPrefix(c.Message.Content, "{") {
		t.Errorf("json_object: %d %q", status, c.Message.Content)
	}
}

// toolPrompt holds that the model is told of tools although its template knows
// none, and not told when it may not call.
func toolPrompt(t *testing.T, srv *httptest.Server) {
	prompt := func(choice string) string {
		_, a := post(t, srv, "/tokenize", `{"messages":[{"role":"user","content":"hi"}],"tool_choice":"`+choice+`",`+weatherTools+`}`)
		_, b := post(t, srv, "/detokenize", fmt.Sprintf(`{"tokens":%s}`, strings.ReplaceAll(fmt.Sprint(a.Tokens), " ", ",")))
		return b.Prompt
	}
	if got := prompt("auto"); !strings.Contains(got, `"name":"get_weather"`) || strings.Index(got, `"city"`) > strings.Index(got, `"unit"`) {
		t.Errorf("prompt with tools: %q", got)
	}
	if got := prompt("none"); strings.Contains(got, "get_weather") {
		t.Errorf("prompt without tools: %q", got)
	}
	status, a := post(t, srv, "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"},
		{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"now","arguments":"{\"a\":1}"}}]},
		{"role":"tool","tool_call_id":"c1","content":"noon"}],"max_tokens":2,`+weatherTools+`}`)
	if status != http.StatusOK {
		t.Errorf("a chat with a past call: %d %+v", status, a.Error)
	}
}

func structureRefusals(t *testing.T, srv *httptest.Server) {
	chat := func(more string) string { return `{"messages":[{"role":"user","content":"hi"}],` + more + `}` }
	tool := func(function string) string { return chat(`"tools":[{"type":"function","function":` + function + `}]`) }
	schema := func(s string) string {
		return chat(`"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":` + s + `}}`)
	}
	for _, tc := range []struct{ body, param, code string }{
		{chat(`"tools":{}`), "tools", "invalid_value"},
		{chat(`"tools":[7]`), "tools[0]", "invalid_value"},
		{chat(`"tools":[{"type":"web_search"}]`), "tools[0].type", "unsupported_parameter"},
		{chat(`"tools":[{"type":"function"}]`), "tools[0].function", "missing_field"},
		{tool(`{"name":"a b"}`), "tools[0].function.name", "invalid_value"},
		{tool(`{"name":"a","parameters":[]}`), "tools[0].function.parameters", "invalid_value"},
		{chat(`"tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"a"}}]`), "tools[1].function.name", "invalid_value"},
		{chat(`"tool_choice":"required"`), "tool_choice", "invalid_value"},
		{chat(`"tool_choice":"any",` + weatherTools), "tool_choice", "invalid_value"},
		{chat(`"tool_choice":{"type":"function","function":{"name":"g"}},` + weatherTools), "tool_choice", "invalid_value"},
		{chat(`"tool_choice":"required","response_format":{"type":"json_object"},` + weatherTools), "tool_choice", "invalid_value"},
		{chat(`"tool_choice":"required","tools":[{"type":"function","function":{"name":"a","parameters":{"type":"object","properties":{"x":{"not":{}}}}}}]`), "tools[0].function.parameters", "unsupported_parameter"},
		{chat(`"response_format":"json"`), "response_format", "invalid_value"},
		{chat(`"response_format":{"type":"xml"}`), "response_format.type", "invalid_value"},
		{chat(`"response_format":{"type":"json_schema"}`), "response_format.json_schema", "missing_field"},
		{schema(`{"type":"object","properties":{"a":{"multipleOf":3}}}`), "response_format.json_schema.schema", "unsupported_parameter"},
		{schema(`{"type":"strange"}`), "response_format.json_schema.schema", "invalid_value"},
		{schema(strings.Repeat(`{"type":"array","items":`, 500) + `{}` + strings.Repeat(`}`, 500)), "response_format.json_schema.schema", "invalid_value"},
		{chat(`"response_format":{"type":"json_object"},"min_tokens":5`), "min_tokens", "invalid_value"},
		{chat(`"structured_outputs":{"regex":"(a"}`), "structured_outputs.regex", "invalid_value"},
		{chat(`"structured_outputs":{"regex":"(a{1000}){1000}"}`), "structured_outputs.regex", "invalid_value"},
		{chat(`"structured_outputs":{"choice":[]}`), "structured_outputs.choice", "invalid_value"},
		{chat(`"structured_outputs":{"grammar":"root ::= x"}`), "structured_outputs.grammar", "unsupported_parameter"},
		{chat(`"structured_outputs":{"regex":"a","choice":["b"]}`), "structured_outputs", "invalid_value"},
		{chat(`"structured_outputs":{"regex":"a"},"response_format":{"type":"json_object"}`), "structured_outputs", "invalid_value"},
	} {
		status, a := post(t, srv, "/v1/chat/completions", tc.body)
		if a.Error == nil || a.Error.Code == nil || a.Error.Param == nil {
			t.Errorf("%.120s: %d %+v, want an error about %s", tc.body, status, a, tc.param)
			continue
		}
		if status != http.StatusBadRequest || *a.Error.Code != tc.code || *a.Error.Param != tc.param {
			t.Errorf("%.120s: %d %s %s %q, want 400 %s %s", tc.body, status, *a.Error.Code, *a.Error.Param, a.Error.Message, tc.code, tc.param)
		}
	}
}
