package onnx

import "infer/internal/engine/onnx/tokenizer"

// chatLogprobs is the chat route's form of log-probabilities.
type chatLogprobs struct {
	Content []chatLogprob  `json:"content"`
	Refusal *[]chatLogprob `json:"refusal"`
}

type chatLogprob struct {
	Token   string         `json:"token"`
	Logprob float64        `json:"logprob"`
	Bytes   []int          `json:"bytes"`
	Top     *[]chatLogprob `json:"top_logprobs,omitzero"`
}

// textLogprobs is the completions route's form: parallel lists, null where the
// first prompt token has nothing before it.
type textLogprobs struct {
	TextOffset    []int                 `json:"text_offset"`
	TokenLogprobs []*float64            `json:"token_logprobs"`
	Tokens        []string              `json:"tokens"`
	TopLogprobs   []*map[string]float64 `json:"top_logprobs"`
}

// reports says whether the client asked for log-probabilities.
func (j *job) reports() bool { return j.logprobs >= 0 && !j.hideLogprobs }

// logprobs writes pieces in the route's form; offset is where the first of
// them begins in the choice's text.
func (p *part) logprobs(pieces []piece, offset int) any {
	l := p.j.live
	if p.j.chat {
		list := make([]chatLogprob, 0, len(pieces))
		for _, q := range pieces {
			c := l.chatLogprob(*q.prob)
			top := make([]chatLogprob, 0, len(q.prob.top))
			for _, t := range q.prob.top {
				top = append(top, l.chatLogprob(t))
			}
			c.Top = &top
			list = append(list, c)
		}
		return chatLogprobs{Content: list}
	}
	out := textLogprobs{TextOffset: []int{}, TokenLogprobs: []*float64{}, Tokens: []string{}, TopLogprobs: []*map[string]float64{}}
	if len(pieces) > 0 && pieces[0].prompt && offset == 0 {
		first := l.tokenText(p.j.prompts[p.index/p.j.bestOf][0])
		out.add(0, first, nil, nil)
		offset = len(first)
	}
	for _, q := range pieces {
		text := l.tokenText(q.prob.id)
		top := map[string]float64{}
		for _, t := range q.prob.top {
			top[l.tokenText(t.id)] = t.logprob
		}
		top[text] = q.prob.logprob // OpenAI lists the drawn token too
		out.add(offset, text, &q.prob.logprob, &top)
		offset += len(text)
	}
	return out
}

func (o *textLogprobs) add(offset int, token string, logprob *float64, top *map[string]float64) {
	o.TextOffset = append(o.TextOffset, offset)
	o.Tokens = append(o.Tokens, token)
	o.TokenLogprobs = append(o.TokenLogprobs, logprob)
	o.TopLogprobs = append(o.TopLogprobs, top)
}

func (l *live) chatLogprob(t tokenProb) chatLogprob {
	raw := tokenBytes(l.tok, t.id)
	c := chatLogprob{Token: string(raw), Logprob: t.logprob, Bytes: make([]int, len(raw))}
	for i, b := range raw {
		c.Bytes[i] = int(b)
	}
	return c
}

func (l *live) tokenText(id int32) string { return string(tokenBytes(l.tok, id)) }

// tokenBytes are the bytes of a token, its name for a control token.
func tokenBytes(tok *tokenizer.Tokenizer, id int32) []byte {
	if tok.IsSpecial(id) {
		return []byte(tok.Token(id))
	}
	return tok.TokenBytes(id)
}
