//go:build ignore

// A peer that publishes a request to infer's topic through its own Dapr sidecar
// and says under which id the result will come.
//
//	DAPR_HTTP_PORT=3500 go run peer.go
package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	id := "sample-1" // a retry with the same id is answered, and not run again
	event := fmt.Sprintf(`{"specversion": "1.0", "id": %q, "source": "peer", "type": "infer.request.v1",
		"datacontenttype": "application/json",
		"data": {"request": {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 8}}}`, id)
	url := "http://127.0.0.1:" + os.Getenv("DAPR_HTTP_PORT") + "/v1.0/publish/events/infer.requests"
	answer, err := http.Post(url, "application/cloudevents+json", strings.NewReader(event))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		fmt.Fprintln(os.Stderr, "publish:", answer.Status)
		os.Exit(1)
	}
	fmt.Println("the result will be the event", id+".result", "of the topic infer.results")
}
