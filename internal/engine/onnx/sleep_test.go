package onnx

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/engine"
)

// resident is the memory of this process in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(string(bytes.Fields(b)[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestSleepFreesTheModelAndARequestWakesIt watches phases and memory.
func TestSleepFreesTheModelAndARequestWakesIt(t *testing.T) {
	cfg := realConfig(t)
	cfg.SleepAfter = 50 * time.Millisecond
	e, err := New(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	run(t, e)
	srv := httptest.NewServer(e)
	defer srv.Close()
	until(t, e, engine.Asleep)
	for range 3 {
		release, err := e.acquire(t.Context()) // nothing sleeps that is held
		if err != nil {
			t.Fatal(err)
		}
		awake := resident(t)
		release()
		until(t, e, engine.Asleep)
		for path := range encoderRoutes {
			if status, _ := post(t, srv, path, `{"input":"a"}`); status != http.StatusNotFound || e.Status().Phase != engine.Asleep {
				t.Errorf("%s: status %d, phase %s; want a refusal in its sleep", path, status, e.Status().Phase)
			}
		}
		if st := e.Status(); st.Slots == 0 || !st.Yields || len(st.Models) != 1 || st.Models[0].ContextTokens == 0 {
			t.Errorf("asleep: %+v, want slots, yielding and model as when awake", st)
		}
		if freed := awake - resident(t); freed < 100<<20 {
			t.Errorf("sleep freed %d bytes, the weights alone are over 100 MiB", freed)
		}
		done := make(chan int)
		for range 3 {
			go func() {
				status, _ := post(t, srv, "/v1/completions", `{"prompt":"a","max_tokens":3}`)
				done <- status
			}()
		}
		for range 3 {
			if status := <-done; status != http.StatusOK {
				t.Errorf("a request to a sleeping engine: status %d", status)
			}
		}
	}
}

// An encoder sleeps when it is all that is served.
func TestSleepOfAnEncoder(t *testing.T) {
	cfg := encoderConfig(t, tinyEncoder(t, "hidden", "{}"))
	cfg.SleepAfter = 20 * time.Millisecond
	srv := startReal(t, cfg)
	e := srv.Config.Handler.(*Engine)
	for range 3 {
		until(t, e, engine.Asleep)
		if st := e.Status(); e.embed.Load().Encoder != nil || st.Slots != 1 || len(st.Models) != 1 || st.Models[0].ContextTokens == 0 {
			t.Errorf("asleep: %+v, want slot and model as when awake, and no encoder", st)
		}
		if status, _ := post(t, srv, "/v1/chat/completions", `{"messages":[]}`); status != http.StatusNotFound || e.Status().Phase != engine.Asleep {
			t.Errorf("a chat: status %d, phase %s; want a refusal in its sleep", status, e.Status().Phase)
		}
		done := make(chan int)
		for range 3 {
			go func() {
				status, _ := encode(t, srv, "/v1/embeddings", `{"input":"good"}`)
				done <- status
			}()
		}
		for range 3 {
			if status := <-done; status != http.StatusOK {
				t.Errorf("a request to a sleeping encoder: status %d", status)
			}
		}
	}
}

// Who comes between the end of the idle time and the sleep waits as who comes
// later does, and leaves nothing that would end the next sleep.
func TestRequestOnTheWayToSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{Model: "m", Device: "cpu"}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		awake := func() {
			e.present(func() {
				e.live.Store(&live{})
				e.publish(engine.Status{Phase: engine.Ready})
			})
		}
		awake()
		if !e.retire() {
			t.Fatal("an idle engine does not retire")
		}
		held := make(chan error, 1)
		go func() {
			release, err := e.acquire(t.Context())
			if err == nil {
				release()
			}
			held <- err
		}()
		synctest.Wait()
		e.publish(engine.Status{Phase: engine.Asleep})
		synctest.Wait()
		if len(e.alarm) != 1 {
			t.Error("the request woke nobody")
		}
		awake()
		if err := <-held; err != nil {
			t.Errorf("acquire = %v", err)
		}
		if len(e.alarm) != 0 {
			t.Error("the alarm of a request that was served is left")
		}
		e.retire()
		e.publish(engine.Status{Phase: engine.Stopped})
		if _, err := e.acquire(t.Context()); err != errStopped {
			t.Errorf("after the end acquire = %v", err)
		}
	})
}

// An engine takes its encoder away when it ends, also from a request that has
// just found it loaded.
func TestEncoderGoneWhenTheEngineEnds(t *testing.T) {
	e, err := New(Config{Model: "m", Device: "cpu"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	e.live.Store(&live{}) // lets acquire succeed
	r := httptest.NewRequest(http.MethodPost, "/v1/embeddings", strings.NewReader(`{"input":"a"}`))
	body, fault := e.encoded(&embedder{names: []string{"m"}, alone: true}, (*embedder).embeddings, r)
	if body != nil || fault == nil || fault.Status != http.StatusServiceUnavailable {
		t.Errorf("encoded() = %v, %+v", body, fault)
	}
	if !e.inUse.TryLock() {
		t.Error("the request still holds the engine")
	}
}
