package admission

// Class says whose work goes first.
type Class int

// The classes.
const (
	Interactive Class = iota // somebody waits for it
	Batch                    // gets what interactive work leaves
)

// Request is what a Gate knows of a request.
type Request struct {
	Bytes         int64   // of its body, which waits with it
	Prompt        int     // estimate of its prompt's tokens
	MaxTokens     int     // bound of all its completion's tokens; 0 when it has none
	Caller        string  // whose share it counts in; all without a name are one caller
	Class         Class   // of the request
	Weight        float64 // share of the caller beside that of the others; 0 counts as 1
	MaxConcurrent int     // slots that the caller may hold at once; 0 when unbounded
}

// Tokens is what an engine did for one request.
type Tokens struct {
	Prompt     int // of the prompt
	Cached     int // of those, what did not have to be computed
	Completion int // that were generated
}
