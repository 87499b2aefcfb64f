package clients

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/openai/openai-go/v3"
)

// OpenAI's clients use files and batches as they use OpenAI's. The server stops
// in the middle of the second batch, and the next one goes on with it.
func TestFilesAndBatches(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	s := ready(t, "--state", state)
	out, err := exec.CommandContext(timeout(t), fromMake(t, "INFER_TEST_PYTHON"), "jobs.py", s.url+"/v1", model).CombinedOutput()
	if err != nil {
		t.Fatalf("jobs.py: %v\n%s", err, out)
	}

	var in strings.Builder
	for i := range 12 {
		fmt.Fprintf(&in, `{"custom_id":"c%d","method":"POST","url":"/v1/completions","body":{"model":%q,"prompt":"1, 2, 3,","max_tokens":8}}`+"\n", i, model)
	}
	client := s.client(0)
	file, err := client.Files.New(timeout(t), openai.FileNewParams{
		File: openai.File(strings.NewReader(in.String()), "in.jsonl", "application/jsonl"), Purpose: openai.FilePurposeBatch})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := client.Batches.New(timeout(t), openai.BatchNewParams{InputFileID: file.ID,
		Endpoint: openai.BatchNewParamsEndpointV1Completions, CompletionWindow: openai.BatchNewParamsCompletionWindow24h})
	if err != nil {
		t.Fatal(err)
	}
	s.until("the first answers", func() bool {
		batch, err = client.Batches.Get(timeout(t), batch.ID)
		return err != nil || batch.RequestCounts.Completed > 0
	})
	s.signal(syscall.SIGTERM)
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	s = ready(t, "--state", state)
	client = s.client(0)
	s.until("the batch to end", func() bool {
		batch, err = client.Batches.Get(timeout(t), batch.ID)
		return err != nil || batch.Status == openai.BatchStatusCompleted || batch.Status == openai.BatchStatusFailed
	})
	if err != nil || batch.RequestCounts.Completed != 12 || batch.OutputFileID == "" || batch.ErrorFileID != "" {
		t.Fatalf("%v, %s", err, batch.RawJSON())
	}
	resp, err := client.Files.Content(timeout(t), batch.OutputFileID)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	for i := range 12 {
		if n := strings.Count(string(text), fmt.Sprintf(`"custom_id":"c%d",`, i)); n != 1 {
			t.Errorf("c%d is %d times in the output, %v", i, n, err)
		}
	}
	if deleted, err := client.Files.Delete(timeout(t), file.ID); err != nil || !deleted.Deleted {
		t.Errorf("delete: %v, %v", deleted, err)
	}
}
