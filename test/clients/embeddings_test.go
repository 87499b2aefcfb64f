package clients

import (
	"math"
	"os/exec"
	"testing"

	"github.com/openai/openai-go/v3"
)

const embedder = "minilm"

// besides serves the encoder beside the model that chats.
func besides(t *testing.T, args ...string) *server {
	t.Helper()
	args = append(args, "--embedding-model", fromMake(t, "INFER_TEST_EMBEDDING_MODEL"), "--embedding-model-name", embedder)
	return ready(t, args...)
}

func cosine(a, b []float64) float64 {
	var dot, x, y float64
	for i := range a {
		dot, x, y = dot+a[i]*b[i], x+a[i]*a[i], y+b[i]*b[i]
	}
	return dot / math.Sqrt(x*y)
}

func TestEmbeddings(t *testing.T) {
	s := besides(t)
	client := s.client(0)
	got, err := client.Embeddings.New(timeout(t), openai.EmbeddingNewParams{Model: embedder, Input: openai.EmbeddingNewParamsInputUnion{
		OfArrayOfStrings: []string{"A man is playing guitar", "Somebody plays an instrument", "The stock market fell"}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Data) != 3 || got.Model != embedder || len(got.Data[0].Embedding) != 384 || got.Usage.TotalTokens < 15 {
		t.Fatalf("got %.300s", got.RawJSON())
	}
	near, far := cosine(got.Data[0].Embedding, got.Data[1].Embedding), cosine(got.Data[0].Embedding, got.Data[2].Embedding)
	if near < far+0.2 {
		t.Errorf("an instrument is %v from a guitar, the market %v", near, far)
	}
	tokens := s.metric(`infer_tokens_total{kind="prompt",model="` + embedder + `"}`)
	if tokens != float64(got.Usage.TotalTokens) {
		t.Errorf("metered %v tokens, usage says %d", tokens, got.Usage.TotalTokens)
	}
	if models, err := client.Models.List(timeout(t)); err != nil || len(models.Data) != 2 || models.Data[1].ID != embedder {
		t.Errorf("models %v, %v", models, err)
	}
	if _, err := client.Completions.New(timeout(t), count(2)); err != nil {
		t.Errorf("the model that chats: %v", err)
	}
}

// The Python client asks for base64 by default, and decodes it by itself.
func TestPythonEmbeddings(t *testing.T) {
	s := besides(t)
	cmd := exec.CommandContext(timeout(t), fromMake(t, "INFER_TEST_PYTHON"), "embeddings.py", s.url+"/v1", embedder, model)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("embeddings.py: %v\n%s", err, out)
	}
}
