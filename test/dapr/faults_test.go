//go:build real

package dapr

import (
	"context"
	"encoding/json/v2"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"infer/internal/dapr/daprtest"
)

// matrix is two replicas of the program, each with its sidecar, and a peer's
// sidecar, on one Redis that keeps what it is told over a restart.
type matrix struct {
	t        *testing.T
	program  string
	port     string // of Redis
	redis    *daprtest.Process
	dir      string
	sidecars [2]*daprtest.Sidecar
	replicas [2]*infer
	peer     *daprtest.Sidecar
	logs     []*daprtest.Output // of replicas that are gone
}

func newMatrix(t *testing.T) *matrix {
	m := &matrix{t: t, program: build(t), port: daprtest.Ports(t, 1)[0], dir: t.TempDir()}
	m.startRedis()
	host := "redisHost=127.0.0.1:" + m.port
	components := []daprtest.Component{
		{Name: "jobs", Type: "state.redis", Metadata: host + " keyPrefix=name"},
		// Events are delivered again while they are worked on, when that takes
		// longer than 3 s.
		{Name: "events", Type: "pubsub.redis", Metadata: host + " consumerID=infer concurrency=5 processingTimeout=3000 redeliverInterval=1000"},
	}
	names := filepath.Join(m.dir, "names.db")
	for i := range m.replicas {
		m.sidecars[i] = daprtest.Start(t, daprtest.Options{Names: names, Components: components})
		m.start(i)
	}
	m.peer = daprtest.Start(t, daprtest.Options{AppID: "checkout", Names: names, Components: components[1:]})
	return m
}

func (m *matrix) startRedis() { m.redis = daprtest.KeptRedis(m.t, m.port, m.dir) }

func (m *matrix) start(i int) {
	m.t.Helper()
	if m.replicas[i] != nil {
		m.logs = append(m.logs, m.replicas[i].Out)
	}
	d := m.sidecars[i]
	m.replicas[i] = serve(m.t, m.program, "127.0.0.1:0", []string{"--dapr-pubsub", "events", "--state", "dapr://jobs"},
		"DAPR_GRPC_PORT="+port(d.GRPC), "DAPR_HTTP_PORT="+port(d.HTTP))
}

// send posts body until the status is want, for a minute. An attempt that has
// no answer, or another one, is made again: the peer cannot know whether it was
// taken, and sends the same id or key.
func send(url, body, contentType, key string, want int, headers ...string) (string, error) {
	last := "nothing"
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		r, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(body))
		if err != nil {
			cancel()
			return "", err
		}
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Idempotency-Key", key)
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		answer, err := http.DefaultClient.Do(r)
		if err == nil {
			text, _ := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if answer.StatusCode == want {
				cancel()
				return string(text), nil
			}
			last = answer.Status + " " + string(text)
		} else {
			last = err.Error()
		}
		cancel()
	}
	return "", fmt.Errorf("never %d from %s: %s", want, url, last)
}

const (
	eventsOfRound = 12
	jobsOfRound   = 6
	inFlight      = 9 // of one replica: 5 events, and jobs
)

// fault is what happens in the middle of the work.
type fault struct {
	name   string
	tokens int // of each answer; unique, so that the log tells what ran
	twice  bool
	runs   int    // that may be in vain: what is in flight, or cannot be kept
	strike func() // does it and undoes it
}

func (m *matrix) faults() []fault {
	pause := func(d time.Duration) { <-time.After(d) }
	restart := func(sig syscall.Signal) func() {
		return func() { m.replicas[0].Kill(sig); m.start(0) }
	}
	away := func(d time.Duration) func() {
		return func() { m.sidecars[0].Kill(syscall.SIGKILL); pause(d); m.sidecars[0].Restart(m.t) }
	}
	return []fault{
		{"none", 30, false, 0, func() {}},
		{"each event and job sent twice", 31, true, 0, func() {}},
		{"slower than the redelivery", 400, false, 0, func() {}},
		{"SIGKILL infer", 33, false, inFlight, restart(syscall.SIGKILL)},
		{"SIGTERM infer", 34, false, inFlight, func() {
			restart(syscall.SIGTERM)()
			// What ended or was given up meanwhile has been written.
			for _, bad := range []string{"was not stored", "cannot be handed back", "cannot be kept", "cannot be freed"} {
				if log := m.logs[len(m.logs)-1].String(); strings.Contains(log, bad) {
					m.t.Errorf("a result %s at the stop:\n%s", bad, log)
				}
			}
		}},
		{"SIGKILL daprd", 35, false, inFlight, away(0)},
		{"sidecar refused for 5 s", 36, false, inFlight, away(5 * time.Second)},
		{"Redis restarted", 37, false, 2 * inFlight, func() { m.redis.Kill(syscall.SIGKILL); m.startRedis() }},
		{"Redis frozen for 5 s", 38, false, 2 * inFlight, func() {
			_ = m.redis.Cmd.Process.Signal(syscall.SIGSTOP)
			pause(5 * time.Second)
			_ = m.redis.Cmd.Process.Signal(syscall.SIGCONT)
		}},
	}
}

// round sends work, lets the fault strike in its middle and waits for all.
func (m *matrix) round(n int, f fault) (row string) {
	m.t.Helper()
	body := func(max int) string {
		return fmt.Sprintf(`{"model":"small","max_tokens":%d,"ignore_eos":true,"messages":[{"role":"user","content":"Name three fruits."}]}`, max)
	}
	ids := map[string]bool{} // of jobs
	events, jobs := eventsOfRound, jobsOfRound
	if f.tokens > 100 {
		events, jobs = 6, 2
	}
	half := func(from, of int) error {
		for i := from * events / 2; i < (from+1)*events/2; i++ {
			id := fmt.Sprintf("r%d-%d", n, i)
			event := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"peer","type":"infer.request.v1","datacontenttype":"application/json","data":{"request":%s}}`, id, body(f.tokens))
			for range of {
				if _, err := send(m.peer.HTTP+"/v1.0/publish/events/infer.requests", event, "application/cloudevents+json", id, 204); err != nil {
					return err
				}
			}
		}
		for i := from * jobs / 2; i < (from+1)*jobs/2; i++ {
			for range of {
				text, err := send(m.replicas[1].url+"/v1/jobs", body(f.tokens), "application/json", fmt.Sprintf("r%d-%d", n, i), 202)
				if err != nil {
					return err
				}
				var job struct {
					ID string `json:"id"`
				}
				if err := json.Unmarshal([]byte(text), &job); err != nil {
					return err
				}
				ids[job.ID] = true
			}
		}
		return nil
	}
	of := 1
	if f.twice {
		of = 2
	}
	if err := half(0, of); err != nil {
		m.t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- half(1, of) }()
	f.strike()
	if err := <-sent; err != nil {
		m.t.Fatal(err)
	}
	if len(ids) != jobs {
		m.t.Errorf("%s: %d jobs of %d keys", f.name, len(ids), jobs)
	}
	rerun := m.finish(f, ids)
	once, twice := m.answered(n, f, events)
	runs := 0
	for _, log := range append(slices.Clone(m.logs), m.replicas[0].Out, m.replicas[1].Out) {
		runs += strings.Count(log.String(), fmt.Sprintf(`"completion_tokens":%d,`, f.tokens))
	}
	if most := events + jobs + f.runs; runs > most {
		m.t.Errorf("%s: the engine ran %d times, want %d at most", f.name, runs, most)
	}
	if rerun > 0 {
		m.t.Errorf("%s: %d jobs ran again after their end", f.name, rerun)
	}
	return fmt.Sprintf("%-30s %6d %6d %6d %6d   %6d %6d %6d   %6d", f.name, events, once, twice, events-once-twice, len(ids), len(ids)-rerun, rerun, runs)
}

// finish waits until every job has succeeded, and returns how many ran again
// after that.
func (m *matrix) finish(f fault, ids map[string]bool) (rerun int) {
	m.t.Helper()
	read := func(id string) (done string) {
		r, text := call(m.t, "GET", m.replicas[1].url+"/v1/jobs/"+id, "")
		var job struct {
			Status    string `json:"status"`
			Completed int64  `json:"completed_at"`
			Response  struct {
				Request string `json:"request_id"`
			} `json:"response"`
		}
		if r.StatusCode != 200 {
			return ""
		}
		if err := json.Unmarshal([]byte(text), &job); err != nil {
			m.t.Fatal(err)
		}
		if job.Status == "failed" {
			m.t.Fatalf("%s: %s", f.name, text)
		}
		if job.Status != "succeeded" {
			return ""
		}
		return fmt.Sprint(job.Completed, job.Response.Request)
	}
	ended := map[string]string{}
	daprtest.Until(m.t, f.name+": every job has succeeded", func() bool {
		<-time.After(100 * time.Millisecond)
		for id := range ids {
			if ended[id] == "" {
				ended[id] = read(id)
			}
			if ended[id] == "" {
				return false
			}
		}
		return true
	})
	for id, was := range ended {
		if read(id) != was {
			rerun++
		}
	}
	return rerun
}

// answered waits until every event of the round has its result, and counts.
func (m *matrix) answered(n int, f fault, events int) (once, twice int) {
	m.t.Helper()
	seen := map[string]int{}
	daprtest.Until(m.t, f.name+": every event is answered", func() bool {
		<-time.After(100 * time.Millisecond)
		clear(seen)
		for _, e := range topic(m.t, m.port, "infer.results") {
			if id, ok := strings.CutSuffix(e.ID, ".result"); ok && strings.HasPrefix(id, fmt.Sprintf("r%d-", n)) {
				seen[id]++
				if e.Type != "infer.result.v1" {
					m.t.Fatalf("%s: %+v", f.name, e)
				}
			}
		}
		return len(seen) == events
	})
	for _, times := range seen {
		if times > 1 {
			twice++
		} else {
			once++
		}
	}
	return once, twice
}

// published is an event as it lies in the broker.
type published struct {
	ID      string         `json:"id"`
	Type    string         `json:"type"`
	Subject string         `json:"subject"`
	Parent  string         `json:"traceparent"`
	Data    map[string]any `json:"data"`
}

// topic reads all events of a topic from Redis itself.
func topic(t *testing.T, port, name string) []published {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "redis-cli", "-p", port, "--json", "XRANGE", name, "-", "+").Output()
	if err != nil {
		return nil // away
	}
	var entries [][]any
	if err := json.Unmarshal(out, &entries); err != nil {
		return nil
	}
	var all []published
	for _, entry := range entries {
		fields := entry[1].([]any)
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] != "data" {
				continue
			}
			var e published
			if text := fields[i+1].(string); json.Unmarshal([]byte(text), &e) != nil {
				e = published{ID: text} // no event
			}
			all = append(all, e)
		}
	}
	return all
}

// Whatever fails in the middle of the work, every event is answered and every
// job ends once: what is lost is 0, what runs after its end is 0.
func TestFaults(t *testing.T) {
	m := newMatrix(t)
	table := fmt.Sprintf("\n%-30s %6s %6s %6s %6s   %6s %6s %6s   %6s\n", "fault", "events", "once", "twice", "lost", "jobs", "once", "again", "runs")
	for n, f := range m.faults() {
		row := m.round(n, f)
		t.Log(row)
		table += row + "\n"
	}
	t.Log(table)
}
