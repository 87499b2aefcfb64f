package onnx

import (
	"encoding/json/jsontext"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"infer/internal/openai"
)

// settings are what a request gives to the chat template beside its messages
// and tools, by the template's names.
type settings map[string]jsontext.Value

// efforts are how much a model may be asked to think, in OpenAI's words and
// Anthropic's.
var efforts = []string{"none", "minimal", "low", "medium", "high", "xhigh", "max"}

// verbosities are how much OpenAI's clients may ask a model to say.
var verbosities = []string{"low", "medium", "high"}

// ownVariables are the template's variables that are not a client's to set.
var ownVariables = []string{"messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"}

// thinkingVariable finds a variable named thinking in a template's tags, which
// is no attribute and not a part of a text.
var thinkingVariable = regexp.MustCompile(`\{[%{][^{}]*[^.\w'"<>/{}]thinking\b`)

// switches are the names under which templates let a model think or not.
func (t *chatTemplate) switches() []string {
	var names []string
	if strings.Contains(t.source, "enable_thinking") { // Qwen 3 and most after it
		names = append(names, "enable_thinking")
	}
	if thinkingVariable.MatchString(t.source) { // DeepSeek 3.1, Granite
		names = append(names, "thinking")
	}
	return names
}

// settings takes reasoning_effort, verbosity and vLLM's chat_template_kwargs.
// Effort and verbosity are hints: where the template has no switch for them,
// they change nothing.
func (f fields) settings(t *chatTemplate) (settings, *openai.Error) {
	s := settings{}
	effort, fault := f.word("reasoning_effort", efforts)
	if fault != nil {
		return nil, fault
	}
	verbosity, fault := f.word("verbosity", verbosities)
	if fault != nil {
		return nil, fault
	}
	for name, value := range map[string]string{"reasoning_effort": effort, "verbosity": verbosity} {
		if value != "" && strings.Contains(t.source, name) {
			s[name] = jsontext.Value(`"` + value + `"`)
		}
	}
	if effort != "" {
		for _, name := range t.switches() {
			s[name] = jsontext.Value(fmt.Sprint(effort != "none"))
		}
	}
	given, fault := take(f, "chat_template_kwargs", settings{}, "an object")
	if fault != nil {
		return nil, fault
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		at := "chat_template_kwargs." + name
		switch value := given[name]; {
		case slices.Contains(ownVariables, name):
			return nil, openai.Invalid(at, openai.CodeUnsupported, "%s is not a client's to set; leave it out", at)
		case strings.Contains(t.source, name):
			s[name] = value
		case value.Kind() == 'f' || value.Kind() == 'n': // it asks for nothing
		default:
			return nil, openai.Invalid(at, openai.CodeUnsupported, "the chat template of this model has no %s; leave it out", name)
		}
	}
	return s, nil
}

// word takes a string that must be one of the words, or nothing.
func (f fields) word(name string, words []string) (string, *openai.Error) {
	word, fault := take(f, name, "", "a string")
	if fault == nil && word != "" && !slices.Contains(words, word) {
		fault = openai.Invalid(name, openai.CodeInvalidValue, "%s must be one of %s", name, strings.Join(words, ", "))
	}
	return word, fault
}
