//go:build real

package grammar

// randomSchemas is as many as make test-real has time for.
const randomSchemas = 2000
