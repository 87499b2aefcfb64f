package clients

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/responses"
)

// OpenAI's clients keep responses and run them in the background. The server
// stops in the middle of a stream, and the next one goes on with it.
func TestResponses(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	s := ready(t, "--state", state)
	out, err := exec.CommandContext(timeout(t), fromMake(t, "INFER_TEST_PYTHON"), "responses.py", s.url+"/v1", model).CombinedOutput()
	if err != nil {
		t.Fatalf("responses.py: %v\n%s", err, out)
	}

	client := s.client(4)
	kept, err := client.Responses.New(timeout(t), responses.ResponseNewParams{Model: model, MaxOutputTokens: openai.Int(8),
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("1, 2, 3,")}})
	if err != nil {
		t.Fatal(err)
	}
	stream := client.Responses.NewStreaming(timeout(t), responses.ResponseNewParams{Model: model, Background: openai.Bool(true),
		MaxOutputTokens: openai.Int(600), PreviousResponseID: openai.String(kept.ID),
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Tell a long story.")}})
	var id string
	next := int64(0)
	read := func() (end string, text string) {
		for stream.Next() {
			e := stream.Current()
			if e.SequenceNumber != next {
				t.Fatalf("event %d came for %d: %s", e.SequenceNumber, next, e.RawJSON())
			}
			next++
			switch e.Type {
			case "response.created":
				id = e.Response.ID
			case "response.output_text.delta":
				if state != "" { // the first words: the server stops now
					state = ""
					s.signal(syscall.SIGTERM)
				}
			case "response.completed", "response.incomplete", "response.failed":
				return e.Type, e.Response.OutputText()
			}
		}
		return "", ""
	}
	folder := state
	end, text := read()
	_ = stream.Close() // it has ended
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s = ready(t, "--state", folder)
	client = s.client(4)
	if end == "" {
		stream = client.Responses.GetStreaming(timeout(t), id, responses.ResponseGetParams{StartingAfter: openai.Int(next - 1)})
		end, text = read()
		if err := stream.Err(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := client.Responses.Get(timeout(t), id, responses.ResponseGetParams{})
	if err != nil || "response."+string(r.Status) != end || r.OutputText() != text || strings.TrimSpace(text) == "" || r.PreviousResponseID != kept.ID {
		t.Errorf("%v, %s with %q; the stream ended %s with %q", err, r.RawJSON(), r.OutputText(), end, text)
	}
	if err := client.Responses.Delete(timeout(t), id); err != nil {
		t.Error(err)
	}
	var e *openai.Error
	if _, err := client.Responses.Get(timeout(t), id, responses.ResponseGetParams{}); !errors.As(err, &e) || e.StatusCode != 404 {
		t.Errorf("a deleted response: %v", err)
	}
}
