package openai

import "bytes"

// bytesPerToken is how many bytes of text the tokens of today's models cover:
// four in English prose, three and less in code and most scripts.
const bytesPerToken = 4

// estimate guesses how many tokens one member of a body puts into a prompt,
// without a tokenizer: a token for every four bytes of JSON, one for each number
// of an array of ids. What is no part of a prompt counts nothing. texts is how
// many prompts an array holds.
func estimate(name string, v Value) (tokens, texts int) {
	switch name {
	case "messages", "system", "instructions", "tools", "functions", "suffix", "query":
		return size(v), 1
	case "prompt", "input", "text_1", "text_2", "queries", "documents", "items", "data_1", "data_2":
		return size(v), prompts(v)
	}
	return 0, 1
}

// prompts is how many prompts v holds: an array of numbers is one, of token ids.
func prompts(v Value) int {
	if v.Kind() != '[' {
		return 1
	}
	switch first := v.Text[skipSpace(v.Text, 1)]; {
	case first == '-', first >= '0' && first <= '9':
		return 1
	case first == '[' && idsOnly(v):
		return bytes.Count(v.Text, []byte{'['}) - 1
	}
	return v.Len()
}

// idsOnly says that v holds numbers, or arrays of them.
func idsOnly(v Value) bool { return v.Kind() == '[' && bytes.IndexByte(v.Text, '"') < 0 }

// size is the number of tokens in v.
func size(v Value) int {
	if idsOnly(v) {
		return bytes.Count(v.Text, []byte{','}) + 1
	}
	return len(v.Text) / bytesPerToken
}
