package onnx

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"regexp"
	"strings"

	"infer/internal/openai"
)

// tool is one function that a client offers.
type tool struct {
	raw        jsontext.Value // the whole entry, for the template
	name       string
	parameters jsontext.Value // JSON schema; nil means an object of any kind
}

// toolUse is what a chat says about tools.
type toolUse struct {
	tools    []tool
	choice   string // auto, none, required, or the name of a function with named
	named    bool
	parallel bool
}

// offered are the tools that the model is told of.
func (u *toolUse) offered() []tool {
	if u.choice == "none" {
		return nil
	}
	return u.tools
}

// forced says whether the answer must be calls and nothing else.
func (u *toolUse) forced() bool { return u.named || u.choice == "required" }

// maxTools bounds the tools of one request, as OpenAI does.
const maxTools = 128

// functionName is what OpenAI allows as a function's name.
var functionName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// toolUse takes tools, tool_choice and parallel_tool_calls.
func (f fields) toolUse() (u toolUse, fault *openai.Error) {
	raw, fault := take[[]jsontext.Value](f, "tools", nil, "a list of objects")
	if fault != nil {
		return u, fault
	}
	if len(raw) > maxTools {
		return u, openai.Invalid("tools", openai.CodeInvalidValue, "tools has %d entries, at most %d are allowed", len(raw), maxTools)
	}
	names := map[string]bool{}
	for i, r := range raw {
		t, fault := parseTool(r, fmt.Sprintf("tools[%d]", i))
		if fault != nil {
			return u, fault
		}
		if names[t.name] {
			return u, openai.Invalid(fmt.Sprintf("tools[%d].function.name", i), openai.CodeInvalidValue, "function %q is there twice; give each its own name", t.name)
		}
		names[t.name] = true
		u.tools = append(u.tools, t)
	}
	if u.parallel, fault = take(f, "parallel_tool_calls", true, "true or false"); fault != nil {
		return u, fault
	}
	return u, f.toolChoice(&u, names)
}

func parseTool(raw jsontext.Value, at string) (tool, *openai.Error) {
	var t struct {
		Type     string `json:"type"`
		Function *struct {
			Name       string         `json:"name"`
			Parameters jsontext.Value `json:"parameters"`
		} `json:"function"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return tool{}, openai.Invalid(at, openai.CodeInvalidValue, "%s must be an object with type and function", at)
	}
	switch {
	case t.Type != "function":
		return tool{}, openai.Invalid(at+".type", openai.CodeUnsupported, "%s is of type %q; only function tools are supported", at, t.Type)
	case t.Function == nil:
		return tool{}, openai.Invalid(at+".function", openai.CodeMissingField, "%s.function is required", at)
	case !functionName.MatchString(t.Function.Name):
		return tool{}, openai.Invalid(at+".function.name", openai.CodeInvalidValue, "%s.function.name must be 1 to 64 letters, digits, _ or -", at)
	}
	p := t.Function.Parameters
	if p != nil && p.Kind() == 'n' {
		p = nil
	}
	if p != nil && p.Kind() != '{' {
		return tool{}, openai.Invalid(at+".function.parameters", openai.CodeInvalidValue, "%s.function.parameters must be a JSON schema object", at)
	}
	return tool{raw: raw, name: t.Function.Name, parameters: p}, nil
}

func (f fields) toolChoice(u *toolUse, names map[string]bool) *openai.Error {
	raw, given := f["tool_choice"]
	delete(f, "tool_choice")
	u.choice = "auto"
	if len(u.tools) == 0 {
		u.choice = "none"
	}
	if !given {
		return nil
	}
	var named struct {
		Type     string `json:"type"`
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	var word string
	switch {
	case json.Unmarshal(raw, &word) == nil && (word == "auto" || word == "none" || word == "required"):
		if len(u.tools) == 0 && word == "required" {
			return openai.Invalid("tool_choice", openai.CodeInvalidValue, "tool_choice is required and tools is empty; give the tools")
		}
		if len(u.tools) > 0 {
			u.choice = word
		}
		return nil
	case json.Unmarshal(raw, &named) == nil && named.Type == "function":
		if !names[named.Function.Name] {
			return openai.Invalid("tool_choice", openai.CodeInvalidValue, "tool_choice names the function %q, which is not in tools", named.Function.Name)
		}
		u.choice, u.named = named.Function.Name, true
		return nil
	}
	return openai.Invalid("tool_choice", openai.CodeInvalidValue, `tool_choice must be "auto", "none", "required" or {"type":"function","function":{"name":…}}`)
}

// callFormat is how a family of models writes tool calls: a marker, then one
// object or a list of them, then an end marker. Or, where headed is set, a
// marker, the function's name, perhaps id and the call's id, then headed and
// the arguments.
type callFormat struct {
	open, close string
	id, headed  string
	list        bool   // one JSON list instead of one object a marker
	bare        bool   // an answer that begins with an object is a call too
	arguments   string // the member that holds the arguments
}

// callFormats by the word of the template that gives them away. Source: the
// chat templates that these families publish.
var callFormats = []struct {
	mark string
	callFormat
}{
	{"<tool_call>", callFormat{open: "<tool_call>", close: "</tool_call>", arguments: "arguments"}},                   // Hermes, Qwen
	{"[ARGS]", callFormat{open: "[TOOL_CALLS]", id: "[CALL_ID]", headed: "[ARGS]"}},                                   // Mistral from version 11 on
	{"[TOOL_CALLS]", callFormat{open: "[TOOL_CALLS]", list: true, arguments: "arguments"}},                            // Mistral
	{"<|tool_call|>", callFormat{open: "<|tool_call|>", close: "<|/tool_call|>", list: true, arguments: "arguments"}}, // Phi-4-mini
	{"<|python_tag|>", callFormat{open: "<|python_tag|>", bare: true, arguments: "parameters"}},                       // Llama 3.1
	{`"parameters": dictionary`, callFormat{open: "<|python_tag|>", bare: true, arguments: "parameters"}},             // Llama 3.2
}

// callFormatOf recognises the format of a template. Models whose template knows
// no tools get the first.
func callFormatOf(template string) callFormat {
	for _, f := range callFormats {
		if strings.Contains(template, f.mark) {
			return f.callFormat
		}
	}
	return callFormats[0].callFormat
}

// withToolPrompt explains tools in the system message, in the words of the
// Hermes format, for a template that does not.
func withToolPrompt(messages []message, tools []tool) []message {
	var b strings.Builder
	b.WriteString("You may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>\n")
	for _, t := range tools {
		raw := t.raw.Clone()
		_ = raw.Compact() // was parsed before
		b.Write(raw)
		b.WriteByte('\n')
	}
	b.WriteString("</tools>\n\nFor each function call, return a JSON object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>")
	text := b.String()
	var first string
	if len(messages) > 0 && json.Unmarshal(messages[0]["content"], &first) == nil && isSystem(messages[0]) {
		text = first + "\n\n" + text
		messages = messages[1:]
	}
	content, err := json.Marshal(text)
	if err != nil { // valid UTF-8 always marshals
		return messages
	}
	return append([]message{{"role": jsontext.Value(`"system"`), "content": content}}, messages...)
}

func isSystem(m message) bool {
	role := string(m["role"])
	return role == `"system"` || role == `"developer"`
}
