package simulate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Trace is traffic: a rate of requests over time, or every single arrival.
type Trace struct {
	Name    string
	Seconds float64
	Rate    func(at float64) float64 // requests a second; nil when Arrivals are given

	// Mean tokens of the requests that come by rate; each is exponential.
	Prompt, Completion float64

	Arrivals []Arrival // in order of time
}

// Arrival is one request.
type Arrival struct{ At, Prompt, Completion float64 }

const day = 24 * 3600

// Traces returns the built-in traffic of 24 hours, with peak requests a second
// at its height: diurnal (a sine with its low at night), burst (a tenth of the
// peak, and six bursts of ten minutes) and ramp (up for 18 hours, then nothing).
func Traces(peak float64) []Trace {
	return []Trace{
		{Name: "diurnal", Seconds: day, Prompt: 800, Completion: 300, Rate: func(at float64) float64 {
			return peak * (0.55 - 0.45*math.Cos(2*math.Pi*at/day))
		}},
		{Name: "burst", Seconds: day, Prompt: 800, Completion: 300, Rate: func(at float64) float64 {
			if into := math.Mod(at, 4*3600); into >= 3600 && into < 4200 {
				return peak
			}
			return peak / 10
		}},
		{Name: "ramp", Seconds: day, Prompt: 800, Completion: 300, Rate: func(at float64) float64 {
			if at > day*3/4 {
				return 0
			}
			return peak * at / (day * 3 / 4)
		}},
	}
}

// ReadCSV reads traffic with a header line. Columns time, prompt_tokens and
// completion_tokens: a line is one request. With a column rate besides: from
// time on so many requests a second come, with these mean tokens, until the
// next line; the last line only ends it. Times are seconds, and grow.
func ReadCSV(name string, r io.Reader) (Trace, error) {
	rows := csv.NewReader(r)
	rows.TrimLeadingSpace = true
	header, err := rows.Read()
	if err != nil {
		return Trace{}, fmt.Errorf("read the header: %w", err)
	}
	column := map[string]int{}
	for i, h := range header {
		column[strings.TrimSpace(h)] = i
	}
	for _, want := range []string{"time", "prompt_tokens", "completion_tokens"} {
		if _, ok := column[want]; !ok {
			return Trace{}, fmt.Errorf("the header has no column %s; it needs time, prompt_tokens, completion_tokens and perhaps rate", want)
		}
	}
	_, byRate := column["rate"]
	t := Trace{Name: name}
	var rates []float64
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Trace{}, err
		}
		value := func(key string) (v float64) {
			if v, e := strconv.ParseFloat(strings.TrimSpace(row[column[key]]), 64); e == nil && v >= 0 && !math.IsInf(v, 0) {
				return v
			}
			line, _ := rows.FieldPos(0)
			err = fmt.Errorf("line %d: %s: %q is no number from 0 on", line, key, row[column[key]])
			return 0
		}
		a := Arrival{value("time"), value("prompt_tokens"), value("completion_tokens")}
		if byRate {
			rates = append(rates, value("rate"))
		}
		if err == nil && len(t.Arrivals) > 0 && a.At < t.Seconds {
			line, _ := rows.FieldPos(0)
			err = fmt.Errorf("line %d: time goes back", line)
		}
		if err != nil {
			return Trace{}, err
		}
		t.Arrivals, t.Seconds = append(t.Arrivals, a), a.At
	}
	if len(t.Arrivals) == 0 || byRate && len(t.Arrivals) < 2 {
		return Trace{}, errors.New("no traffic: too few lines after the header")
	}
	if t.Seconds > 31*day {
		return Trace{}, errors.New("the times span more than 31 days; are they seconds from the start?")
	}
	if byRate {
		t = steps(t, rates)
	} else {
		t.Seconds++ // the last one arrives too
	}
	return t, nil
}

// steps turns lines with rates into a rate. Tokens are those of all requests,
// on average.
func steps(t Trace, rates []float64) Trace {
	lines := t.Arrivals
	out := Trace{Name: t.Name, Seconds: t.Seconds}
	total := 0.0
	for i := range len(lines) - 1 {
		n := rates[i] * (lines[i+1].At - lines[i].At)
		total += n
		out.Prompt += n * lines[i].Prompt
		out.Completion += n * lines[i].Completion
	}
	if total > 0 {
		out.Prompt /= total
		out.Completion /= total
	}
	out.Rate = func(at float64) float64 {
		i, found := slices.BinarySearchFunc(lines, at, func(a Arrival, at float64) int {
			switch {
			case a.At < at:
				return -1
			case a.At > at:
				return 1
			}
			return 0
		})
		if !found {
			i--
		}
		if i < 0 || i >= len(lines)-1 {
			return 0
		}
		return rates[i]
	}
	return out
}

// source makes the requests of a trace. Chance is its own, so that every rule
// sees the same traffic.
type source struct {
	cfg  Config
	t    Trace
	rnd  *rand.Rand
	next int     // of t.Arrivals
	left float64 // expected requests until the next one
}

func (t Trace) source(cfg Config) *source {
	rnd := rand.New(rand.NewPCG(cfg.Seed, 2))
	return &source{cfg: cfg, t: t, rnd: rnd, left: rnd.ExpFloat64()}
}

// emit calls arrive for every request of the tick.
func (s *source) emit(tick int32, arrive func(request)) {
	at := float64(tick) * s.cfg.Tick
	for s.next < len(s.t.Arrivals) && s.t.Rate == nil && s.t.Arrivals[s.next].At <= at {
		a := s.t.Arrivals[s.next]
		s.next++
		prefill := a.Prompt / s.cfg.PrefillRate
		service := math.Round((prefill + a.Completion/s.cfg.DecodeRate) / s.cfg.Tick)
		arrive(request{tick, float32(prefill), int32(min(max(service, 1), math.MaxInt32/4))})
	}
	if s.t.Rate == nil {
		return
	}
	s.left -= s.t.Rate(at) * s.cfg.Tick
	for s.left <= 0 {
		s.left += s.rnd.ExpFloat64()
		prefill := s.rnd.ExpFloat64() * s.t.Prompt / s.cfg.PrefillRate
		service := exponential(s.rnd, s.t.Completion/s.cfg.DecodeRate, s.cfg.Tick) + int32(prefill/s.cfg.Tick+0.5)
		arrive(request{tick, float32(prefill), service})
	}
}
