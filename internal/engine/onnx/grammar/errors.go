package grammar

import "fmt"

// UnsupportedError names what of a schema this package cannot enforce. It is
// refused, since an ignored keyword would be a broken promise.
type UnsupportedError struct {
	Path    string // where in the schema, as a JSON pointer fragment: "#/properties/a"
	Keyword string // the keyword, with its value where that is the fault: "format: iri"
}

// Error implements error.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("schema at %s: %s is not supported", e.Path, e.Keyword)
}

// SchemaError says what is wrong with a schema that no output could satisfy or
// that is not a schema at all.
type SchemaError struct {
	Path   string // as in UnsupportedError
	Reason string
}

// Error implements error.
func (e *SchemaError) Error() string { return fmt.Sprintf("schema at %s: %s", e.Path, e.Reason) }

// PatternError says why a regular expression was refused.
type PatternError struct {
	Pattern string
	Err     error
}

// Error implements error.
func (e *PatternError) Error() string { return fmt.Sprintf("pattern %q: %v", e.Pattern, e.Err) }

// Unwrap returns the cause.
func (e *PatternError) Unwrap() error { return e.Err }

// TooLargeError says which limit a grammar exceeds.
type TooLargeError struct {
	What  string
	Limit int
}

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("grammar too large: more than %d %s", e.Limit, e.What)
}
