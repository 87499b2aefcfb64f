// Package translate turns the Responses and Messages protocols into chat
// completions for engines that lack them.
//
// A translator is an http.Handler in front of another one that speaks OpenAI's
// chat completions. It reads the request, asks the chat handler, and rewrites
// what that one writes while it writes it: every chat chunk leaves as events
// of the client's protocol before the next is read. It keeps no state between
// requests and starts no goroutine.
//
// The shapes follow OpenAI's published OpenAPI description 2.3.0 (Responses),
// the Open Responses schema where it is stricter (fields that must not be
// null), and the types of Anthropic's SDK 2.14 (Messages).
//
// A field that is not known is refused by name. What a client asks for and a
// single model cannot mean is accepted and changes nothing:
//
//	Responses  store (but see Turn), include, metadata, user, safety_identifier,
//	           service_tier, max_tool_calls, prompt_cache_key, prompt_cache_retention,
//	           prompt_cache_options, stream_options.include_obfuscation,
//	           reasoning.summary: reasoning is given as it is
//	Messages   cache_control, citations, service_tier, context_management,
//	           thinking.budget_tokens, signatures of thinking,
//	           eager_input_streaming
//
// What chat completions cannot say is put in words: a tool result that is an
// error begins with "error: ".
package translate
