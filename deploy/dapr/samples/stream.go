//go:build ignore

// A peer that asks over infer's topic and prints the tokens while they come,
// for sidecars that hold back the streams of invocations.
//
// Every reader needs a topic of its own: the replicas of one app share what
// comes, and one would read half of the parts. infer must allow it in
// --dapr-reply-topics, and infer.results does for this sample.
//
//	DAPR_GRPC_PORT=50001 go run stream.go
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	dapr "github.com/dapr/go-sdk/client"
)

const (
	pubsub = "events"
	id     = "sample-2" // new for each question: with an old one the kept answer comes again
)

// part is the data of infer.delta.v1, infer.result.v1 and infer.error.v1.
type part struct {
	ID       string          `json:"id"`
	Sequence int             `json:"sequence"` // from 1; a number that was there begins the stream anew
	SSE      string          `json:"sse"`      // whole events, as a stream over HTTP has them
	Deltas   int             `json:"deltas"`   // of the result: how many parts there were
	Error    json.RawMessage `json:"error"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	client, err := dapr.NewClient()
	if err != nil {
		return fmt.Errorf("connect to the sidecar: %w", err)
	}
	defer client.Close()
	replies, err := client.Subscribe(ctx, dapr.SubscriptionOptions{PubsubName: pubsub, Topic: "infer.results"})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer replies.Close()
	question := []byte(`{"request": {"stream": true, "max_tokens": 24, "messages": [{"role": "user", "content": "Name three fruits."}]}}`)
	err = client.PublishEvent(ctx, pubsub, "infer.requests", question, dapr.PublishEventWithContentType("application/json"),
		dapr.PublishEventWithMetadata(map[string]string{"cloudevent.id": id, "cloudevent.source": "peer", "cloudevent.type": "infer.request.v1"}))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	parts := map[int]string{} // a broker may bring them out of order
	for printed, want := 0, -1; printed != want; {
		message, err := replies.Receive()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		var p part
		if err := json.Unmarshal(message.RawData, &p); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		if err := message.Success(); err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
		switch {
		case p.ID != id: // another question's
		case p.Error != nil:
			return fmt.Errorf("the answer is an error: %s", p.Error)
		case p.Sequence == 0:
			want = p.Deltas
		case p.Sequence == 1 && printed > 0: // infer began anew
			fmt.Println("\n(from the start)")
			printed = 0
			fallthrough
		default:
			parts[p.Sequence] = p.SSE
		}
		for ; parts[printed+1] != ""; printed++ {
			fmt.Print(parts[printed+1])
			delete(parts, printed+1)
		}
	}
	fmt.Println("all parts are there")
	return nil
}
