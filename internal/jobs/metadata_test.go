package jobs

import (
	"fmt"
	"strings"
	"testing"
)

// What stands in a task beside its body is bounded, and at its bounds taken.
func TestMetadataIsBounded(t *testing.T) {
	long := func(n int) string { return strings.Repeat("é", n) }
	pairs := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"k%d":"v"`, i))
		}
		return strings.Join(all, ",")
	}
	alone(t, func(t *testing.T, r *replica, e *engine) {
		_, text := r.upload("batch", requests(1))
		id := object(t, text)["id"]
		for _, tt := range []struct{ window, metadata, param string }{
			{"24h", pairs(16), ""}, {"24h", `"` + long(64) + `":"` + long(512) + `"`, ""},
			{"24h", pairs(17), "metadata"}, {"24h", `"k":1`, "metadata.k"},
			{"24h", `"` + long(65) + `":"v"`, "metadata." + clip(long(65))}, {"24h", `"k":"` + long(513) + `"`, "metadata.k"},
			{strings.Repeat("0", 64) + "24h", ``, "completion_window"},
		} {
			for path, body := range map[string]string{
				"/v1/jobs":    `{"url":"/v1/completions","body":{"prompt":"p"},"metadata":{` + tt.metadata + `}}`,
				"/v1/batches": fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":%q,"metadata":{%s}}`, id, tt.window, tt.metadata),
			} {
				if path == "/v1/jobs" && tt.window != "24h" {
					continue
				}
				status, text := r.do("POST", path, body)
				err, _ := object(t, text)["error"].(map[string]any)
				if tt.param == "" && status >= 300 || tt.param != "" && (status != 400 || err["param"] != tt.param) {
					t.Errorf("%s with %.80s: %d %.200s; want %q", path, tt.metadata, status, text, tt.param)
				}
			}
		}
	})
}
