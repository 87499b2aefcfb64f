package admission

import "time"

// Class says whose work goes first.
type Class int

// The classes.
const (
	Interactive Class = iota // somebody waits for it
	Batch                    // gets what interactive work leaves
	classes
)

// Classes lists every class; each is its own index.
func Classes() []Class { return []Class{Interactive, Batch} }

// String is the class as metrics and keys name it.
func (c Class) String() string {
	if c == Batch {
		return "batch"
	}
	return "interactive"
}

// Request is what a Gate knows of a request.
type Request struct {
	Bytes         int64     // of its body, which waits with it
	Prompt        int       // estimate of the tokens of its prompts
	Answers       int       // that it asks for; 0 when nothing is generated
	MaxTokens     int       // bound of each answer; 0 when it has none
	Deadline      time.Time // by which it must have a slot; zero when it has none
	Caller        string    // whose share it counts in; all without a name are one caller
	Class         Class
	Weight        float64 // share of the caller beside that of the others; 0 counts as 1
	MaxConcurrent int     // slots that the caller may hold at once in this class; 0 when unbounded
}

// Tokens is what an engine did for one request.
type Tokens struct {
	Prompt     int // of the prompts
	Cached     int // of those, what did not have to be computed
	Completion int // that were generated
}

// completionWeight is what a generated token costs beside one of a prompt. The
// paper on virtual token counters and most price lists take 2 or more.
const completionWeight = 2

// cost is what t weighs. Nothing is free: else a flood of it would be.
func (t Tokens) cost() float64 {
	return max(float64(t.Prompt-t.Cached)+completionWeight*float64(t.Completion), 1)
}

// expected estimates what r will be served.
func (r Request) expected(perAnswer float64) float64 {
	if r.MaxTokens > 0 {
		perAnswer = min(perAnswer, float64(r.MaxTokens))
	}
	return max(float64(r.Prompt)+completionWeight*perAnswer*float64(r.Answers), 1)
}

func (r Request) weight() float64 {
	if r.Weight > 0 {
		return r.Weight
	}
	return 1
}
