package onnx

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"maps"
	"math"
	"slices"

	"infer/internal/openai"
)

// fields are the members of a request that nobody has taken yet. What is left
// in the end is refused by name, so that no parameter is silently ignored.
type fields map[string]jsontext.Value

func parseFields(body []byte) (fields, *openai.Error) {
	var f fields
	if err := json.Unmarshal(body, &f); err != nil || f == nil {
		return nil, openai.Invalid("", openai.CodeInvalidJSON, "the body must be one JSON object")
	}
	maps.DeleteFunc(f, func(_ string, v jsontext.Value) bool { return v.Kind() == 'n' })
	return f, nil
}

// take decodes and removes one field; an absent or null one leaves def. want
// says the type in words, for the client.
func take[T any](f fields, name string, def T, want string) (T, *openai.Error) {
	raw, ok := f[name]
	if !ok {
		return def, nil
	}
	delete(f, name)
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return def, openai.Invalid(name, openai.CodeInvalidValue, "%s must be %s", name, want)
	}
	return v, nil
}

// number takes a number within closed bounds.
func (f fields) number(name string, def, low, high float64) (float64, *openai.Error) {
	v, e := take(f, name, def, "a number")
	if e == nil && (v < low || v > high || math.IsNaN(v)) {
		e = openai.Invalid(name, openai.CodeInvalidValue, "%s must be from %v to %v, got %v", name, low, high, v)
	}
	return v, e
}

// integer takes an integer within closed bounds.
func (f fields) integer(name string, def, low, high int) (int, *openai.Error) {
	v, e := take(f, name, def, "an integer")
	if e == nil && (v < low || v > high) {
		e = openai.Invalid(name, openai.CodeInvalidValue, "%s must be from %d to %d, got %d", name, low, high, v)
	}
	return v, e
}

// inert are fields that carry nothing for this engine to do.
var inert = []string{"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
	"prompt_cache_retention", "parallel_tool_calls"}

// harmless are values of fields not implemented here that ask for nothing.
var harmless = map[string][]string{
	"presence_penalty":      {"0", "0.0"},
	"frequency_penalty":     {"0", "0.0"},
	"repetition_penalty":    {"1", "1.0"},
	"min_p":                 {"0", "0.0"},
	"logit_bias":            {"{}"},
	"logprobs":              {"false"},
	"top_logprobs":          {"0"},
	"best_of":               {"1"},
	"echo":                  {"false"},
	"suffix":                {`""`},
	"tools":                 {"[]"},
	"functions":             {"[]"},
	"tool_choice":           {`"none"`, `"auto"`},
	"function_call":         {`"none"`, `"auto"`},
	"response_format":       {`{"type":"text"}`},
	"modalities":            {`["text"]`},
	"min_tokens":            {"0"},
	"ignore_eos":            {"false"},
	"add_generation_prompt": {"true"},
}

// rest refuses what nobody took and what asks for something.
func (f fields) rest() *openai.Error {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		value := f[name]
		_ = value.Compact() // was parsed before
		if slices.Contains(inert, name) || slices.Contains(harmless[name], string(value)) {
			continue
		}
		return openai.Invalid(name, openai.CodeUnsupported, "%s is not supported by the ONNX engine; leave it out", name)
	}
	return nil
}

// Bounds on what one request may ask for.
const (
	maxStops     = 16
	maxStopBytes = 256
	maxChoices   = 128
)

// stops takes a string or a list of strings.
func (f fields) stops() ([]string, *openai.Error) {
	raw, ok := f["stop"]
	if !ok {
		return nil, nil
	}
	if raw.Kind() == '"' {
		f["stop"] = jsontext.Value(fmt.Sprintf("[%s]", raw))
	}
	list, e := take[[]string](f, "stop", nil, "a string or a list of strings")
	switch {
	case e != nil:
		return nil, e
	case len(list) > maxStops:
		return nil, openai.Invalid("stop", openai.CodeInvalidValue, "stop has %d strings, at most %d are allowed", len(list), maxStops)
	}
	for _, s := range list {
		if s == "" || len(s) > maxStopBytes {
			return nil, openai.Invalid("stop", openai.CodeInvalidValue, "a stop string must have 1 to %d bytes, got %d", maxStopBytes, len(s))
		}
	}
	return list, nil
}

// options are what a request says about sampling and streaming, on both routes.
type options struct {
	sampling
	seeded       bool
	n            int
	maxTokens    int    // 0: not given
	maxField     string // the field that gave maxTokens
	stops        []string
	stream       bool
	includeUsage bool
}

// options takes the fields that both routes share.
func (f fields) options(c *genaiConfig) (o options, e *openai.Error) {
	defTemperature, defTopP, defTopK := c.samplingDefaults()
	try := func(err *openai.Error) bool {
		if e == nil {
			e = err
		}
		return e == nil
	}
	var err *openai.Error
	o.temperature, err = f.number("temperature", defTemperature, 0, 2)
	try(err)
	o.topP, err = f.number("top_p", defTopP, 0, 1)
	if try(err) && o.topP == 0 {
		try(openai.Invalid("top_p", openai.CodeInvalidValue, "top_p must be over 0; use temperature 0 for greedy decoding"))
	}
	o.topK, err = f.integer("top_k", defTopK, -1, math.MaxInt32)
	try(err)
	o.topK = max(o.topK, 0)
	_, o.seeded = f["seed"]
	seed, err := take(f, "seed", int64(0), "an integer")
	try(err)
	o.seed = uint64(seed)
	o.n, err = f.integer("n", 1, 1, maxChoices)
	try(err)
	o.stops, err = f.stops()
	try(err)
	try(f.streaming(&o))
	try(f.limits(&o))
	return o, e
}

func (f fields) streaming(o *options) (e *openai.Error) {
	if o.stream, e = take(f, "stream", false, "true or false"); e != nil {
		return e
	}
	so, e := take(f, "stream_options", fields{}, "an object")
	if e != nil {
		return e
	}
	if o.includeUsage, e = take(so, "include_usage", false, "true or false"); e != nil {
		e.Param = "stream_options.include_usage"
		return e
	}
	delete(so, "include_obfuscation")
	for name := range so {
		return openai.Invalid("stream_options."+name, openai.CodeUnsupported, "stream_options.%s is not supported; leave it out", name)
	}
	return nil
}

// limits takes max_completion_tokens and its older name.
func (f fields) limits(o *options) *openai.Error {
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if _, ok := f[name]; !ok {
			continue
		}
		v, e := f.integer(name, 0, 1, math.MaxInt32)
		if e != nil {
			return e
		}
		if o.maxTokens > 0 && o.maxTokens != v {
			return openai.Invalid(name, openai.CodeInvalidValue, "max_tokens and max_completion_tokens differ; give one")
		}
		o.maxTokens, o.maxField = v, name
	}
	return nil
}

// samplingDefaults are the model's own when it was published to be sampled,
// otherwise OpenAI's.
func (c *genaiConfig) samplingDefaults() (temperature, topP float64, topK int) {
	temperature, topP = 1, 1
	s := c.Search
	if !s.DoSample {
		return temperature, topP, 0
	}
	if s.Temperature != nil {
		temperature = *s.Temperature
	}
	if s.TopP != nil && *s.TopP > 0 {
		topP = *s.TopP
	}
	if s.TopK != nil {
		topK = max(*s.TopK, 0)
	}
	return temperature, topP, topK
}
