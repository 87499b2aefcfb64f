//go:build real

package deploy

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"infer/internal/simulate"
)

// trigger and answer are what test/keda reads and writes.
type trigger struct {
	Type       string            `json:"type"`
	MetricType string            `json:"metricType"`
	Metadata   map[string]string `json:"metadata"`
}

type answer struct {
	MetricType    string
	Target, Value float64
	Active        bool
	Error         string
}

// keda asks KEDA's own scaler.
func keda(t *testing.T, tr trigger) answer {
	t.Helper()
	program := os.Getenv("INFER_TEST_KEDA")
	if program == "" {
		t.Fatal("INFER_TEST_KEDA is empty; run make test-real, which builds KEDA's scalers")
	}
	in, err := json.Marshal(tr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("keda: %v", err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	var a answer
	if err := json.Unmarshal(line, &a, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatalf("keda: %s: %v", out, err)
	}
	return a
}

// freePort returns an address that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// four is four replicas whose GPUs are used to 95 %.
const four = `(vector(95) or label_replace(vector(95),"r","2","","") or label_replace(vector(95),"r","3","","") or label_replace(vector(95),"r","4","",""))`

// KEDA's own scalers read infer by three ways, and the HPA's formula makes of
// it what the rules promise; also the average that never passes two.
func TestKEDA(t *testing.T) {
	scaler := freePort(t)
	addr := infer(t, "--scaler-listen", scaler)
	p := prometheus(t, addr)
	ctx, leave := context.WithCancel(t.Context())
	var asked sync.WaitGroup
	defer asked.Wait()
	defer leave()
	for range 6 { // on two slots
		asked.Go(func() {
			body := `{"model":"m","max_tokens":1500,"ignore_eos":true,"stream":true,"messages":[{"role":"user","content":"Count."}]}`
			req, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				return
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				<-ctx.Done()
				_ = resp.Body.Close()
			}
		})
	}
	// KEDA asks for the second that has begun, so that a sample must be older.
	eventually(t, "six requests on two slots in Prometheus", func() bool {
		_, v, err := p.query("sum(infer_saturation offset 1500ms)")
		return err == nil && v == "3"
	})
	prom := func(query, threshold string) map[string]string {
		return map[string]string{"serverAddress": p.url, "query": query, "threshold": threshold}
	}
	for _, test := range []struct {
		name    string
		trigger trigger
		current int
		value   float64
		want    int // replicas
	}{
		{"external", trigger{"external", "", map[string]string{"scalerAddress": scaler, "target": "0.8"}}, 1, 3, 4},
		{"external, target 1", trigger{"external", "", map[string]string{"scalerAddress": scaler}}, 1, 3, 3},
		{"metrics-api", trigger{"metrics-api", "", map[string]string{"url": "http://" + addr + "/scale", "valueLocation": "saturation", "targetValue": "0.8"}}, 1, 3, 4},
		{"prometheus", trigger{"prometheus", "", prom("sum(infer_saturation)", "0.8")}, 1, 3, 4},
		{"queue depth", trigger{"prometheus", "", prom("sum(infer_requests_waiting) + sum(infer_requests_held)", "4")}, 1, 4, 1},
		{"average of utilization, AverageValue", trigger{"prometheus", "", prom("avg("+four+")", "80")}, 4, 95, 2},
		{"average of utilization, Value", trigger{"prometheus", "Value", prom("avg("+four+")", "80")}, 4, 95, 5},
		{"sum of utilization, AverageValue", trigger{"prometheus", "", prom("sum("+four+")", "80")}, 4, 380, 5},
	} {
		a := keda(t, test.trigger)
		got := 0
		if a.Error == "" {
			got = simulate.Desired(a.MetricType, a.Value, a.Target, 0.1, test.current, test.current)
		}
		t.Logf("%-38s %-12s value %5.1f, target %4.1f, %d replicas now: %d wanted %s", test.name, a.MetricType, a.Value, a.Target, test.current, got, a.Error)
		if a.Error != "" || a.Value != test.value || got != test.want || !a.Active {
			t.Errorf("%s: %+v makes %d replicas, want value %v and %d", test.name, a, got, test.value, test.want)
		}
	}
	if a := keda(t, trigger{"external", "", map[string]string{"scalerAddress": scaler, "target": "full"}}); a.Error == "" {
		t.Errorf("a wrong target: %+v", a)
	}
}
