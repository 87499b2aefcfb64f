package policy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// The page of the API lists every limit with its value, and every field that is denied.
func TestReadmeListsTheLimits(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## Bounds of a request")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, row := range []string{
		fmt.Sprintf("prompts × answers | `--max-n` 64; %d |", maxSequences),
		fmt.Sprintf("`prompt_logprobs` | %d |", maxLogprobs),
		fmt.Sprintf("`stop_sequences` | %d of %d bytes |", maxStops, maxStopBytes),
		fmt.Sprintf("`logit_bias` | %d; %d |", maxTokenIDs, maxBiases),
		fmt.Sprintf("`bad_words` | %d of %d bytes |", maxBadWords, maxStopBytes),
		fmt.Sprintf("parts within them | %d; %d |", maxMessages, maxParts),
		fmt.Sprintf("a name | `--max-tools` 128; %d bytes |", maxNameBytes),
		fmt.Sprintf("`pattern` | `--max-schema-bytes` 64 KiB; %d bytes |", maxRegexBytes),
		fmt.Sprintf("an argument of a template | %d bytes |", maxIDBytes),
		fmt.Sprintf("`metadata` | %d pairs of 64 and %d bytes |", maxMetadata, maxIDBytes),
		fmt.Sprintf("`include` | %d |", maxIncludes),
		fmt.Sprintf("a picture | %d; %d deep; `--max-media-bytes` 20 MiB; %.0f million pixels |", maxMedia, maxNested, maxPixels/1e6),
		fmt.Sprintf("at once | %d bytes; %.0f s; %d |", maxURLBytes, fetchTimeout.Seconds(), fetchesAtOnce),
	} {
		if !strings.Contains(section, row) {
			t.Errorf("docs/api.md has no row that ends in %s", row)
		}
	}
	for _, name := range slices.Concat(denied(), templateArgs()) {
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("docs/api.md does not name %s", name)
		}
	}
}
