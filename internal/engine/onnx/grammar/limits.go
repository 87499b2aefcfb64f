package grammar

import "context"

// Limits of what is compiled. Together they bound a compilation to about a
// second and some tens of megabytes.
const (
	maxSchemaBytes  = 256 << 10 // bytes of a schema
	maxSchemaDepth  = 128       // nested objects and arrays in a schema
	maxPatternBytes = 8 << 10   // bytes of a regular expression
	maxPatternSize  = 20_000    // instructions of a regular expression, repeats written out
	maxStates       = 1 << 15   // states of one string's automaton
	maxTable        = 1 << 20   // states × character classes of one string's automaton
	maxNodes        = 1 << 17   // nodes of the whole grammar
	maxVariants     = 512       // alternatives of one value, anyOf multiplied out
	maxWays         = 64        // alternatives of one value that are no enum values
	maxChoiceBytes  = 1 << 20   // bytes of an enum or of the options of a Choice
	maxProperties   = 4096      // properties of one object
	maxPatternProps = 4         // patterns of patternProperties in one object
	maxDigits       = 64        // digits of a bound of a number
	maxWork         = 20_000_000
)

// maxWidth bounds the ways to read one output so far, so that the time for a
// mask is bounded: a way inside a string weighs textWidth, another one. What
// would lead beyond is masked. Only a grammar that multiplies alternatives
// within alternatives gets there.
const (
	maxWidth  = 8192
	textWidth = 64
)

// budget bounds the work of one compilation and ends it with its context.
type budget struct {
	spent int
	next  int          // when to look at ended again
	ended func() error // the context's Err
}

func newBudget(ctx context.Context) *budget { return &budget{ended: ctx.Err} }

// spend takes n steps of about ten nanoseconds.
func (b *budget) spend(n int) error {
	b.spent += n
	if b.spent > maxWork {
		return &TooLargeError{"steps of compilation", maxWork}
	}
	if b.spent >= b.next {
		b.next = b.spent + 10_000
		return b.ended()
	}
	return nil
}
