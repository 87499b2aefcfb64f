//go:build real

package dapr

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"infer/internal/dapr/daprtest"
)

const request = `{"model":"small","max_tokens":%d,"ignore_eos":true,"messages":[{"role":"user","content":"Name three fruits."}]}`

func publish(t *testing.T, d *daprtest.Sidecar, id, data string, headers ...string) {
	t.Helper()
	event := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"peer","type":"infer.request.v1","datacontenttype":"application/json","data":%s}`, id, data)
	if _, err := send(d.HTTP+"/v1.0/publish/events/infer.requests", event, "application/cloudevents+json", id, 204, headers...); err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, port, name, id string) *published {
	t.Helper()
	for _, e := range topic(t, port, name) {
		if e.ID == id {
			return &e
		}
	}
	return nil
}

// What expired before it could be worked on and what is no event are dead
// letters. What can never be answered gets an error and is done; what a killed
// replica had in flight comes again and is answered.
func TestDeadLetter(t *testing.T) {
	program := build(t)
	redis := daprtest.Ports(t, 1)[0]
	daprtest.Redis(t, redis)
	d := daprtest.Start(t, daprtest.Options{Names: filepath.Join(t.TempDir(), "names.db"),
		Components: []daprtest.Component{{Name: "events", Type: "pubsub.redis", Metadata: "redisHost=127.0.0.1:" + redis + " consumerID=infer concurrency=5 processingTimeout=3000 redeliverInterval=1000"}}})
	start := func() *infer {
		return serve(t, program, "127.0.0.1:0", []string{"--dapr-pubsub", "events", "--dapr-dead-letter", "infer.dead", "--dapr-concurrency", "1"},
			"DAPR_GRPC_PORT="+port(d.GRPC), "DAPR_HTTP_PORT="+port(d.HTTP))
	}
	late := strings.Replace(request, "%d", "2", 1)
	if _, err := send(d.HTTP+"/v1.0/publish/events/infer.requests?metadata.ttlInSeconds=1&metadata.cloudevent.id=late", late, "application/json", "late", 204); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "redis-cli", "-p", redis, "XADD", "infer.requests", "*", "data", "no event").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	<-time.After(2 * time.Second) // the first expires
	s := start()
	publish(t, d, "bad", `"no object"`)
	publish(t, d, "long", fmt.Sprintf(`{"request":`+request+`}`, 300))
	publish(t, d, "next", fmt.Sprintf(`{"request":`+request+`}`, 2))
	for _, id := range []string{"late", "no event"} {
		daprtest.Until(t, id+" is a dead letter", func() bool { return find(t, redis, "infer.dead", id) != nil })
	}
	daprtest.Until(t, "the bad event has its error", func() bool {
		e := find(t, redis, "infer.results", "bad.result")
		return e != nil && e.Type == "infer.error.v1"
	})
	daprtest.Until(t, "the component's crowd is noticed", func() bool { return strings.Contains(s.Out.String(), "hands over more events than are worked on") })
	s.Kill(syscall.SIGKILL)
	start()
	for _, id := range []string{"long", "next"} {
		daprtest.Until(t, id+" is answered", func() bool { return find(t, redis, "infer.results", id+".result") != nil })
	}
	if dead := topic(t, redis, "infer.dead"); len(dead) != 2 {
		t.Errorf("dead letters: %+v", dead)
	}
}

// A peer's trace goes with its event: in its parts and in its result. Parts of
// a stream come in order and end with the terminator.
func TestTokensOverTopic(t *testing.T) {
	program := build(t)
	redis := daprtest.Ports(t, 1)[0]
	daprtest.Redis(t, redis)
	components := []daprtest.Component{{Name: "events", Type: "pubsub.redis", Metadata: "redisHost=127.0.0.1:" + redis}}
	own, peer := pair(t, "", components)
	s := serve(t, program, "127.0.0.1:0", []string{"--dapr-pubsub", "events"}, "DAPR_GRPC_PORT="+port(own.GRPC), "DAPR_HTTP_PORT="+port(own.HTTP))
	const trace = "0af7651916cd43dd8448eb211c80319c"
	// The sidecar takes the trace from the header, and not from the event.
	publish(t, peer, "s", fmt.Sprintf(`{"request":`+strings.Replace(request, "{", `{"stream":true,`, 1)+`}`, 60), "Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	var result *published
	daprtest.Until(t, "the result", func() bool { result = find(t, redis, "infer.results", "s.result"); return result != nil })
	text := ""
	for n := 1; ; n++ {
		e := find(t, redis, "infer.results", fmt.Sprintf("s.delta.%d", n))
		if e == nil {
			if deltas, _ := result.Data["deltas"].(float64); int(deltas) != n-1 || n < 2 {
				t.Errorf("%d parts, the result says %v", n-1, result.Data)
			}
			break
		}
		if e.Type != "infer.delta.v1" || e.Subject != "s" || !strings.Contains(e.Parent, trace) {
			t.Errorf("part %d: %+v", n, e)
		}
		text += e.Data["sse"].(string)
	}
	if !strings.HasSuffix(text, "data: [DONE]\n\n") || !strings.Contains(result.Parent, trace) {
		t.Errorf("%q, trace of the result %q", text, result.Parent)
	}
	daprtest.Until(t, "the log has the trace", func() bool { return strings.Contains(s.Out.String(), `"trace_id":"`+trace+`"`) })
}
