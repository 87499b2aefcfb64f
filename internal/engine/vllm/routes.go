package vllm

import "net/http"

// protocol says how a route's answers are read.
type protocol int

const (
	other protocol = iota // passed on as it is; usage is read where it is found
	chat                  // chunks of chat or text completions
	audio                 // chunks of the same form, of a recording; nothing is taken from them
)

// route is one path of vLLM that requests may reach.
type route struct {
	protocol protocol
	steps    bool // the engine process works for it, so that its silence says something
}

// routes is the allowlist: what is not here never reaches vLLM, whose other
// paths load adapters, stop the engine, run code or bypass the key
// (https://docs.vllm.ai/en/latest/usage/security.html). A build or a model that
// lacks one answers 404. The Responses and Messages APIs are not here: this
// server makes chat completions of them.
var routes = map[string]map[string]route{
	"/v1/chat/completions":     {http.MethodPost: {chat, true}},
	"/v1/completions":          {http.MethodPost: {chat, true}},
	"/v1/embeddings":           {http.MethodPost: {other, true}},
	"/v1/rerank":               {http.MethodPost: {other, true}},
	"/v1/score":                {http.MethodPost: {other, true}},
	"/classify":                {http.MethodPost: {other, true}},
	"/pooling":                 {http.MethodPost: {other, true}},
	"/v1/audio/transcriptions": {http.MethodPost: {audio, true}},
	"/v1/audio/translations":   {http.MethodPost: {audio, true}},
	"/tokenize":                {http.MethodPost: {}},
	"/detokenize":              {http.MethodPost: {}},
}
