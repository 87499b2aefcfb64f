//go:build real

package dapr

import (
	"bufio"
	"encoding/json/v2"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"infer/internal/dapr/daprtest"
)

// streamed is what is looked at of an event.
type streamed struct {
	Type     string `json:"type"`
	Number   int    `json:"sequence_number"`
	Response struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	} `json:"response"`
}

// follow reads events until stop says so or the stream ends.
func follow(t *testing.T, method, url, body string, stop func(streamed) bool) (all []streamed) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		t.Fatalf("%s %s: %d", method, url, answer.StatusCode)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var e streamed
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if all = append(all, e); stop(e) {
			return all
		}
	}
	return all
}

// A response that one replica runs is followed to its end on another, by the
// numbers of its events, also when the replica that runs it is killed.
func TestResponseOnAnotherReplica(t *testing.T) {
	program := build(t)
	redis := daprtest.Ports(t, 1)[0]
	daprtest.Redis(t, redis)
	components := []daprtest.Component{{Name: "jobs", Type: "state.redis", Metadata: "redisHost=127.0.0.1:" + redis + " keyPrefix=name"}}
	replica := func() *infer {
		d := daprtest.Start(t, daprtest.Options{Names: filepath.Join(t.TempDir(), "names.db"), Components: components})
		return serve(t, program, "127.0.0.1:0", []string{"--state", "dapr://jobs"}, "DAPR_GRPC_PORT="+port(d.GRPC), "DAPR_HTTP_PORT="+port(d.HTTP))
	}
	one, two := replica(), replica()
	for _, killed := range []bool{false, true} {
		const body = `{"input":"Tell a long story.","background":true,"stream":true,"max_output_tokens":600}`
		begun := follow(t, "POST", one.url+"/v1/responses", body, func(e streamed) bool { return e.Number >= 5 })
		id, last := begun[0].Response.ID, begun[len(begun)-1].Number
		if killed {
			one.Kill(syscall.SIGKILL)
		}
		rest := follow(t, "GET", fmt.Sprintf("%s/v1/responses/%s?stream=true&starting_after=%d", two.url, id, last), "", func(streamed) bool { return false })
		for i, e := range rest {
			if e.Number != last+1+i {
				t.Fatalf("killed %v: event %d follows %d", killed, e.Number, last+i)
			}
		}
		if end := rest[len(rest)-1]; end.Response.ID != id || (end.Response.Status != "completed" && end.Response.Status != "incomplete") {
			t.Errorf("killed %v: the last event is %+v", killed, end)
		}
		t.Logf("killed %v: %d events from one replica, %d from the other", killed, len(begun), len(rest))
		if r, text := call(t, "POST", two.url+"/v1/responses", `{"input":"And then?","max_output_tokens":8,"previous_response_id":"`+id+`"}`); r.StatusCode != 200 {
			t.Errorf("going on from it: %d %s", r.StatusCode, text)
		}
	}
}
