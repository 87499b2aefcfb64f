//go:build real

package dapr

import (
	"bytes"
	"encoding/json/v2"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"infer/internal/dapr/daprtest"
)

// A store that is down, at the start or later, is an answer of the routes that
// need it, and of no other; what was accepted before is there after.
func TestStoreFaults(t *testing.T) {
	program := build(t)
	redis, dir := daprtest.Ports(t, 1)[0], t.TempDir()
	ports := daprtest.Ports(t, 2)
	env := []string{"DAPR_GRPC_PORT=" + ports[0], "DAPR_HTTP_PORT=" + ports[1]}
	s := serve(t, program, "127.0.0.1:0", []string{"--state", "dapr://jobs"}, env...)
	refused := func(when, url string) {
		t.Helper()
		r, text := call(t, "POST", url+"/v1/jobs", chat)
		if r.StatusCode != 503 || !strings.Contains(text, "store cannot be reached; send the request again later") {
			t.Errorf("%s: a job: %d %s", when, r.StatusCode, text)
		}
		if r, text = call(t, "POST", url+"/v1/chat/completions", chat); r.StatusCode != 200 {
			t.Errorf("%s: chat: %d %s", when, r.StatusCode, text)
		}
		if status(url+"/readyz") != 200 {
			t.Errorf("%s: not ready", when)
		}
	}
	refused("no sidecar at the start", s.url)

	store := daprtest.KeptRedis(t, redis, dir)
	daprtest.Start(t, daprtest.Options{GRPCPort: ports[0], HTTPPort: ports[1],
		Components: []daprtest.Component{{Name: "jobs", Type: "state.redis", Metadata: "redisHost=127.0.0.1:" + redis}}})
	id := accepted(t, s.url, chat)
	ended := wait(t, s.url, id)
	if ended.Status != "succeeded" {
		t.Errorf("job: %+v", ended)
	}
	// Larger than a message to the sidecar may be: in parts, whole again.
	large := strings.Repeat(`{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}`+"\n", 5<<20/74)
	file := upload(t, s.url, large)
	big := accepted(t, s.url, strings.Replace(chat, "Name three fruits.", strings.Repeat("fruit ", 5<<20/6), 1))
	if j := wait(t, s.url, big); j.Response.StatusCode != 400 || j.Error != nil {
		t.Errorf("a job larger than the context: %+v, want the route's own answer", j)
	}

	store.Kill(syscall.SIGKILL)
	refused("the store has gone", s.url)
	daprtest.KeptRedis(t, redis, dir)
	if again := wait(t, s.url, id); again != ended {
		t.Errorf("the job of before: %+v, was %+v", again, ended)
	}
	if _, text := call(t, "GET", s.url+"/v1/files/"+file+"/content", ""); text != large {
		t.Errorf("a file of %d bytes came back as %d bytes, or others", len(large), len(text))
	}

	// Told to stop, it hands back through the store what it cannot end.
	accepted(t, s.url, strings.Replace(chat, `"max_tokens":12`, `"max_tokens":6000,"ignore_eos":true`, 1))
	daprtest.Until(t, "the long job runs", func() bool {
		_, text := call(t, "GET", s.url+"/metrics", "")
		return strings.Contains(text, "\ninfer_requests_running 1\n")
	})
	s.Kill(syscall.SIGTERM)
	if log := s.Out.String(); !strings.Contains(log, "drain ended") || strings.Contains(log, "cannot be handed back") {
		t.Errorf("at the stop:\n%s", log)
	}
	lost := serve(t, program, "127.0.0.1:0", []string{"--state", "dapr://absent"}, env...)
	refused("no such component", lost.url)
	_, text := call(t, "GET", lost.url+"/readyz", "")
	for _, where := range []string{lost.Out.String(), text} {
		if !strings.Contains(where, `no state component is called \"absent\"; the sidecar has jobs`) {
			t.Errorf("no remedy in %s", where)
		}
	}
}

// outcome is what a job says of itself.
type outcome struct {
	ID        string `json:"id"`
	Status    string `json:"status"`
	Completed int64  `json:"completed_at"`
	Response  struct {
		StatusCode int    `json:"status_code"`
		Request    string `json:"request_id"`
	} `json:"response"`
	Error *struct {
		Code string `json:"code"`
	} `json:"error"`
}

// accepted posts a job until it is taken.
func accepted(t *testing.T, url, body string) string {
	t.Helper()
	text, err := send(url+"/v1/jobs", body, "application/json", fmt.Sprint(time.Now().UnixNano()), http.StatusAccepted)
	if err != nil {
		t.Fatal(err)
	}
	var j outcome
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		t.Fatal(err)
	}
	return j.ID
}

// wait returns a job when it has ended.
func wait(t *testing.T, url, id string) (j outcome) {
	t.Helper()
	daprtest.Until(t, "job "+id+" has ended", func() bool {
		<-time.After(50 * time.Millisecond)
		r, text := call(t, "GET", url+"/v1/jobs/"+id, "")
		return r.StatusCode == 200 && json.Unmarshal([]byte(text), &j) == nil && j.Completed > 0
	})
	return j
}

// upload stores a file of a batch and returns its id.
func upload(t *testing.T, url, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.WriteField("purpose", "batch"); err != nil {
		t.Fatal(err)
	}
	part, err := w.CreateFormFile("file", "lines.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(part, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, text := call(t, "POST", url+"/v1/files", b.String(), "Content-Type", w.FormDataContentType())
	var file outcome
	if err := json.Unmarshal([]byte(text), &file); err != nil || r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, text)
	}
	return file.ID
}
