//go:build soak

package clients

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// A thousand requests of every kind, four times as many at once as there are
// slots, leave nothing behind: no slot, goroutine, file or memory.
func TestSoak(t *testing.T) {
	const warm, asked, callers = 200, 1000, 16
	s := ready(t, "--slots=4", "--context=512", "--max-queue=256")
	s.mix(t, warm, callers)
	before := s.settle()
	began := time.Now()
	s.mix(t, asked, callers)
	after := s.settle()
	t.Logf("%d requests in %v; before %v, after %v", asked, time.Since(began).Round(time.Millisecond), before, after)
	if after.goroutines > before.goroutines+2 || after.files > before.files+2 {
		t.Errorf("goroutines or files leak: before %v, after %v", before, after)
	}
	if grown := after.memory - before.memory; grown > 48<<20 {
		t.Errorf("memory grew by %d MiB", int(grown)>>20)
	}
	_, text := s.get("/metrics")
	total := 0
	for _, m := range regexp.MustCompile(`(?m)^infer_requests_total\{.*route="/v1/(?:chat/)?completions"\} (\d+)$`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total != warm+asked {
		t.Errorf("%d requests were counted, want %d", total, warm+asked)
	}
}

// held is what a process holds.
type held struct{ goroutines, files, memory float64 }

// String is for the log.
func (h held) String() string {
	return fmt.Sprintf("%v goroutines, %v files, %.1f MiB", h.goroutines, h.files, h.memory/(1<<20))
}

// settle waits until the server is idle and says what it still holds.
func (s *server) settle() held {
	s.t.Helper()
	s.until("the server to be idle", func() bool {
		return s.metric("infer_requests_running")+s.metric("infer_requests_waiting") == 0 && s.metric("infer_saturation") == 0
	})
	last := -1.0
	same := 0
	s.until("the goroutines to end", func() bool {
		n := s.metric("go_goroutines")
		if n == last {
			same++
		} else {
			last, same = n, 0
		}
		return same >= 20
	})
	return held{last, s.metric("process_open_fds"), s.metric("process_resident_memory_bytes")}
}

// mix sends requests of every kind, callers at once.
func (s *server) mix(t *testing.T, requests, callers int) {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: callers}
	defer transport.CloseIdleConnections()
	client := openai.NewClient(option.WithBaseURL(s.url+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{Transport: transport}))
	work := make(chan int)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := range work {
				if err := one(t.Context(), client, i); err != nil {
					t.Errorf("request %d: %v", i, err)
				}
			}
		})
	}
	for i := range requests {
		work <- i
	}
	close(work)
	wg.Wait()
}

// one sends the request of kind i and says what is wrong with its answer.
func one(ctx context.Context, client openai.Client, i int) error {
	tokens := int64(1 + rand.IntN(12))
	switch i % 5 {
	case 0: // whole
		answer, err := client.Chat.Completions.New(ctx, ask("Name three fruits.", tokens))
		if err == nil && answer.Usage.CompletionTokens < 1 {
			err = fmt.Errorf("no tokens: %s", answer.RawJSON())
		}
		return err
	case 1, 2: // a stream
		stream := client.Completions.NewStreaming(ctx, count(tokens))
		for stream.Next() {
		}
		return stream.Err()
	case 3: // a client that leaves, now and then before the first token
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream := client.Completions.NewStreaming(ctx, count(200))
		for range rand.IntN(5) {
			stream.Next()
		}
		return stream.Close()
	default: // refused
		params := ask("Hi", tokens)
		params.Temperature = openai.Float(-1)
		if _, err := client.Chat.Completions.New(ctx, params); err == nil {
			return fmt.Errorf("an impossible temperature was taken")
		}
		return nil
	}
}
