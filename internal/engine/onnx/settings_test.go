package onnx

import (
	"encoding/json/v2"
	"testing"

	"infer/internal/openai"
)

const (
	qwenSwitch    = `{%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}`
	graniteSwitch = `{%- if thinking %}Think first.{% endif %}`
	gptOSSSwitch  = `Reasoning: {{ reasoning_effort }}{% if message.thinking is defined %}x{% endif %}`
	noSwitch      = `{{ '<thinking>' }}{{ message.thinking }}thinking{{ messages }}`
)

func TestSettings(t *testing.T) {
	for _, tc := range []struct{ name, template, body, want string }{
		{"nothing", qwenSwitch, `{}`, `{}`},
		{"no effort", qwenSwitch, `{"reasoning_effort":"none"}`, `{"enable_thinking":false}`},
		{"effort", qwenSwitch, `{"reasoning_effort":"low"}`, `{"enable_thinking":true}`},
		{"other name", graniteSwitch, `{"reasoning_effort":"none"}`, `{"thinking":false}`},
		{"degrees", gptOSSSwitch, `{"reasoning_effort":"high"}`, `{"reasoning_effort":"high"}`},
		{"a hint without a switch", noSwitch, `{"reasoning_effort":"high","verbosity":"low"}`, `{}`},
		{"verbosity", `{{ verbosity }}`, `{"verbosity":"low"}`, `{"verbosity":"low"}`},
		{"the client's own variable wins", qwenSwitch, `{"reasoning_effort":"high","chat_template_kwargs":{"enable_thinking":false}}`, `{"enable_thinking":false}`},
		{"a variable of the template", `{{ date_string }}`, `{"chat_template_kwargs":{"date_string":"today"}}`, `{"date_string":"today"}`},
		{"a variable that asks for nothing", noSwitch, `{"chat_template_kwargs":{"enable_thinking":false,"documents":null}}`, `{}`},
	} {
		f, fault := parseFields([]byte(tc.body))
		if fault != nil {
			t.Fatal(fault)
		}
		s, fault := f.settings(&chatTemplate{source: tc.template})
		if fault != nil {
			t.Errorf("%s: %s", tc.name, fault.Message)
			continue
		}
		got, err := json.Marshal(s, json.Deterministic(true))
		if err != nil || string(got) != tc.want || len(f) > 0 {
			t.Errorf("%s: got %s, left %v, %v; want %s", tc.name, got, f, err, tc.want)
		}
	}
}

func TestSettingsRefusals(t *testing.T) {
	for _, tc := range []struct{ body, param, code string }{
		{`{"reasoning_effort":"some"}`, "reasoning_effort", openai.CodeInvalidValue},
		{`{"reasoning_effort":3}`, "reasoning_effort", openai.CodeInvalidValue},
		{`{"verbosity":"loud"}`, "verbosity", openai.CodeInvalidValue},
		{`{"chat_template_kwargs":[]}`, "chat_template_kwargs", openai.CodeInvalidValue},
		{`{"chat_template_kwargs":{"documents":[]}}`, "chat_template_kwargs.documents", openai.CodeUnsupported},
		{`{"chat_template_kwargs":{"messages":[]}}`, "chat_template_kwargs.messages", openai.CodeUnsupported},
	} {
		f, fault := parseFields([]byte(tc.body))
		if fault != nil {
			t.Fatal(fault)
		}
		_, fault = f.settings(&chatTemplate{source: noSwitch})
		if fault == nil || fault.Param != tc.param || fault.Code != tc.code {
			t.Errorf("%s: %+v, want %s about %s", tc.body, fault, tc.code, tc.param)
		}
	}
}
