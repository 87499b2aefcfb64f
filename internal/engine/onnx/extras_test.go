package onnx

import (
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
)

// logProbabilities holds both forms against each other and against what the
// model says when the text so far is the prompt.
func logProbabilities(t *testing.T, srv *httptest.Server) {
	const prompt = "The sea was calm and the"
	_, a := post(t, srv, "/v1/completions", `{"prompt":"`+prompt+`","max_tokens":4,"temperature":0,"logprobs":3}`)
	lp := a.Choices[0].Logprobs
	if lp == nil || len(lp.Tokens) != 4 || len(lp.TokenLogprobs) != 4 {
		t.Fatalf("logprobs %+v", lp)
	}
	if got := strings.Join(lp.Tokens, ""); got != *a.Choices[0].Text {
		t.Errorf("tokens %q make %q, the text is %q", lp.Tokens, got, *a.Choices[0].Text)
	}
	for i, tok := range lp.Tokens {
		p := *lp.TokenLogprobs[i]
		if p > 0 || lp.TopLogprobs[i][tok] != p || len(lp.TopLogprobs[i]) != 3 {
			t.Errorf("token %d %q: %v, alternatives %v", i, tok, p, lp.TopLogprobs[i])
		}
		for other, q := range lp.TopLogprobs[i] {
			if q > p {
				t.Errorf("greedy drew %q (%v) beside %q (%v)", tok, p, other, q)
			}
		}
	}
	// The streamed chat form: one entry a token, bytes that make the text.
	text, raw, entries := "", []byte{}, 0
	for _, e := range events(t, srv, "/v1/chat/completions", `{"messages":[{"role":"user","content":"Say 日本 and é."}],"max_tokens":12,"temperature":0,"logprobs":true,"top_logprobs":2,"stream":true,"ignore_eos":true}`) {
		text += e.Choices[0].Delta.Content
		if l := e.Choices[0].Logprobs; l != nil {
			for _, c := range l.Content {
				entries++
				for _, b := range c.Bytes {
					raw = append(raw, byte(b))
				}
				if len(c.Top) != 2 || c.Top[0].Logprob < c.Top[1].Logprob || c.Top[0].Logprob != c.Logprob {
					t.Errorf("entry %+v of a greedy answer", c)
				}
			}
		}
	}
	if entries != 12 || !strings.HasPrefix(string(raw), strings.TrimSuffix(text, "\uFFFD")) {
		t.Errorf("%d entries with bytes %q for the text %q", entries, raw, text)
	}
}

func echoAndBestOf(t *testing.T, srv *httptest.Server) {
	const prompt = "One, two, three,"
	_, a := post(t, srv, "/v1/completions", `{"prompt":"`+prompt+`","max_tokens":3,"temperature":0,"echo":true,"logprobs":1}`)
	lp := a.Choices[0].Logprobs
	if !strings.HasPrefix(*a.Choices[0].Text, prompt) || strings.Join(lp.Tokens, "") != *a.Choices[0].Text || lp.TokenLogprobs[0] != nil {
		t.Errorf("echo gave %q with %+v", *a.Choices[0].Text, lp)
	}
	for i, tok := range lp.Tokens {
		if want := (*a.Choices[0].Text)[lp.TextOffset[i]:][:len(tok)]; want != tok {
			t.Errorf("token %d %q lies at %q", i, tok, want)
		}
	}
	// The probability of a prompt token is what the shorter prompt says of it.
	_, b := post(t, srv, "/v1/completions", `{"prompt":"One, two,","max_tokens":1,"temperature":0,"logprobs":20}`)
	if got, want := *lp.TokenLogprobs[4], b.Choices[0].Logprobs.TopLogprobs[0][lp.Tokens[4]]; math.Abs(got-want) > 0.2 {
		t.Errorf("%q after %q has %v in echo, %v as the next token", lp.Tokens[4], lp.Tokens[:4], got, want)
	}
	_, none := post(t, srv, "/v1/completions", `{"prompt":"`+prompt+`","max_tokens":0,"echo":true,"logprobs":0}`)
	if got := none.Choices[0]; *got.Text != prompt || none.Usage.Completion != 0 {
		t.Errorf("echo of the prompt alone gave %q, usage %+v", *got.Text, none.Usage)
	}
	_, best := post(t, srv, "/v1/completions", `{"prompt":"`+prompt+`","max_tokens":4,"temperature":1.5,"n":2,"best_of":5,"seed":3}`)
	_, all := post(t, srv, "/v1/completions", `{"prompt":"`+prompt+`","max_tokens":4,"temperature":1.5,"n":5,"seed":3,"logprobs":0}`)
	if len(best.Choices) != 2 || best.Choices[1].Index != 1 || best.Choices[0].Logprobs != nil || len(all.Choices) != 5 {
		t.Errorf("best_of gave %+v", best.Choices)
	}
}

func lengthAndEnds(t *testing.T, srv *httptest.Server) {
	ask := func(more string) answer {
		_, a := post(t, srv, "/v1/completions", `{"prompt":"1, 2, 3, 4,","max_tokens":20,"temperature":0`+more+`}`)
		return a
	}
	free := *ask("").Choices[0].Text
	_, ids := post(t, srv, "/tokenize", `{"prompt":`+quote(free)+`}`)
	end := ids.Tokens[4]
	a := ask(fmt.Sprintf(`,"stop_token_ids":[%d]`, end))
	if c := a.Choices[0]; *c.FinishReason != finishStop || c.StopReason == nil || len(*c.Text) >= len(free) {
		t.Errorf("stop token %d: %q, %s, %v", end, *c.Text, *c.FinishReason, c.StopReason)
	}
	a = ask(fmt.Sprintf(`,"stop_token_ids":[%d],"min_tokens":12`, end))
	if a.Usage.Completion < 12 {
		t.Errorf("min_tokens 12 gave %d tokens", a.Usage.Completion)
	}
	stop := strings.TrimSpace(free)[2:4]
	a = ask(`,"include_stop_str_in_output":true,"stop":` + quote(stop))
	if c := a.Choices[0]; !strings.HasSuffix(*c.Text, stop) || c.StopReason != stop {
		t.Errorf("included stop %q: %q, %v", stop, *c.Text, c.StopReason)
	}
	if a = ask(`,"ignore_eos":true`); a.Usage.Completion != 20 {
		t.Errorf("ignore_eos gave %d tokens", a.Usage.Completion)
	}
	if a = ask(`,"logit_bias":{"260":100}`); strings.Count(*a.Choices[0].Text, " the") != 20 {
		t.Errorf("bias 100 gave %q", *a.Choices[0].Text)
	}
}

func growingConversation(t *testing.T, srv *httptest.Server) {
	const begin = `{"messages":[{"role":"user","content":"Tell me about the tides of the northern seas and their causes."}`
	_, a := post(t, srv, "/v1/chat/completions", begin+`],"max_tokens":8,"temperature":0}`)
	_, b := post(t, srv, "/v1/chat/completions", begin+`,{"role":"assistant","content":`+quote(a.Choices[0].Message.Content)+
		`},{"role":"user","content":"Go on."}],"max_tokens":8,"temperature":0}`)
	if got := b.Usage.Details.Cached; got < a.Usage.Prompt || got >= b.Usage.Prompt {
		t.Errorf("%d of the second turn's %d tokens were cached, the first turn had %d", got, b.Usage.Prompt, a.Usage.Prompt)
	}
}
