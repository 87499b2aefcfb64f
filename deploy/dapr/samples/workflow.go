//go:build ignore

// A workflow whose activity is a job of infer, which runs once however often
// the activity is called: the job is named by the workflow's instance. A worker
// may die meanwhile: the activity of the next one finds the job.
//
// The worker needs a sidecar with an actor state store, placement and
// scheduler; start an instance of the workflow with
// POST /v1.0/workflows/dapr/Ask/start?instanceID=order-7 at the sidecar,
// with the question as a JSON string for a body.
//
//	go run workflow.go                             # the worker
//	go run workflow.go order-7 "Name a colour."    # its activity alone
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/dapr/durabletask-go/workflow"
	dapr "github.com/dapr/go-sdk/client"
)

// Question is the input of the activity. Inputs are kept in the history: long
// prompts belong behind a reference.
type Question struct{ Key, Text string }

// Ask is the workflow: one question, tried again when infer or the sidecar is
// away.
func Ask(ctx *workflow.WorkflowContext) (any, error) {
	var text, answer string
	if err := ctx.GetInput(&text); err != nil {
		return nil, err
	}
	retry := &workflow.RetryPolicy{MaxAttempts: 10, InitialRetryInterval: time.Second, BackoffCoefficient: 2, MaxRetryInterval: time.Minute}
	err := ctx.CallActivity(Answer, workflow.WithActivityInput(Question{Key: ctx.ID(), Text: text}), workflow.WithActivityRetryPolicy(retry)).Await(&answer)
	return answer, err
}

// Answer is the activity.
func Answer(ctx workflow.ActivityContext) (any, error) {
	var q Question
	if err := ctx.GetInput(&q); err != nil {
		return nil, err
	}
	return answer(ctx.Context(), q)
}

// job is what /v1/jobs says.
type job struct {
	ID       string
	Status   string
	Response struct{ Body json.RawMessage }
	Error    json.RawMessage
}

// answer makes the job, or finds the one that is made already, and waits for
// its end.
func answer(ctx context.Context, q Question) (string, error) {
	body, err := json.Marshal(map[string]any{"max_tokens": 24, "messages": []any{map[string]string{"role": "user", "content": q.Text}}})
	if err != nil {
		return "", err
	}
	j, err := call(ctx, http.MethodPost, "/v1/jobs", string(body), q.Key)
	for err == nil && (j.Status == "queued" || j.Status == "in_progress") {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		j, err = call(ctx, http.MethodGet, "/v1/jobs/"+j.ID, "", "")
	}
	if err != nil {
		return "", err
	}
	if j.Status != "succeeded" {
		return "", fmt.Errorf("job %s %s: %s%s", j.ID, j.Status, j.Error, j.Response.Body)
	}
	var completion struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal(j.Response.Body, &completion); err != nil || len(completion.Choices) == 0 {
		return "", fmt.Errorf("job %s has no completion: %s", j.ID, j.Response.Body)
	}
	return completion.Choices[0].Message.Content, nil
}

// call reaches infer through the peer's own sidecar.
func call(ctx context.Context, method, path, body, key string) (job, error) {
	var j job
	r, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1:"+os.Getenv("DAPR_HTTP_PORT")+path, strings.NewReader(body))
	if err != nil {
		return j, err
	}
	r.Header.Set("dapr-app-id", "infer")
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return j, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return j, err
	}
	if answer.StatusCode/100 != 2 {
		return j, fmt.Errorf("%s %s: %s %s", method, path, answer.Status, text)
	}
	return j, json.Unmarshal(text, &j)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 2 {
		text, err := answer(ctx, Question{Key: args[0], Text: args[1]})
		fmt.Println(text)
		return err
	}
	r := workflow.NewRegistry()
	if err := errors.Join(r.AddWorkflow(Ask), r.AddActivity(Answer)); err != nil {
		return err
	}
	client, err := dapr.NewWorkflowClient()
	if err != nil {
		return err
	}
	if err := client.StartWorker(ctx, r); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
