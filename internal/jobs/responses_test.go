package jobs

import (
	"encoding/json/v2"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
	"infer/internal/translate"
)

// talker is a chat engine that says words, one a second.
type talker struct {
	mu    sync.Mutex
	asked []string // messages of each request, as "role: content" lines
	words int
	pad   string                      // of each word
	fault func(run int) *openai.Error // instead of the answer of a run, or nil
	midst func(run int) *openai.Error // after the first word
}

func (e *talker) chain(string, bool) http.Handler { return translate.Responses(e) }

func (e *talker) runs() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.asked)
}

func (e *talker) last() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked[len(e.asked)-1]
}

func (e *talker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Stream   bool `json:"stream"`
		Messages []struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"messages"`
	}
	if err := json.UnmarshalRead(r.Body, &req); err != nil {
		openai.WriteError(w, openai.Internal(err.Error()))
		return
	}
	var lines []string
	for _, m := range req.Messages {
		lines = append(lines, m.Role+": "+m.Content)
	}
	e.mu.Lock()
	e.asked = append(e.asked, strings.Join(lines, "\n"))
	run := len(e.asked)
	e.mu.Unlock()
	if e.fault != nil {
		if fault := e.fault(run); fault != nil {
			openai.WriteError(w, fault)
			return
		}
	}
	var all strings.Builder
	out := openai.NewStream(w)
	chunk := func(delta map[string]any, finish any) {
		_ = out.Send(map[string]any{"created": 1, "model": "m", "choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}}})
	}
	for i := range e.words {
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
			return
		}
		word := fmt.Sprintf("w%d ", i) + e.pad
		all.WriteString(word)
		if req.Stream {
			chunk(map[string]any{"content": word}, nil)
			if e.midst != nil {
				if fault := e.midst(run); fault != nil {
					_ = out.Fail(fault)
					return
				}
			}
		}
	}
	if req.Stream {
		chunk(map[string]any{}, "stop")
		_ = out.Done()
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"created": 1, "model": "m", "choices": []any{map[string]any{"index": 0, "finish_reason": "stop",
		"message": map[string]any{"role": "assistant", "content": all.String()}}}})
}

// talking is a replica with the route of responses.
func talking(t *testing.T, st store.Store, e *talker) *replica {
	r := newReplica(t, st, "", e.chain)
	r.mux.Handle("POST /v1/responses", r.s.Before(translate.Responses(e)))
	return r
}

// chats runs a test on one replica and the fake clock.
func chats(t *testing.T, f func(*testing.T, *replica, *talker)) {
	synctest.Test(t, func(t *testing.T) {
		e := &talker{words: 3}
		r := talking(t, store.NewMemory(1<<30), e)
		defer r.end()
		f(t, r, e)
	})
}

// event is one of a stream.
type event struct {
	Type     string `json:"type"`
	Number   int    `json:"sequence_number"`
	Delta    string `json:"delta"`
	Response *struct {
		ID     string `json:"id"`
		Status string `json:"status"`
		Error  *struct {
			Message string `json:"message"`
		} `json:"error"`
	} `json:"response"`
}

// events reads a stream.
func events(t *testing.T, text string) []event {
	t.Helper()
	var all []event
	for _, line := range strings.Split(text, "\n") {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var e event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		all = append(all, e)
	}
	return all
}

func terminal(e event) bool {
	return e.Type == "response.completed" || e.Type == "response.failed" || e.Type == "response.incomplete"
}

// inOrder holds a whole stream to its numbers, from first on, and to one end,
// the last.
func inOrder(t *testing.T, all []event, first int) {
	t.Helper()
	for i, e := range all {
		if e.Number != first+i {
			t.Fatalf("event %d has number %d, want %d, in %+v", i, e.Number, first+i, all)
		}
		if terminal(e) != (i == len(all)-1) {
			t.Fatalf("event %d of %d is %s", i, len(all), e.Type)
		}
	}
	if len(all) == 0 {
		t.Fatal("no events")
	}
}

// text is what the deltas say after the last restart.
func text(all []event) string {
	var b strings.Builder
	for _, e := range all {
		switch e.Type {
		case "response.queued":
			b.Reset()
		case "response.output_text.delta":
			b.WriteString(e.Delta)
		}
	}
	return b.String()
}

func outputOf(o map[string]any) string {
	var b strings.Builder
	for _, item := range o["output"].([]any) {
		for _, part := range item.(map[string]any)["content"].([]any) {
			b.WriteString(part.(map[string]any)["text"].(string))
		}
	}
	return b.String()
}

const said = "w0 w1 w2 "

// A conversation goes on from a kept response, whole or streamed, and is
// listed; what is deleted, or another caller's, is not there.
func TestKeptResponses(t *testing.T) {
	chats(t, func(t *testing.T, r *replica, e *talker) {
		first := r.must("POST", "/v1/responses", `{"input":"one","instructions":"I"}`)
		id := first["id"].(string)
		if first["store"] != true || outputOf(first) != said {
			t.Errorf("answered %v", first)
		}
		if o := r.must("GET", "/v1/responses/"+id, ""); fmt.Sprint(o["output"]) != fmt.Sprint(first["output"]) || o["status"] != "completed" || o["id"] != id {
			t.Errorf("kept as %v", o)
		}
		_, body := r.do("POST", "/v1/responses", fmt.Sprintf(`{"stream":true,"input":[{"role":"user","content":"two"}],"previous_response_id":%q}`, id))
		if want := "user: one\nassistant: " + said + "\nuser: two"; e.last() != want {
			t.Errorf("the model was asked %q, want %q", e.last(), want)
		}
		all := events(t, body)
		inOrder(t, all, 0)
		second := object(t, body[strings.LastIndex(body, "data: ")+6:])["response"].(map[string]any)
		if second["previous_response_id"] != id || second["store"] != true || text(all) != said {
			t.Errorf("streamed %v", second)
		}
		r.must("POST", "/v1/responses", fmt.Sprintf(`{"store":false,"input":"three","previous_response_id":%q}`, second["id"]))
		if want := "user: one\nassistant: " + said + "\nuser: two\nassistant: " + said + "\nuser: three"; e.last() != want {
			t.Errorf("the model was asked %q, want %q", e.last(), want)
		}
		path := "/v1/responses/" + second["id"].(string)
		var roles []string
		for after, more := "", true; more; {
			l := r.must("GET", path+"/input_items?order=asc&limit=2&after="+after, "")
			for _, item := range l["data"].([]any) {
				item := item.(map[string]any)
				part := item["content"].([]any)[0].(map[string]any)
				roles = append(roles, fmt.Sprint(item["role"], " ", part["type"], " ", part["text"]))
			}
			after, more = l["last_id"].(string), l["has_more"].(bool)
		}
		if want := []string{"user input_text one", "assistant output_text " + said, "user input_text two"}; !slices.Equal(roles, want) {
			t.Errorf("items %q, want %q", roles, want)
		}
		for _, ask := range [][2]string{{"GET", path}, {"DELETE", path}, {"GET", path + "/input_items"}, {"POST", path + "/cancel"}} {
			if status, _ := r.do(ask[0], ask[1], "", "From", "somebody else"); status != 404 {
				t.Errorf("another caller: %s %s is %d", ask[0], ask[1], status)
			}
		}
		if status, body := r.do("POST", "/v1/responses", fmt.Sprintf(`{"input":"x","previous_response_id":%q}`, id), "From", "somebody else"); status != 400 || !strings.Contains(body, "previous_response_not_found") {
			t.Errorf("another caller goes on: %d %s", status, body)
		}
		if o := r.must("DELETE", path, ""); o["deleted"] != true || o["id"] != second["id"] {
			t.Errorf("deleted as %v", o)
		}
		if status, _ := r.do("GET", path, ""); status != 404 {
			t.Errorf("a deleted response is there: %d", status)
		}
		off := r.must("POST", "/v1/responses", `{"input":"x","store":false}`)
		if status, _ := r.do("GET", "/v1/responses/"+off["id"].(string), ""); status != 404 || off["store"] != false {
			t.Errorf("kept without leave: %d, store %v", status, off["store"])
		}
		<-time.After(config().ResultTTL + time.Minute)
		if status, _ := r.do("GET", "/v1/responses/"+id, ""); status != 404 {
			t.Errorf("an old response is there: %d", status)
		}
	})
}

func TestBackgroundResponse(t *testing.T) {
	chats(t, func(t *testing.T, r *replica, e *talker) {
		o := r.must("POST", "/v1/responses", `{"input":"one","background":true,"metadata":{"k":"v"}}`)
		if o["status"] != "queued" || o["background"] != true || o["store"] != true || len(o["output"].([]any)) != 0 {
			t.Errorf("accepted as %v", o)
		}
		path := "/v1/responses/" + o["id"].(string)
		<-time.After(time.Second)
		if o := r.must("GET", path, ""); o["status"] != "in_progress" {
			t.Errorf("runs as %v", o)
		}
		if status, body := r.do("POST", "/v1/responses", fmt.Sprintf(`{"input":"x","previous_response_id":%q}`, o["id"])); status != 409 || !strings.Contains(body, "wrong_state") {
			t.Errorf("goes on from what runs: %d %s", status, body)
		}
		done := r.until(path, ended3)
		if done["status"] != "completed" || outputOf(done) != said || done["id"] != o["id"] || done["created_at"] != o["created_at"] ||
			done["background"] != true || fmt.Sprint(done["metadata"]) != fmt.Sprint(o["metadata"]) {
			t.Errorf("ended as %v", done)
		}
		if again := r.must("POST", path+"/cancel", ""); fmt.Sprint(again) != fmt.Sprint(done) {
			t.Errorf("cancelled after its end: %v", again)
		}
		r.must("POST", "/v1/responses", fmt.Sprintf(`{"input":"two","background":true,"previous_response_id":%q}`, o["id"]))
		<-time.After(time.Minute)
		if want := "user: one\nassistant: " + said + "\nuser: two"; e.last() != want {
			t.Errorf("the model was asked %q, want %q", e.last(), want)
		}
		e.words = 1000
		long := r.must("POST", "/v1/responses", `{"input":"long","background":true}`)["id"].(string)
		<-time.After(5 * time.Second)
		for range 2 {
			if o := r.must("POST", "/v1/responses/"+long+"/cancel", ""); o["status"] != "cancelled" {
				t.Errorf("cancelled as %v", o)
			}
		}
		synctest.Wait()
		if n := len(r.s.tasks); n != 0 {
			t.Errorf("%d tasks run after the cancellation", n)
		}
		if status, body := r.do("POST", "/v1/responses", fmt.Sprintf(`{"input":"x","previous_response_id":%q}`, long)); status != 400 || !strings.Contains(body, "cancelled") {
			t.Errorf("goes on from what was cancelled: %d %s", status, body)
		}
		running := r.must("POST", "/v1/responses", `{"input":"long","background":true,"stream":false}`)["id"].(string)
		<-time.After(5 * time.Second)
		if o := r.must("DELETE", "/v1/responses/"+running, ""); o["deleted"] != true {
			t.Errorf("deleted as %v", o)
		}
		<-time.After(time.Minute)
		for _, prefix := range []string{"todo/", "log/" + ownerKey("") + "/" + running + "/"} {
			if keys, err := r.s.store.List(t.Context(), prefix, "", 10); err != nil || len(keys) != 0 {
				t.Errorf("left under %s: %q, %v", prefix, keys, err)
			}
		}
	})
}

// A stream is read by who asked, and again from any event on, while it runs and
// when it has ended.
func TestBackgroundStream(t *testing.T) {
	chats(t, func(t *testing.T, r *replica, e *talker) {
		e.words = 40
		_, body := r.do("POST", "/v1/responses", `{"input":"one","background":true,"stream":true}`)
		all := events(t, body)
		inOrder(t, all, 0)
		if all[0].Type != "response.created" || all[0].Response.Status != "queued" || all[1].Type != "response.queued" || all[2].Type != "response.in_progress" {
			t.Errorf("began %+v", all[:3])
		}
		id := object(t, strings.TrimPrefix(strings.Split(body, "\n")[1], "data: "))["response"].(map[string]any)["id"].(string)
		path := "/v1/responses/" + id
		for after := range len(all) {
			_, part := r.do("GET", fmt.Sprintf("%s?stream=true&starting_after=%d", path, after), "")
			if got := events(t, part); !slices.EqualFunc(got, all[after+1:], func(a, b event) bool { return a.Number == b.Number && a.Type == b.Type && a.Delta == b.Delta }) {
				t.Fatalf("after %d came %+v", after, got)
			}
		}
		if _, part := r.do("GET", path+"?starting_after=3", `{"stream":true}`); len(events(t, part)) != len(all)-4 {
			t.Errorf("as OpenAI's Go client asks: %s", part)
		}
		if _, again := r.do("GET", path+"?stream=true", ""); again != body {
			t.Errorf("told again as %s", again)
		}
		if o := r.must("GET", path, ""); outputOf(o) != text(all) || o["status"] != "completed" {
			t.Errorf("ended as %v", o)
		}
	})
}

func TestResponseRefusals(t *testing.T) {
	chats(t, func(t *testing.T, r *replica, e *talker) {
		kept := r.must("POST", "/v1/responses", `{"input":"x"}`)["id"].(string)
		whole := r.must("POST", "/v1/responses", `{"input":"x","background":true}`)["id"].(string)
		_, body := r.do("POST", "/v1/responses", `{"input":"x","background":true,"stream":true}`)
		n := len(events(t, body))
		streamed := object(t, strings.TrimPrefix(strings.Split(body, "\n")[1], "data: "))["response"].(map[string]any)["id"].(string)
		r.until("/v1/responses/"+whole, ended3)
		runs := e.runs()
		for _, tt := range []struct {
			method, path, body string
			status             int
			code, param        string
		}{
			{"GET", "/resp_nope", "", 404, "not_found", "response_id"},
			{"GET", "/a%7C%7Cb", "", 404, "not_found", "response_id"},
			{"DELETE", "/resp_nope", "", 404, "not_found", "response_id"},
			{"POST", "/resp_nope/cancel", "", 404, "not_found", "response_id"},
			{"GET", "/resp_nope/input_items", "", 404, "not_found", "response_id"},
			{"GET", "/" + kept + "/input_items?order=up", "", 400, "invalid_value", "order"},
			{"GET", "/" + kept + "/input_items?limit=0", "", 400, "invalid_value", "limit"},
			{"GET", "/" + kept + "/input_items?after=msg_nope", "", 400, "invalid_value", "after"},
			{"GET", "/" + kept + "?stream=true", "", 400, "invalid_value", "stream"},
			{"GET", "/" + whole + "?stream=true", "", 400, "invalid_value", "stream"},
			{"GET", "/" + streamed + "?stream=perhaps", "", 400, "invalid_value", "stream"},
			{"GET", "/" + streamed + "?starting_after=1", "", 400, "invalid_value", "starting_after"},
			{"GET", "/" + streamed + "?stream=true&starting_after=x", "", 400, "invalid_value", "starting_after"},
			{"GET", "/" + streamed + "?stream=true&starting_after=-1", "", 400, "invalid_value", "starting_after"},
			{"GET", "/" + streamed + fmt.Sprintf("?stream=true&starting_after=%d", n), "", 400, "invalid_value", "starting_after"},
			{"POST", "/" + kept + "/cancel", "", 400, "wrong_state", "response_id"},
			{"POST", "", `{"input":"x","background":true,"store":false}`, 400, "invalid_value", "store"},
			{"POST", "", `{"input":"x","background":"yes"}`, 400, "invalid_value", "background"},
			{"POST", "", `{"input":"x","previous_response_id":1}`, 400, "invalid_value", "previous_response_id"},
			{"POST", "", `{"input":"x","previous_response_id":"resp_nope"}`, 400, "previous_response_not_found", "previous_response_id"},
			{"POST", "", `{"input":"x","conversation":"conv_1"}`, 400, "unsupported_parameter", "conversation"},
			{"POST", "", `{"background":true}`, 400, "missing_field", "input"},
			{"POST", "", `{"input":[],"background":true}`, 400, "invalid_value", "input"},
			{"POST", "", `{"input":[{"type":"item_reference","id":"x"}],"background":true}`, 400, "unsupported_parameter", "input[0].type"},
			{"POST", "", `{"input":7,"previous_response_id":"` + kept + `"}`, 400, "invalid_value", "input"},
		} {
			status, text := r.do(tt.method, "/v1/responses"+tt.path, tt.body)
			err, _ := object(t, text)["error"].(map[string]any)
			if status != tt.status || err["code"] != tt.code || err["param"] != tt.param {
				t.Errorf("%s %s %s: %d %s; want %d %s about %s", tt.method, tt.path, tt.body, status, text, tt.status, tt.code, tt.param)
			}
		}
		if e.runs() != runs {
			t.Errorf("the model was asked %d times by what is refused", e.runs()-runs)
		}
	})
}

// What the engine refuses ends a response; what it breaks is tried again, and
// what it has no room for waits.
func TestBackgroundFaults(t *testing.T) {
	bad := openai.Invalid("messages", openai.CodeContextLength, "too long a prompt")
	full := &openai.Error{Status: 429, Type: openai.TypeRateLimit, Code: openai.CodeQueueFull, Message: "full"}
	broken := &openai.Error{Status: 502, Type: openai.TypeServer, Code: openai.CodeBrokeOff, Message: "the engine broke off"}
	upTo := func(n int, e *openai.Error) func(int) *openai.Error {
		return func(run int) *openai.Error {
			if run <= n {
				return e
			}
			return nil
		}
	}
	for name, tt := range map[string]struct {
		fault, midst func(int) *openai.Error
		runs         int
		status       string
		message      string
	}{
		"refused":             {fault: upTo(9, bad), runs: 1, status: "failed", message: "too long a prompt"},
		"full":                {fault: upTo(20, full), runs: 21, status: "completed"},
		"broken once":         {fault: upTo(1, broken), runs: 2, status: "completed"},
		"broken":              {fault: upTo(9, broken), runs: maxFaults, status: "failed", message: "broke off"},
		"broken in the midst": {midst: upTo(1, broken), runs: 2, status: "completed"},
		"always in the midst": {midst: upTo(9, broken), runs: maxFaults, status: "failed", message: "broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			chats(t, func(t *testing.T, r *replica, e *talker) {
				e.fault, e.midst = tt.fault, tt.midst
				_, body := r.do("POST", "/v1/responses", `{"input":"x","background":true,"stream":true}`)
				all := events(t, body)
				inOrder(t, all, 0)
				end := all[len(all)-1].Response
				if end.Status != tt.status || e.runs() != tt.runs || (tt.message != "" && (end.Error == nil || !strings.Contains(end.Error.Message, tt.message))) {
					t.Errorf("ended %+v after %d runs; want %s after %d with %q", end, e.runs(), tt.status, tt.runs, tt.message)
				}
				if tt.status == "completed" && text(all) != said {
					t.Errorf("said %q", text(all))
				}
			})
		})
	}
}

func TestBackgroundExpires(t *testing.T) {
	chats(t, func(t *testing.T, r *replica, e *talker) {
		e.words, r.s.cfg.Deadline = 1<<20, 2*time.Minute
		_, body := r.do("POST", "/v1/responses", `{"input":"x","background":true,"stream":true}`)
		all := events(t, body)
		inOrder(t, all, 0)
		if end := all[len(all)-1]; end.Type != "response.failed" || !strings.Contains(end.Response.Error.Message, "--job-deadline") {
			t.Errorf("ended %+v", end)
		}
	})
}
