package encoder

import "math"

// A pooler makes one vector out of those of the tokens of one text, which lie
// one after the other in rows. There is at least one.
type pooler func(rows []float32, dims int) []float32

// poolers by the names that sentence-transformers gives them.
var poolers = map[string]pooler{
	"cls": func(rows []float32, dims int) []float32 { return append([]float32(nil), rows[:dims]...) },
	"lasttoken": func(rows []float32, dims int) []float32 {
		return append([]float32(nil), rows[len(rows)-dims:]...)
	},
	"max": maximum,
	"mean": func(rows []float32, dims int) []float32 {
		return weighted(rows, dims, func(int) float32 { return 1 }, func(sum float32) float32 { return sum })
	},
	"mean_sqrt_len_tokens": func(rows []float32, dims int) []float32 {
		return weighted(rows, dims, func(int) float32 { return 1 }, func(sum float32) float32 { return float32(math.Sqrt(float64(sum))) })
	},
	"weightedmean": func(rows []float32, dims int) []float32 {
		return weighted(rows, dims, func(i int) float32 { return float32(i + 1) }, func(sum float32) float32 { return sum })
	},
}

func maximum(rows []float32, dims int) []float32 {
	out := append([]float32(nil), rows[:dims]...)
	for rows = rows[dims:]; len(rows) > 0; rows = rows[dims:] {
		for i := range out {
			out[i] = max(out[i], rows[i])
		}
	}
	return out
}

// weighted sums the rows by their weights and divides by what divisor makes of
// the sum of those.
func weighted(rows []float32, dims int, weight func(int) float32, divisor func(float32) float32) []float32 {
	out := make([]float32, dims)
	var sum float32
	for i := 0; len(rows) > 0; i++ {
		w := weight(i)
		sum += w
		row := rows[:len(out)]
		for k, v := range row {
			out[k] += w * v
		}
		rows = rows[dims:]
	}
	d := 1 / divisor(sum)
	for k := range out {
		out[k] *= d
	}
	return out
}

// Normalize scales v to length 1. A zero vector stays.
func Normalize(v []float32) {
	n := norm(v)
	if n == 0 {
		return
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / n)
	}
}

// Cosine is the cosine of the angle between a and b, 0 when one is zero.
func Cosine(a, b []float32) float64 {
	var dot float64
	for i := range a {
		dot += float64(a[i]) * float64(b[i])
	}
	n := norm(a) * norm(b)
	if n == 0 {
		return 0
	}
	return dot / n
}

func norm(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

// finish normalises one vector, and returns nil for one that no client could use.
func (s *settings) finish(v []float32) []float32 {
	if n := norm(v); math.IsNaN(n) || math.IsInf(n, 0) {
		return nil
	}
	if s.normalize && s.labels == nil {
		Normalize(v)
	}
	return v
}
