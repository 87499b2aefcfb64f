//go:build !real

package grammar

// randomSchemas is as many as make test has time for, with the race detector.
const randomSchemas = 300
