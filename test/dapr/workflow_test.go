//go:build real

package dapr

import (
	"context"
	"encoding/json/v2"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"infer/internal/dapr/daprtest"
)

// A workflow ends though its worker is killed while the activity waits for the
// job of infer: the next worker's activity finds the job, which runs once.
func TestWorkflow(t *testing.T) {
	program, worker := build(t), sample(t, "workflow.go")
	p, names := daprtest.Ports(t, 1)[0], filepath.Join(t.TempDir(), "names.db")
	own := daprtest.Start(t, daprtest.Options{AppPort: p, Names: names})
	peer := daprtest.Start(t, daprtest.Options{AppID: "checkout", Names: names, Control: daprtest.Control(t), Components: []daprtest.Component{
		{Name: "actors", Type: "state.sqlite", Metadata: "actorStateStore=true connectionString=" + filepath.Join(t.TempDir(), "actors.db")}}})
	s := serve(t, program, "127.0.0.1:"+p, []string{"--max-concurrency", "1"}, "DAPR_GRPC_PORT="+port(own.GRPC), "DAPR_HTTP_PORT="+port(own.HTTP))
	release := hold(t, s)

	first := work(t, worker, peer)
	if r, text := call(t, "POST", peer.HTTP+"/v1.0/workflows/dapr/Ask/start?instanceID=order-7", `"Name a colour."`); r.StatusCode != 202 {
		t.Fatalf("start: %d %s", r.StatusCode, text)
	}
	asked := func(times int) {
		daprtest.Until(t, fmt.Sprint("infer was asked for the job, time ", times), func() bool { return counted(t, s, "202", "unknown", "/v1/jobs", times) })
	}
	asked(1)
	first.Kill(syscall.SIGKILL)
	work(t, worker, peer)
	asked(2)
	release()

	end := ended(t, peer, "order-7")
	_, text := call(t, "GET", s.url+"/v1/jobs", "")
	var jobs struct {
		Data []outcome `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &jobs); err != nil || len(jobs.Data) != 1 {
		t.Fatalf("want one job: %s", text)
	}
	if _, text = call(t, "GET", s.url+"/v1/jobs/"+jobs.Data[0].ID, ""); end.Status != "COMPLETED" || len(end.Properties.Output) < 3 || !strings.Contains(text, `"content":`+end.Properties.Output) {
		t.Errorf("the workflow ended with %+v, the job with %s", end, text)
	}
	if !counted(t, s, "200", "small", "/v1/chat/completions", 1) {
		_, text = call(t, "GET", s.url+"/metrics", "")
		t.Errorf("want one run:\n%s", text)
	}
}

// sample builds a sample of a peer.
func sample(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), strings.TrimSuffix(name, ".go"))
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../deploy/dapr/samples/"+name).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// hold takes the only slot of infer, so that jobs wait until it is released.
func hold(t *testing.T, s *infer) (release func()) {
	t.Helper()
	ctx, release := context.WithCancel(t.Context())
	t.Cleanup(release)
	body := strings.Replace(chat, `"max_tokens":12`, `"max_tokens":7000,"ignore_eos":true,"stream":true`, 1)
	r, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != 200 {
		t.Fatalf("a long answer: %v %v", answer, err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return release
}

// work starts a worker of workflows and waits until the sidecar knows it.
func work(t *testing.T, program string, d *daprtest.Sidecar) *daprtest.Process {
	t.Helper()
	w := daprtest.Launch(t, program, nil, "DAPR_GRPC_PORT="+port(d.GRPC), "DAPR_HTTP_PORT="+port(d.HTTP))
	daprtest.Until(t, "the worker is connected", func() bool {
		_, text := call(t, "GET", d.HTTP+"/v1.0/metadata", "")
		return strings.Contains(text, `"hostReady":true`) && strings.Contains(text, `"connectedWorkers":1`)
	})
	return w
}

// counted says whether infer has answered so many requests.
func counted(t *testing.T, s *infer, code, model, route string, n int) bool {
	t.Helper()
	_, text := call(t, "GET", s.url+"/metrics", "")
	return strings.Contains(text, fmt.Sprintf("\ninfer_requests_total{code=%q,model=%q,route=%q} %d\n", code, model, route, n))
}

// run is what the sidecar says of an instance of a workflow. Its output is JSON.
type run struct {
	Status     string `json:"runtimeStatus"`
	Properties struct {
		Output string `json:"dapr.workflow.output"`
	} `json:"properties"`
}

// ended returns an instance when it has ended.
func ended(t *testing.T, d *daprtest.Sidecar, id string) (r run) {
	t.Helper()
	daprtest.Until(t, "the workflow has ended", func() bool {
		<-time.After(50 * time.Millisecond)
		answer, text := call(t, "GET", d.HTTP+"/v1.0/workflows/dapr/"+id, "")
		return answer.StatusCode == 200 && json.Unmarshal([]byte(text), &r) == nil && r.Status != "RUNNING" && r.Status != "PENDING"
	})
	return r
}
