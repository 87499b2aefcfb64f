package policy

import (
	"fmt"
	"strings"
	"testing"

	"infer/internal/openai"
)

// BenchmarkApply is what the rules cost beside the parse that they need.
func BenchmarkApply(b *testing.B) {
	p := media(b, func(c *Config) { c.MaxMediaBytes = 2 << 20 })
	text := strings.Repeat("The quick brown fox says \\\"hello\\\".\\n", 1<<20/36)
	var many strings.Builder
	for i := range 1 << 14 {
		fmt.Fprintf(&many, `{"role":"user","content":"A short question of the usual size, %d?"},`, i)
	}
	const options = `"model":"m","stream":true,"temperature":0.7,"max_tokens":256,"stop":["###"],"user":"u",` +
		`"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}],`
	for _, bb := range []struct{ name, body string }{
		{"2KB", `{` + options + `"messages":[{"role":"system","content":"` + text[:360] + `"},{"role":"user","content":"` + text[:1440] + `"}]}`},
		{"1MB", `{` + options + `"messages":[{"role":"user","content":"` + text + `"}]}`},
		{"1MB-messages", `{` + options + `"messages":[` + strings.TrimSuffix(many.String()[:1<<20/4], ",") + `"}]}`},
		{"1MB-picture", imageURL("data:image/png;base64," + strings.TrimRight(b64(picture(64, 64)), "=") + strings.Repeat("A", 1<<20))},
	} {
		body := []byte(bb.body)
		for _, arm := range []string{"parse", "parse+rules"} {
			b.Run(bb.name+"/"+arm, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					req, e := openai.Peek(body)
					if arm != "parse" && e == nil {
						_, e = p.Apply(b.Context(), chat, body, &req, Limits{ContextTokens: 8192, TextBytes: 8 << 20, TotalBytes: 32 << 20, Media: true})
					}
					if e != nil {
						b.Fatal(e)
					}
				}
			})
		}
	}
}
