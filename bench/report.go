package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what a run found, as it is written to the JSON file.
type report struct {
	Date      time.Time       `json:"date"`
	Go        string          `json:"go"`
	Processor string          `json:"processor"`
	Cores     int             `json:"cores"`
	Model     string          `json:"model"`
	Prompt    int             `json:"prompt_tokens"`
	Steps     int             `json:"decode_tokens"`
	Streams   int             `json:"streams"`
	Repeats   int             `json:"repeats"`
	Settings  []settingReport `json:"settings"`
	Start     *startTimes     `json:"start,omitempty"`
	Tables    []*table        `json:"suites,omitempty"`
}

// settingReport is one setting's share.
type settingReport struct {
	setting
	LoadBefore float64 `json:"load_average_before"`
	LoadAfter  float64 `json:"load_average_after"`
	Rates      []rate  `json:"rates"`
	Ratios     []ratio `json:"ratios"`
}

// rate is the speed of one engine at one task, in tokens of all streams.
type rate struct {
	Task   string  `json:"task"`
	Engine string  `json:"engine"`
	CPU    summary `json:"tokens_per_cpu_second"`
	Wall   summary `json:"tokens_per_second"`
}

// ratio compares two rates. AtLeast is the goal of its median.
type ratio struct {
	Name    string  `json:"name"`
	CPU     summary `json:"per_cpu_second"`
	Wall    summary `json:"per_second"`
	AtLeast float64 `json:"goal_at_least"`
}

// comparison names the two rates of a ratio.
type comparison struct {
	name           string
	taskA, engineA string
	taskB, engineB string
	atLeast        float64
}

// maxOverhead is what HTTP and scheduler may cost of a token's time.
const maxOverhead = 0.03

// comparisons are the goals. A ratio to the bare engine is what is left of its
// speed: 1/(1+overhead).
var comparisons = []comparison{
	{"prefill, infer / llama.cpp", prefill, infer, prefill, llamaCpp, 1.5},
	{"decode 1 stream, infer / llama.cpp", decode1, infer, decode1, llamaCpp, 1},
	{"decode many streams, infer / llama.cpp", decodeN, infer, decodeN, llamaCpp, 1},
	{"infer, many streams / 1 stream", decodeN, infer, decode1, infer, 2.2},
	{"prefill, infer / bare engine", prefill, infer, prefill, bare, 1 / (1 + maxOverhead)},
	{"decode 1 stream, infer / bare engine", decode1, infer, decode1, bare, 1 / (1 + maxOverhead)},
	{"decode many streams, infer / bare engine", decodeN, infer, decodeN, bare, 1 / (1 + maxOverhead)},
}

func newReport(c config) *report {
	return &report{Date: time.Now().UTC(), Go: runtime.Version(), Processor: processor(), Cores: runtime.NumCPU(),
		Model: c.model, Prompt: c.prompt, Steps: c.steps, Streams: c.streams, Repeats: c.repeats}
}

// add computes rates and ratios of one setting.
func (r *report) add(o outcome) {
	s := settingReport{setting: o.setting, LoadBefore: o.loadBefore, LoadAfter: o.loadAfter}
	cpu := func(task, engine string) []float64 { return rates(o.samples[task][engine], sample.perCPUSecond) }
	wall := func(task, engine string) []float64 { return rates(o.samples[task][engine], sample.perSecond) }
	for _, task := range tasks {
		for _, engine := range engines {
			s.Rates = append(s.Rates, rate{task, engine, summarize(cpu(task, engine)), summarize(wall(task, engine))})
		}
	}
	for _, c := range comparisons {
		s.Ratios = append(s.Ratios, ratio{Name: c.name, AtLeast: c.atLeast,
			CPU:  paired(cpu(c.taskA, c.engineA), cpu(c.taskB, c.engineB)),
			Wall: paired(wall(c.taskA, c.engineA), wall(c.taskB, c.engineB)),
		})
	}
	r.Settings = append(r.Settings, s)
}

func rates(samples []sample, of func(sample) float64) []float64 {
	list := make([]float64, len(samples))
	for i, s := range samples {
		list[i] = of(s)
	}
	return list
}

// print writes the report as text.
func (r *report) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores of %s, %s\n", r.Date.Format(time.DateTime), r.Cores, r.Processor, r.Go)
	fmt.Fprintf(&b, "%s\n", r.Model)
	fmt.Fprintf(&b, "median (min–max) of %d\n", r.Repeats)
	for _, s := range r.Settings {
		fmt.Fprintf(&b, "\n== %s, %s (load average %.1f before, %.1f after)\nprompts of %d tokens, %d decoded tokens a stream; many streams are %d\n\n",
			baseSuite, s.setting, s.LoadBefore, s.LoadAfter, r.Prompt, r.Steps, r.Streams)
		var t strings.Builder
		fmt.Fprintf(&t, "task\tengine\ttokens per CPU-second\ttokens per second\n")
		for _, x := range s.Rates {
			fmt.Fprintf(&t, "%s\t%s\t%s\t%s\n", x.Task, x.Engine, x.CPU.format("%.0f"), x.Wall.format("%.0f"))
		}
		fmt.Fprintf(&t, "\t\t\t\n")
		fmt.Fprintf(&t, "ratio, pair by pair\tgoal\tper CPU-second\tper second\n")
		for _, x := range s.Ratios {
			fmt.Fprintf(&t, "%s\t≥ %.2f\t%s\t%s\n", x.Name, x.AtLeast, x.verdict(x.CPU), x.verdict(x.Wall))
		}
		if err := align(&b, t.String()); err != nil {
			return err
		}
	}
	if r.Start != nil {
		fmt.Fprintf(&b, "\n== start of infer with its defaults, from warm caches\n\nexec to first HTTP answer: %s s\nexec to first token: %s s\n",
			r.Start.FirstAnswer.format("%.3f"), r.Start.FirstToken.format("%.3f"))
	}
	for _, t := range r.Tables {
		if err := t.print(&b); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// align writes a table whose columns are parted by tabs.
func align(w io.Writer, table string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	if _, err := io.WriteString(t, table); err != nil {
		return err
	}
	return t.Flush()
}

// verdict holds the median of s to the goal.
func (r ratio) verdict(s summary) string {
	if s.Median < r.AtLeast {
		return s.format("%.2f") + " missed"
	}
	return s.format("%.2f") + " met"
}
