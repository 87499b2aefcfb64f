package vllm

import (
	"context"
	"regexp"
	"strconv"

	"infer/internal/engine"
)

const (
	// usualSeqs is vLLM's --max-num-seqs on all but the largest GPUs, which
	// take 1024 (vllm/engine/arg_utils.py).
	usualSeqs = 256
	// usualTokens is what a request is thought to hold of the KV cache where
	// only the size of the cache is known.
	usualTokens = 1024
)

// capacity is how many sequences vLLM runs at once. It does not tell its
// --max-num-seqs, so that without that flag this is a guess.
type capacity struct {
	slots   int
	guessed bool
}

// capacityOf joins what the operator said with what /metrics tells of the KV
// cache, whose size bounds what runs whatever the flag says.
func (c Config) capacityOf(exposition []byte, contextTokens int) capacity {
	caches := cacheTokens(exposition)
	if v, ok := c.flag("--max-num-seqs"); ok {
		if n, err := strconv.Atoi(v); err == nil && n > 0 {
			return capacity{slots: n * max(len(caches), 1)} // of each engine
		}
	}
	each := usualTokens
	if contextTokens > 0 {
		each = min(each, contextTokens)
	}
	guess := capacity{guessed: true}
	for _, tokens := range caches {
		if tokens == 0 { // it does not say
			tokens = usualSeqs * each
		}
		guess.slots += min(max(tokens/each, 1), usualSeqs)
	}
	if guess.slots == 0 {
		guess.slots = usualSeqs
	}
	return guess
}

var (
	cacheInfo = regexp.MustCompile(`(?m)^vllm:cache_config_info\{.*\}`)
	cacheSize = regexp.MustCompile(`[{,]kv_cache_size_tokens="(\d+)"`)
)

// cacheTokens lists the tokens that fit into the KV cache of each engine of a
// server, 0 for one that does not say.
func cacheTokens(exposition []byte) []int {
	var all []int
	for _, line := range cacheInfo.FindAll(exposition, -1) {
		tokens := 0
		if m := cacheSize.FindSubmatch(line); m != nil {
			tokens = number(m[1])
		}
		all = append(all, tokens)
	}
	return all
}

// measure learns how much vLLM can do at once.
func (e *Engine) measure(ctx context.Context, up *upstream, models []engine.Model) {
	text, err := up.exposition(ctx)
	if err != nil {
		e.log.Warn("read the size of the KV cache", "err", err)
	}
	e.capacity = e.cfg.capacityOf(text, models[0].ContextTokens)
	if e.capacity.guessed {
		e.log.Info("the number of slots is a guess: vllm does not tell its --max-num-seqs; give it after --, or here as --max-concurrency",
			"slots", e.capacity.slots)
	}
}
