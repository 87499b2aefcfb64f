package jobs

import (
	"context"
	"encoding/json/v2"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// cluster is two processes over one store, which are killed at any step and
// started again.
type cluster struct {
	t      *testing.T
	shared store.Store
	eng    *engine
	random func() float64
	start  func(store.Store) *replica
	deadly float64 // how likely each operation is the last
	calm   bool    // nobody dies any more
	mu     sync.Mutex
	alive  [2]*replica
	wg     sync.WaitGroup
	stop   chan struct{}
}

func newCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{t: t, shared: store.NewMemory(64 << 20), eng: newEngine(), random: seeded(seed), deadly: 0.02, stop: make(chan struct{})}
	c.eng.took = func() time.Duration { return time.Duration(c.random() * float64(40*time.Second)) }
	c.start = func(st store.Store) *replica { return newReplica(t, st, "", c.eng.chain) }
	return c
}

// begin starts the processes.
func (c *cluster) begin() {
	for i := range c.alive {
		c.wg.Go(func() { c.keep(i) })
	}
}

// keep runs one process after the other.
func (c *cluster) keep(i int) {
	for {
		killed := make(chan struct{})
		m := &mortal{Store: c.shared, kill: sync.OnceFunc(func() { close(killed) })}
		m.die = func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return !c.calm && c.random() < c.deadly
		}
		r := c.start(m)
		c.mu.Lock()
		c.alive[i] = r
		c.mu.Unlock()
		select {
		case <-killed:
		case <-c.stop:
			r.end()
			return
		}
		r.end()
		<-time.After(time.Duration(c.random() * float64(time.Minute)))
	}
}

// any returns one of the processes, dead or alive.
func (c *cluster) any() *replica {
	for {
		c.mu.Lock()
		r := c.alive[int(c.random()*2)]
		c.mu.Unlock()
		if r != nil {
			return r
		}
		<-time.After(time.Second)
	}
}

// send asks until somebody answers, as a client with retries does.
func (c *cluster) send(want int, method, path, body string, headers ...string) string {
	c.t.Helper()
	for range 1000 {
		status, text := c.any().do(method, path, body, headers...)
		if status == want {
			return text
		}
		if status < 500 {
			c.t.Fatalf("%s %s: %d %s", method, path, status, text)
		}
		<-time.After(time.Second)
	}
	status, text := c.any().do(method, path, body, headers...)
	c.t.Fatalf("%s %s: nobody answers: %d %s", method, path, status, text)
	return ""
}

// settle lets nobody die any more, and ends the processes when wait returns.
func (c *cluster) settle(wait func()) {
	c.mu.Lock()
	c.calm = true
	c.mu.Unlock()
	wait()
	close(c.stop)
	c.wg.Wait()
}

// Whatever dies at whatever step: a job that was accepted ends exactly once,
// and none begins to run after it has ended.
func TestJobsSurviveCrashes(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, seed)
				c.begin()
				ids := map[string]string{} // prompt to id
				var mu sync.Mutex
				c.eng.before = func(prompt string) {
					mu.Lock()
					id := ids[prompt]
					mu.Unlock()
					if it, err := c.shared.Get(context.Background(), taskKey(kindJob, "", id)); id != "" && err == nil &&
						strings.Contains(string(it.Value), `"state":"ended"`) {
						t.Errorf("%s runs after it has ended", prompt)
					}
				}
				for i := range 12 {
					prompt := fmt.Sprintf("p%d", i)
					body := `{"url":"/v1/completions","body":{"prompt":"` + prompt + `"}}`
					id := object(t, c.send(202, "POST", "/v1/jobs", body, idempotencyHeader, prompt))["id"].(string)
					mu.Lock()
					ids[prompt] = id
					mu.Unlock()
					if again := object(t, c.send(202, "POST", "/v1/jobs", body, idempotencyHeader, prompt)); again["id"] != id {
						t.Errorf("the same key made %v and %v", id, again["id"])
					}
					<-time.After(time.Duration(c.random() * float64(30*time.Second)))
				}
				c.settle(func() {
					for prompt, id := range ids {
						o := wait3(t, c, "/v1/jobs/"+id)
						text, _ := json.Marshal(o["response"])
						if attempts(o) || strings.Contains(string(text), `"re: `+prompt+`"`) {
							continue
						}
						t.Errorf("%s ended as %v", prompt, o)
					}
					<-time.After(2 * orphanAfter)
				})
				if left, _ := c.shared.List(t.Context(), todoPrefix, "", 10); len(left) > 0 {
					t.Errorf("reminders are left: %q", left)
				}
			})
		})
	}
}

// attempts says that the job's processes died too often for it.
func attempts(o map[string]any) bool {
	e, _ := o["error"].(map[string]any)
	return e["code"] == "attempts_exhausted"
}

// wait3 asks until a task has ended.
func wait3(t *testing.T, c *cluster, path string) map[string]any {
	t.Helper()
	for range 5000 {
		if o := object(t, c.send(200, "GET", path, "")); ended3(o) {
			return o
		}
		<-time.After(time.Second)
	}
	t.Fatalf("%s never ends", path)
	return nil
}

// A batch whose processes die has every line once in its output, and runs none
// whose result is stored.
func TestBatchesSurviveCrashes(t *testing.T) {
	const n = 25
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, seed)
				c.begin()
				var known atomic.Value // the batch's id; it may run before we are told
				c.eng.before = func(prompt string) {
					id, ok := known.Load().(string)
					var i int
					_, _ = fmt.Sscanf(prompt, "p%d", &i) // the prompts are ours
					if _, err := c.shared.Get(context.Background(), lineKey(id, i+1)); ok && err == nil {
						t.Errorf("%s runs although its result is stored", prompt)
					}
				}
				var file map[string]any
				for {
					if status, text := c.any().upload("batch", requests(n)); status == 200 {
						file = object(t, text)
						break
					}
					<-time.After(time.Second)
				}
				body := fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"24h"}`, file["id"])
				id := object(t, c.send(200, "POST", "/v1/batches", body, idempotencyHeader, "b"))["id"].(string)
				known.Store(id)
				<-time.After(3 * time.Minute)
				c.settle(func() {
					o := wait3(t, c, "/v1/batches/"+id)
					if o["status"] == "failed" && strings.Contains(fmt.Sprint(o["errors"]), "attempts_exhausted") {
						return
					}
					output := c.send(200, "GET", "/v1/files/"+o["output_file_id"].(string)+"/content", "")
					for i := range n {
						if k := strings.Count(output, fmt.Sprintf(`"custom_id":"c%d"`, i)); k != 1 {
							t.Errorf("c%d is %d times in the output", i, k)
						}
					}
				})
			})
		})
	}
}
