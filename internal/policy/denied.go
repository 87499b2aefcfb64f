package policy

import (
	"slices"

	"infer/internal/openai"
)

// denied lists the fields that reach past the model into the engine: they run
// templates or load tensors of the client's making, name other servers,
// overtake other callers or read what others cached. The advisories on vLLM
// that they appear in are CVE-2025-61620 and CVE-2025-62426 (templates),
// CVE-2025-62164 (embeddings) and CVE-2025-6242 (URLs).
func denied() []string {
	return []string{
		"chat_template", "chat_template_kwargs", "prompt_embeds", "image_embeds", "audio_embeds", "video_embeds",
		"kv_transfer_params", "ec_transfer_params", "mm_processor_kwargs", "media_io_kwargs", "vllm_xargs", "extra_args",
		"priority", "request_id", "session_id", "data_parallel_rank", "logits_processors", "uuid",
	}
}

// templateArgs are the arguments of chat templates that published models have
// and that can do no more than choose among what the template says: whether and
// how much to think, the date, the size of a picture's description. They may be
// set without --allow-fields, to a boolean, a number or a short string.
func templateArgs() []string {
	return []string{"enable_thinking", "thinking", "thinking_mode", "thinking_budget", "reasoning_effort", "clear_thinking",
		"preserve_thinking", "add_vision_id", "date_string", "current_date", "tools_in_user_message", "keep_all_reasoning"}
}

func (p *Policy) denies(param, name string) *openai.Error {
	if slices.Contains(p.cfg.AllowFields, name) {
		return nil
	}
	return openai.Invalid(param, openai.CodeFieldDenied,
		"%s may not be set by clients of this server; leave it out, or allow it with --allow-fields %s", param, name)
}

// deny refuses a field that is denied and not null.
func deny(name string) rule {
	return func(p *Policy, _ *call, param string, v openai.Value) *openai.Error {
		if v.Absent() {
			return nil
		}
		return p.denies(param, name)
	}
}

// templateKwargs lets the harmless arguments of a template through.
func templateKwargs(p *Policy, _ *call, param string, v openai.Value) *openai.Error {
	const field = "chat_template_kwargs"
	if v.Absent() || slices.Contains(p.cfg.AllowFields, field) {
		return nil
	}
	if v.Kind() != '{' {
		return wrongKind(param, "an object", v)
	}
	for name, arg := range v.Members() {
		at := param + "." + clip(name)
		switch {
		case !slices.Contains(templateArgs(), string(name)):
			return p.denies(at, field)
		case arg.Kind() == '{', arg.Kind() == '[':
			return wrongKind(at, "a boolean, a number or a string", arg)
		case arg.StringBytes() > maxIDBytes:
			return tooLong(at, arg.StringBytes(), maxIDBytes, "")
		}
	}
	return nil
}
