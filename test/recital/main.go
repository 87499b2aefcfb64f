// Command recital writes tiny GGUF models into a folder, which call tools and
// think of their own choice: recital FOLDER. Each is a family of models with
// its way to write calls. What a model says is fixed; its chat template
// chooses a text by what the prompt holds.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"infer/internal/engine/onnx/gguf/gguftest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: recital FOLDER")
		os.Exit(64)
	}
	for name, r := range recitals() {
		if err := r.File().Write(filepath.Join(os.Args[1], name+".gguf")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func recitals() map[string]gguftest.Recital {
	return map[string]gguftest.Recital{
		"qwen": qwen(), "thinker": thinker(), "mistral": mistral(), "mistral11": mistral11(), "llama": llama(), "phi": phi(),
	}
}

// report is what every model says once it has the weather; answer looks for it
// in the tools' results, and for the call's arguments as an object.
const (
	report = "It is sunny in Paris."
	sunny  = "<|sunny|>"
	answer = "{% set last = messages[-1] %}{% set past = namespace(city='', results='') %}{% for m in messages %}" +
		"{% if m.tool_calls %}{% set past.city = m.tool_calls[0].function.arguments.city %}" +
		"{% elif m.role == 'tool' %}{% set past.results = past.results + m.content %}{% endif %}{% endfor %}" +
		"{% if last.role == 'tool' and 'sunny' in past.results and past.city == 'Paris' %}" + sunny
)

// qwen writes calls as Qwen and Hermes do, and thinks unless it is told not to.
func qwen() gguftest.Recital {
	paris := "<tool_call>\n" + `{"name": "get_weather", "arguments": {"city": "Paris"}}` + "\n</tool_call>"
	return gguftest.Recital{
		Template: `{% if tools %}<|im_start|>system
{% for t in tools %}{{ t | tojson }}
{% endfor %}Write <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
` + answer + `{% elif 'sum' in last.content and enable_thinking is defined and not enable_thinking %}<think>

</think>

<|sum|>{% elif 'sum' in last.content %}<|thoughtful sum|>{% elif not tools %}<|helpless|>{% elif 'ponder' in last.content %}<|ponder|>{% elif 'both' in last.content %}<|both|>{% elif 'broken' in last.content %}<|broken|>{% else %}<|call|>{% endif %}`,
		Texts: map[string]string{
			sunny:                report,
			"<|call|>":           paris,
			"<|both|>":           "I will look at both.\n" + paris + "\n" + `<tool_call>{"name": "get_time", "arguments": {}}</tool_call>`,
			"<|broken|>":         `<tool_call>{"name": get_weather}</tool_call>`,
			"<|ponder|>":         "<think>\nParis, then.\n</think>\n\n" + paris,
			"<|helpless|>":       "I have no tool for that: é🙂.",
			"<|sum|>":            "Seven.",
			"<|thoughtful sum|>": "<think>\nFive and two make seven.\n</think>\n\nIt is seven.",
		},
	}
}

// thinker begins every answer inside its thoughts, which its template opened,
// and has control tokens around them.
func thinker() gguftest.Recital {
	return gguftest.Recital{
		Template: `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
<think>`,
		Control: []string{"</think>"},
		Texts:   map[string]string{"<think>": "\nTwo and two.\n</think>\n\nFour."},
	}
}

// The others write a call behind a marker, which mostly is a control token.

func mistral() gguftest.Recital {
	return caller("[TOOL_CALLS]",
		`[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time", "arguments": {}}]`,
		"[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]",
		"[TOOL_CALLS]{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}")
}

// mistral11 spells its markers in letters: each control token has one place,
// and it calls twice.
func mistral11() gguftest.Recital {
	r := caller("", `[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_time[ARGS]{}`,
		"[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]",
		"{% for c in m.tool_calls %}[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}")
	r.Control = nil
	return r
}

func llama() gguftest.Recital {
	return caller("<|python_tag|>",
		`<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "get_time", "parameters": {}}`,
		`Answer with {"name": ..., "parameters": ...}: {{ tools | tojson }}`,
		`{% for c in m.tool_calls %}<|python_tag|>{{ c.function | tojson }}{% endfor %}`)
}

func phi() gguftest.Recital {
	return caller("<|tool_call|>",
		`<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time", "arguments": {}}]<|/tool_call|>`,
		"<|tool|>{{ tools | tojson }}<|/tool|>",
		"<|tool_call|>{{ m.tool_calls | tojson }}<|/tool_call|>")
}

// caller is a model that calls two tools and tells the result of the first.
func caller(mark, calls, tools, past string) gguftest.Recital {
	control := []string{mark}
	if mark == "<|tool_call|>" {
		control = append(control, "<|/tool_call|>")
	}
	return gguftest.Recital{
		Template: "{% if tools %}" + tools + "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n" +
			"{% if m.tool_calls %}" + past + "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n" +
			answer + "{% elif tools %}<|call|>{% else %}<|helpless|>{% endif %}",
		Control: control,
		Texts:   map[string]string{sunny: report, "<|call|>": calls, "<|helpless|>": "I cannot look that up."},
	}
}
