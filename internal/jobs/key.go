package jobs

import (
	"infer/internal/openai"
)

// idempotencyHeader names a request so that it can be sent again without being
// done again.
// https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
const idempotencyHeader = "Idempotency-Key"

func checkIdempotencyKey(key string) *openai.Error {
	if len(key) > 255 {
		return openai.Invalid(idempotencyHeader, openai.CodeInvalidValue, "%s is longer than 255 bytes", idempotencyHeader)
	}
	return nil
}

func keyReused() *openai.Error {
	return conflict(openai.CodeKeyReused, "this "+idempotencyHeader+" was used with another body; use a new key for a new request")
}
