package jobs

import (
	"maps"
	"slices"
	"unicode/utf8"

	"infer/internal/openai"
)

// Bounds of OpenAI's metadata, in characters. It stands in the task, which is
// written again with every step.
const (
	maxMetadata      = 16
	maxMetadataKey   = 64
	maxMetadataValue = 512
)

func checkMetadata(m map[string]string) *openai.Error {
	if len(m) > maxMetadata {
		return openai.Invalid("metadata", openai.CodeInvalidValue, "metadata may have %d members at most", maxMetadata)
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		param := "metadata." + clip(key)
		switch {
		case utf8.RuneCountInString(key) > maxMetadataKey:
			return openai.Invalid(param, openai.CodeInvalidValue, "%s has a name of more than %d characters", param, maxMetadataKey)
		case utf8.RuneCountInString(m[key]) > maxMetadataValue:
			return openai.Invalid(param, openai.CodeInvalidValue, "%s is longer than %d characters", param, maxMetadataValue)
		}
	}
	return nil
}
