package onnx

import (
	"cmp"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

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
	"prompt_cache_retention"}

// harmless are values of fields not implemented here that ask for nothing.
var harmless = map[string][]string{
	"suffix":                {`""`},
	"functions":             {"[]"},
	"function_call":         {`"none"`, `"auto"`},
	"modalities":            {`["text"]`},
	"add_generation_prompt": {"true"},
	"return_token_strs":     {"false"},
	"use_beam_search":       {"false"},
	"length_penalty":        {"1", "1.0"},
	"skip_special_tokens":   {"true"},
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
	bestOf       int    // sequences run, of which the n best are returned; at least n
	maxTokens    int    // 0: not given, or none with echo
	maxField     string // the field that gave maxTokens
	stops        []string
	includeStop  bool
	ignoreEOS    bool
	echo         bool // return the prompt before the completion
	stream       bool
	includeUsage bool
}

// options takes the fields that both routes share.
func (f fields) options(c *genaiConfig) (o options, fault *openai.Error) {
	defTemperature, defTopP, defTopK := c.samplingDefaults()
	for _, n := range []struct {
		to             *float64
		name           string
		def, low, high float64
	}{
		{&o.temperature, "temperature", defTemperature, 0, 2},
		{&o.topP, "top_p", defTopP, 0, 1},
		{&o.minP, "min_p", 0, 0, 1},
		{&o.presence, "presence_penalty", 0, -2, 2},
		{&o.frequency, "frequency_penalty", 0, -2, 2},
		{&o.repetition, "repetition_penalty", 1, 0, 2},
	} {
		if *n.to, fault = f.number(n.name, n.def, n.low, n.high); fault != nil {
			return o, fault
		}
	}
	for _, n := range []struct {
		to             *int
		name           string
		def, low, high int
	}{
		{&o.topK, "top_k", defTopK, -1, math.MaxInt32},
		{&o.n, "n", 1, 1, maxChoices},
		{&o.minTokens, "min_tokens", 0, 0, math.MaxInt32},
	} {
		if *n.to, fault = f.integer(n.name, n.def, n.low, n.high); fault != nil {
			return o, fault
		}
	}
	for _, b := range []struct {
		to   *bool
		name string
	}{{&o.includeStop, "include_stop_str_in_output"}, {&o.ignoreEOS, "ignore_eos"}} {
		if *b.to, fault = take(f, b.name, false, "true or false"); fault != nil {
			return o, fault
		}
	}
	o.topK, o.bestOf, o.logprobs = max(o.topK, 0), o.n, -1
	fault = cmp.Or(o.check(), f.seed(&o), f.ends(&o, c), f.bias(&o, c), f.streaming(&o), f.limits(&o))
	return o, fault
}

// wantsToken refuses a chat that asks for no token.
func (o *options) wantsToken() *openai.Error {
	if o.maxField != "" && o.maxTokens == 0 {
		return openai.Invalid(o.maxField, openai.CodeInvalidValue, "%s must be at least 1", o.maxField)
	}
	return nil
}

// check refuses values that contradict themselves.
func (o *options) check() *openai.Error {
	switch {
	case o.topP == 0:
		return openai.Invalid("top_p", openai.CodeInvalidValue, "top_p must be over 0; use temperature 0 for greedy decoding")
	case o.repetition == 0:
		return openai.Invalid("repetition_penalty", openai.CodeInvalidValue, "repetition_penalty must be over 0; 1 means none")
	}
	return nil
}

func (f fields) seed(o *options) *openai.Error {
	_, o.seeded = f["seed"]
	seed, fault := take(f, "seed", int64(0), "an integer")
	o.seed = uint64(seed)
	return fault
}

// ends takes what ends a sequence beside the model's own tokens.
func (f fields) ends(o *options, c *genaiConfig) (fault *openai.Error) {
	if o.stops, fault = f.stops(); fault != nil {
		return fault
	}
	ids, fault := take[[]int32](f, "stop_token_ids", nil, "a list of token ids")
	switch {
	case fault != nil:
		return fault
	case len(ids) > maxStops:
		return openai.Invalid("stop_token_ids", openai.CodeInvalidValue, "stop_token_ids has %d ids, at most %d are allowed", len(ids), maxStops)
	}
	if fault := c.knownTokens("stop_token_ids", ids); fault != nil {
		return fault
	}
	o.sampling.ends = ids
	if !o.ignoreEOS {
		o.sampling.ends = append(ids, c.Model.EOS...)
	}
	return nil
}

// maxBiases is how many tokens one request may bias; OpenAI allows as many.
const maxBiases = 1024

// bias takes logit_bias: token ids as strings, values from -100 to 100.
func (f fields) bias(o *options, c *genaiConfig) *openai.Error {
	m, fault := take(f, "logit_bias", map[string]float32{}, "an object of token ids and numbers")
	if fault != nil {
		return fault
	}
	if len(m) > maxBiases {
		return openai.Invalid("logit_bias", openai.CodeInvalidValue, "logit_bias has %d tokens, at most %d are allowed", len(m), maxBiases)
	}
	o.sampling.bias = map[int32]float32{}
	for key, v := range m {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil {
			return openai.Invalid("logit_bias", openai.CodeInvalidValue, "logit_bias holds %q, which is no token id", key)
		}
		if fault := c.knownTokens("logit_bias", []int32{int32(id)}); fault != nil {
			return fault
		}
		if v < -100 || v > 100 {
			return openai.Invalid("logit_bias", openai.CodeInvalidValue, "logit_bias of token %d must be from -100 to 100, got %v", id, v)
		}
		o.sampling.bias[int32(id)] = v
	}
	return nil
}

// maxLogprobs is how many alternatives may be asked for.
const maxLogprobs = 20

// chatLogprobs takes logprobs and top_logprobs as the chat route has them.
func (f fields) chatLogprobs(o *options) *openai.Error {
	want, fault := take(f, "logprobs", false, "true or false")
	if fault != nil {
		return fault
	}
	_, given := f["top_logprobs"]
	n, fault := f.integer("top_logprobs", 0, 0, maxLogprobs)
	switch {
	case fault != nil:
		return fault
	case want:
		o.logprobs = n
	case given && n > 0:
		return openai.Invalid("top_logprobs", openai.CodeInvalidValue, "top_logprobs needs logprobs to be true")
	}
	return nil
}

// completionExtras takes what only the completions route has.
func (f fields) completionExtras(o *options) (fault *openai.Error) {
	if _, ok := f["logprobs"]; ok {
		if o.logprobs, fault = f.integer("logprobs", 0, 0, maxLogprobs); fault != nil {
			return fault
		}
	}
	if o.bestOf, fault = f.integer("best_of", o.n, 1, maxChoices); fault != nil {
		return fault
	}
	if o.echo, fault = take(f, "echo", false, "true or false"); fault != nil {
		return fault
	}
	switch {
	case o.bestOf < o.n:
		return openai.Invalid("best_of", openai.CodeInvalidValue, "best_of must be at least n = %d, got %d", o.n, o.bestOf)
	case o.bestOf > o.n && o.stream:
		return openai.Invalid("best_of", openai.CodeInvalidValue, "best_of over n cannot be streamed; set stream to false")
	case o.maxTokens == 0 && o.maxField != "" && !o.echo:
		return openai.Invalid(o.maxField, openai.CodeInvalidValue, "%s must be at least 1, or echo true", o.maxField)
	}
	return nil
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
		v, e := f.integer(name, 0, 0, math.MaxInt32)
		if e != nil {
			return e
		}
		if o.maxField != "" && o.maxTokens != v {
			return openai.Invalid(name, openai.CodeInvalidValue, "max_tokens and max_completion_tokens differ; give one")
		}
		o.maxTokens, o.maxField = v, name
	}
	if o.maxField != "" && o.minTokens > o.maxTokens {
		return openai.Invalid("min_tokens", openai.CodeInvalidValue, "min_tokens is %d, over %s = %d", o.minTokens, o.maxField, o.maxTokens)
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
