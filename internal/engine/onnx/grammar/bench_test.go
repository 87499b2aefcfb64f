package grammar

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var benchSchemas = map[string]string{
	"object": `{"type":"object"}`,
	"person": `{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
		"email":{"type":"string","format":"email"},"tags":{"type":"array","items":{"type":"string","maxLength":30}},
		"address":{"type":"object","properties":{"street":{"type":"string"},"zip":{"type":"string","pattern":"^[0-9]{5}$"}},
		"required":["street","zip"],"additionalProperties":false}},"required":["name","age","address"],"additionalProperties":false}`,
	"tree": `{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"value":{"type":"number"},"label":{"type":"string"},
		"children":{"type":"array","items":{"$ref":"#/$defs/n"}}},"required":["value","children"],"additionalProperties":false}}}`,
}

// BenchmarkMask reports the times of masks along random outputs: the median
// and the worst, for the first outputs of a grammar and for later ones.
func BenchmarkMask(b *testing.B) {
	for _, vocabulary := range []struct {
		name string
		make func(testing.TB) *Vocabulary
	}{{"49k", realVocabulary}, {"152k", wideVocabulary}} {
		v := vocabulary.make(b)
		for _, name := range []string{"object", "person", "tree"} {
			b.Run(name+"/"+vocabulary.name, func(b *testing.B) { benchmarkMask(b, v, benchSchemas[name]) })
		}
	}
}

func benchmarkMask(b *testing.B, v *Vocabulary, schema string) {
	s := &sampler{Rand: rand.New(rand.NewPCG(11, 12))}
	bits := make([]uint64, v.words())
	g := mustSchema(b, schema)
	var cold, warm []time.Duration
	m := NewMatcher(g, v)
	outputs, tokens := 0, 0
	for b.Loop() {
		began := time.Now()
		err := m.Mask(bits)
		took := time.Since(began)
		if err != nil {
			b.Fatal(err)
		}
		if outputs < 3 {
			cold = append(cold, took)
		} else {
			warm = append(warm, took)
		}
		id := draw(s, v, bits, tokens > 40)
		if err := m.Advance(id); err != nil {
			b.Fatal(err)
		}
		if tokens++; m.ended || tokens > 300 {
			m, tokens = NewMatcher(g, v), 0
			outputs++
		}
	}
	report := func(name string, times []time.Duration) {
		if len(times) > 0 {
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, name+"-median-µs")
			b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, name+"-p99-µs")
			b.ReportMetric(float64(times[len(times)-1].Nanoseconds())/1e3, name+"-max-µs")
		}
	}
	report("cold", cold)
	report("warm", warm)
}

func BenchmarkCompile(b *testing.B) {
	for _, name := range []string{"object", "person", "tree"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				mustSchema(b, benchSchemas[name])
			}
		})
	}
}

func BenchmarkNewVocabulary(b *testing.B) {
	tokens, err := realTokens()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		NewVocabulary(tokens, []int32{0})
	}
}
