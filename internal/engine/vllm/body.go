package vllm

import "bytes"

// askUsage makes a streaming body ask vLLM for the usage in every chunk, so
// that tokens are known also of a stream that is cut, and says what the client
// itself asked for. A body that does not stream, or whose stream_options vLLM
// will refuse, stays as it is.
func askUsage(body []byte) ([]byte, wish) {
	if string(member(body, "stream").of(body)) != "true" {
		return body, wish{}
	}
	const ask = `"include_usage":true,"continuous_usage_stats":true`
	m := member(body, "stream_options")
	options := m.of(body)
	switch {
	case options == nil:
		end := closing(body)
		return splice(body, end, end, `,"stream_options":{`+ask+`}`), wish{}
	case string(options) == "null":
		return splice(body, m.value, m.end, "{"+ask+"}"), wish{}
	case options[0] != '{':
		return body, wish{}
	}
	var w wish
	kept := options
	for name, to := range map[string]*bool{"include_usage": &w.last, "continuous_usage_stats": &w.continuous} {
		if at := member(kept, name); at.ok() {
			*to = string(at.of(kept)) == "true"
			kept = appendWithout(nil, kept, at)
		}
	}
	w.continuous = w.continuous && w.last
	inner := ask
	if rest := bytes.TrimSpace(kept[1 : len(kept)-1]); len(rest) > 0 {
		inner += "," + string(rest)
	}
	return splice(body, m.value, m.end, "{"+inner+"}"), w
}

// closing is the index of an object's last brace.
func closing(body []byte) int {
	for i := len(body) - 1; i > 0; i-- {
		if body[i] == '}' {
			return i
		}
	}
	return 0
}

func splice(body []byte, from, to int, text string) []byte {
	out := make([]byte, 0, len(body)-(to-from)+len(text))
	out = append(out, body[:from]...)
	out = append(out, text...)
	return append(out, body[to:]...)
}
