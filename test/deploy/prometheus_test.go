package deploy

import (
	"bytes"
	"encoding/json/v2"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// patience is how long something may take on a busy machine.
const patience = 2 * time.Minute

// journal is what a program says.
type journal struct {
	mu sync.Mutex
	b  strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// program starts a program that ends with the test, and returns the address
// that the first line like listening names.
func program(t *testing.T, listening *regexp.Regexp, name string, args ...string) (address string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+cmd.Dir)
	log := &journal{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; run make test, which says what to install", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, log)
		}
	})
	eventually(t, name+" to listen", func() bool {
		if found := listening.FindStringSubmatch(log.String()); found != nil {
			address = found[1]
		}
		return address != ""
	})
	return address
}

// eventually asks until ok, once in a tenth of a second.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	retry, end := time.NewTicker(100*time.Millisecond), time.After(patience)
	defer retry.Stop()
	for !ok() {
		select {
		case <-retry.C:
		case <-end:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func get(address string) (string, bool) {
	resp, err := http.Get(address)
	if err != nil {
		return err.Error(), false
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err == nil && resp.StatusCode == http.StatusOK
}

// infer starts the program with the real model and returns its address.
func infer(t *testing.T, args ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "infer")
	if out, err := exec.Command("go", "build", "-C", "../..", "-buildvcs=false", "-o", binary, "./cmd/infer").CombinedOutput(); err != nil {
		t.Fatalf("build infer: %v\n%s", err, out)
	}
	for _, name := range []string{"INFER_TEST_MODEL_GGUF", "INFER_TEST_ONNXRUNTIME"} {
		if os.Getenv(name) == "" {
			t.Fatalf("%s is empty; run make test, which fetches the real parts", name)
		}
	}
	addr := program(t, regexp.MustCompile(`"msg":"listening".*"addr":"([^"]+)"`), binary, append([]string{"serve", "--listen=127.0.0.1:0", "--model", os.Getenv("INFER_TEST_MODEL_GGUF"), "--served-model-name=m",
		"--onnx-library", os.Getenv("INFER_TEST_ONNXRUNTIME"), "--device=cpu", "--slots=2", "--threads=1", "--cache", t.TempDir()}, args...)...)
	eventually(t, "infer to be ready", func() bool { _, ok := get("http://" + addr + "/readyz"); return ok })
	return addr
}

// server is a Prometheus that scrapes infer.
type server struct{ url string }

func prometheus(t *testing.T, target string) server {
	t.Helper()
	rules, err := filepath.Abs("../../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The interval bounds a scrape, too, and one that is late takes the series away.
	config := fmt.Sprintf("global: {scrape_interval: 3s, evaluation_interval: 1s}\nrule_files: [%q]\n"+
		"scrape_configs: [{job_name: infer, static_configs: [{targets: [%q]}]}]\n", rules, target)
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := program(t, regexp.MustCompile(`msg="Listening on".* address=(\S+)`), "prometheus",
		"--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	p := server{"http://" + addr}
	eventually(t, "Prometheus to be ready", func() bool { _, ok := get(p.url + "/-/ready"); return ok })
	return p
}

// query returns how many series the answer has, and the first value.
func (p server) query(expr string) (series int, value string, err error) {
	body, ok := get(p.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if !ok {
		return 0, "", fmt.Errorf("%s", body)
	}
	var answer struct {
		Data struct {
			Result []struct{ Value []any }
		}
	}
	if err := json.Unmarshal([]byte(body), &answer, json.MatchCaseInsensitiveNames(true)); err != nil {
		return 0, "", fmt.Errorf("%s: %w", body, err)
	}
	if r := answer.Data.Result; len(r) > 0 {
		return len(r), fmt.Sprint(r[0].Value[1]), nil
	}
	return 0, "", nil
}

// expressions returns every query in the JSON or YAML files, by where it is.
func expressions(t *testing.T, keys string, files ...string) map[string]string {
	t.Helper()
	wanted := regexp.MustCompile("^(" + keys + ")$")
	found := map[string]string{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				if s, ok := inner.(string); ok && wanted.MatchString(k) {
					found[at+"."+k] = strings.ReplaceAll(s, "$__rate_interval", "1m")
				}
				walk(at+"."+k, inner)
			}
		case []any:
			for i, inner := range v {
				walk(fmt.Sprintf("%s[%d]", at, i), inner)
			}
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("../../deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		dec := yaml.NewDecoder(bytes.NewReader(text)) // JSON is YAML too
		for {
			var doc map[string]any
			if err := dec.Decode(&doc); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			walk(file, doc)
		}
	}
	return found
}

// foreign are the names that a scrape of the small model on a CPU lacks: those
// of a GPU and those of vLLM.
var foreign = regexp.MustCompile(`^(gpu_utilization|nvidia_gpu_utilization|infer_gpu_(memory_used_bytes|memory_total_bytes|power_watts|` +
	`temperature_celsius|seconds_total|energy_joules_total)|vllm:(kv_cache_usage_perc|num_requests_waiting))$`)

// Every query that is shipped is one that Prometheus takes, names only metrics
// that infer has, and, for a scaler, has exactly one series.
func TestShippedQueries(t *testing.T) {
	addr := infer(t)
	ask := `{"model":"m","max_tokens":4,"stream":true,"messages":[{"role":"user","content":"hi"}]}`
	resp, err := http.Post("http://"+addr+"/v1/chat/completions", "application/json", strings.NewReader(ask))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // only the metrics matter
	_ = resp.Body.Close()
	p := prometheus(t, addr)
	eventually(t, "a recorded rule", func() bool { n, v, err := p.query("infer:saturation:sum"); return err == nil && n == 1 && v == "0" })
	exposition, _ := get("http://" + addr + "/metrics")

	scalers := expressions(t, "query", "containerapp.yaml", "kubernetes/scaledobject-queue.yaml", "kubernetes/scaledobject-gpu.yaml")
	panels := expressions(t, "expr", "grafana/dashboard.json", "prometheus/rules.yaml")
	if len(scalers) < 3 || len(panels) < 40 {
		t.Fatalf("%d queries of scalers and %d of panels and rules", len(scalers), len(panels))
	}
	name := regexp.MustCompile(`\b(infer_\w+|vllm:\w+|\w*gpu_utilization)\b`)
	for _, all := range []map[string]string{scalers, panels} {
		for at, expr := range all {
			n, _, err := p.query(expr)
			if err != nil {
				t.Errorf("%s: %s: %v", at, expr, err)
			}
			if _, ok := scalers[at]; ok && n != 1 && !strings.Contains(expr, "gpu") {
				t.Errorf("%s: %s has %d series, a scaler wants one", at, expr, n)
			}
			for _, metric := range name.FindAllString(expr, -1) {
				if !foreign.MatchString(metric) && !strings.Contains(exposition, "\n"+metric) &&
					!strings.Contains(exposition, "# TYPE "+metric+" ") && !neverInARun[metric] {
					t.Errorf("%s names %s, which /metrics does not have", at, metric)
				}
			}
		}
	}
}

// neverInARun are series that only a vLLM engine makes, or a Dapr sidecar.
var neverInARun = map[string]bool{"infer_engine_exits_total": true, "infer_engine_restarts_total": true, "infer_dapr_subscribed": true}

// A query for a scaler is a sum: under AverageValue an average asks for two
// replicas at most.
func TestScalersSum(t *testing.T) {
	for at, expr := range expressions(t, "query", "containerapp.yaml", "kubernetes/scaledobject-queue.yaml", "kubernetes/scaledobject-gpu.yaml") {
		if !strings.HasPrefix(expr, "sum(") || strings.Contains(expr, "avg(") {
			t.Errorf("%s: %s is no sum", at, expr)
		}
	}
}

func TestPromtool(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = "../../deploy/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("SUCCESS")) {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
