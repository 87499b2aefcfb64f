package policy

import "time"

// Limits that have no flag; the README lists them all. None of them stands in the way of a client that
// is known; each bounds what one request can cost a process that parses,
// copies or compiles what it names.
const (
	maxSequences  = 4096  // prompts × n of one request
	maxMessages   = 4096  // messages of a chat, items of an input
	maxParts      = 16384 // objects within the messages: content parts, calls
	maxLogprobs   = 20    // logprobs, top_logprobs, prompt_logprobs; OpenAI's and vLLM's own
	maxStops      = 16    // stop, stop_sequences; OpenAI allows 4
	maxStopBytes  = 1024  // of one of them
	maxTokenIDs   = 1024  // stop_token_ids, allowed_token_ids, logprob_token_ids
	maxBadWords   = 128   // bad_words; vLLM's own
	maxBiases     = 1024  // members of logit_bias
	maxRegexBytes = 2048  // a regex, or a pattern within a schema
	maxNameBytes  = 256   // the name of a tool or schema
	maxIDBytes    = 512   // user, safety_identifier, prompt_cache_key, a string of the template's
	maxMetadata   = 16    // pairs of metadata; OpenAI's own
	maxIncludes   = 32    // include
	maxNested     = 4     // media within media, as a document of parts has them
	maxMedia      = 32    // media of one request
	maxPixels     = 64e6  // of one picture: width × height
	maxURLBytes   = 4096  // bytes of a URL to fetch
	fetchesAtOnce = 8     // media fetched at once, over all requests
	partTokens    = 1024  // what a medium counts for in the estimate of a prompt; models differ from 64 to thousands
	fetchTimeout  = 10 * time.Second
)
