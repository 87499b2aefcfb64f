package policy

import "maps"

// elsewhere names the rules of a route that has none of its own: all of them.
const elsewhere = "*"

// tables returns the rules of each route that takes a body, by the name of the
// member. What no rule names is the engine's business: vLLM ignores a field it
// does not know, the ONNX engine refuses it.
func tables() map[string]map[string]rule {
	function := map[string]rule{"name": text(maxNameBytes), "parameters": schema, "input_schema": schema}
	tool := members(merged(function, map[string]rule{"function": members(function)}))
	format := members(map[string]rule{
		"schema": schema, "grammar": schema, "structures": schema, "format": schema, "triggers": texts(maxStops, maxStopBytes),
		"json_schema": members(map[string]rule{"name": text(maxNameBytes), "schema": schema}),
	})
	structured := members(map[string]rule{
		"json": schema, "grammar": schema, "structural_tag": schema, "choice": schema,
		"regex": text(maxRegexBytes), "whitespace_pattern": text(maxRegexBytes),
	})

	all := map[string]rule{ // wherever they stand
		"user": text(maxIDBytes), "safety_identifier": text(maxIDBytes), "prompt_cache_key": text(maxIDBytes),
		"cache_salt": text(maxIDBytes), "metadata": metadata,
	}
	for _, name := range denied() {
		all[name] = deny(name)
	}
	delete(all, "uuid") // means something within a medium only
	all["chat_template_kwargs"] = templateKwargs

	generate := merged(all, map[string]rule{
		"n": answers(1), "best_of": answers(0), // OpenAI allows the best of none
		"max_tokens": tokens(0), "max_completion_tokens": tokens(0), "max_output_tokens": tokens(0), "min_tokens": tokens(0),
		"logprobs": logprobs, "top_logprobs": whole(0, maxLogprobs, ""), "prompt_logprobs": whole(0, maxLogprobs, ""),
		"stop": texts(maxStops, maxStopBytes), "stop_sequences": texts(maxStops, maxStopBytes),
		"stop_token_ids": list(maxTokenIDs), "allowed_token_ids": list(maxTokenIDs), "logprob_token_ids": list(maxTokenIDs),
		"bad_words": texts(maxBadWords, maxStopBytes), "logit_bias": biases,
		"tools": tools(tool), "functions": tools(tool),
		"response_format": format, "structured_outputs": structured,
		"guided_json": schema, "guided_grammar": schema, "guided_choice": schema, "guided_regex": text(maxRegexBytes),
	})
	chat := merged(generate, map[string]rule{"messages": messages, "documents": prompts})
	encode := merged(all, map[string]rule{
		"input": inputs, "messages": messages, "query": inputs, "queries": inputs, "documents": inputs, "items": inputs,
		"text_1": inputs, "text_2": inputs, "data_1": inputs, "data_2": inputs,
	})
	anthropic := merged(chat, map[string]rule{"system": content, "output_config": members(map[string]rule{"format": format})})
	return map[string]map[string]rule{
		elsewhere:              merged(anthropic, encode, map[string]rule{"prompt": prompts}),
		"/v1/chat/completions": chat,
		"/v1/completions":      merged(generate, map[string]rule{"prompt": prompts}),
		"/v1/responses": merged(generate, map[string]rule{
			"input": messages, "include": list(maxIncludes), "text": members(map[string]rule{"format": format}),
		}),
		"/v1/messages":              anthropic,
		"/v1/messages/count_tokens": anthropic,
		"/v1/embeddings":            encode,
		"/v1/rerank":                encode,
		"/v1/score":                 encode,
		"/classify":                 encode,
		"/pooling":                  encode,
		"/tokenize":                 merged(all, map[string]rule{"messages": messages, "tools": tools(tool)}),
		"/detokenize":               all,
	}
}

func merged(tables ...map[string]rule) map[string]rule {
	one := map[string]rule{}
	for _, t := range tables {
		maps.Copy(one, t)
	}
	return one
}
