package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// chatCmd is a conversation with a running server.
type chatCmd struct {
	URL         string   `name:"url" default:"http://127.0.0.1:8080" variable:"INFER_URL" help:"The server, without /v1."`
	Model       string   `variable:"-" help:"Default: the first model that the server lists."`
	System      string   `variable:"-" help:"System message."`
	MaxTokens   int      `variable:"-" help:"Bound of each answer; 0 leaves it to the server."`
	Temperature *float64 `variable:"-" help:"Default: the server's."`
	APIKey      secret   `name:"api-key" variable:"OPENAI_API_KEY" help:"Sent as a bearer token."`
	Prompt      []string `arg:"" optional:"" help:"Ask this and exit. Without it: standard input if that is a file or a pipe, else a conversation."`
}

// errAnswerCancelled says that Ctrl-C ended an answer.
var errAnswerCancelled = errors.New("answer cancelled")

// conversation is what was said so far, and the terminal it was said on.
type conversation struct {
	p      process
	client client
	said   []message
}

func (c chatCmd) run(ctx context.Context, p process) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conv := conversation{p: p, client: newClient(c)}
	if c.System != "" {
		conv.said = append(conv.said, message{Role: "system", Content: c.System})
	}
	if conv.client.request.Model == "" {
		model, err := conv.client.firstModel(ctx)
		if err != nil {
			return err
		}
		conv.client.request.Model = model
	}
	prompt := strings.Join(c.Prompt, " ")
	if prompt == "" && isTerminal(p.stdin) {
		return conv.interactive(ctx)
	}
	if prompt == "" {
		text, err := io.ReadAll(p.stdin)
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		prompt = string(text)
	}
	if strings.TrimSpace(prompt) == "" {
		return usageError{errors.New("chat: the prompt is empty; pass it as an argument or on standard input")}
	}
	err := conv.ask(ctx, prompt)
	if errors.Is(err, errAnswerCancelled) {
		return signalError{syscall.SIGINT}
	}
	return err
}

// interactive asks what is typed until /exit, Ctrl-D, or Ctrl-C between
// answers.
func (c *conversation) interactive(ctx context.Context) error {
	say(c.p.stderr, "%s at %s. Ctrl-C stops an answer; /exit or Ctrl-D ends.\n", c.client.request.Model, c.client.base)
	lines := make(chan string)
	// This goroutine outlives the conversation when that ends while a read of
	// the terminal blocks: such a read cannot be interrupted, and the program
	// exits next.
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(c.p.stdin); sc.Scan(); {
			select {
			case lines <- sc.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		say(c.p.stderr, "> ")
		select {
		case <-c.p.signals:
			say(c.p.stderr, "\n")
			return nil
		case line, ok := <-lines:
			line = strings.TrimSpace(line)
			if !ok || line == "/exit" {
				return nil
			}
			if line == "" {
				continue
			}
			if err := c.ask(ctx, line); err != nil {
				say(c.p.stderr, "infer: %v\n", err)
			}
		}
	}
}

// ask streams one answer and remembers it, or, when there is none, forgets the
// question.
func (c *conversation) ask(ctx context.Context, prompt string) error {
	c.said = append(c.said, message{Role: "user", Content: prompt})
	a, err := c.answer(ctx)
	if a.text == "" {
		c.said = c.said[:len(c.said)-1]
	} else {
		c.said = append(c.said, message{Role: "assistant", Content: a.text})
		say(c.p.stdout, "\n")
	}
	if err == nil {
		say(c.p.stderr, "%s\n", a.speed())
	}
	return err
}

// answer prints what the server sends until it ends or a signal arrives.
func (c *conversation) answer(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.p.signals:
			cancel(errAnswerCancelled)
		case <-ended:
		}
	}()
	a, err := c.client.stream(ctx, c.said, func(text string) {
		say(c.p.stdout, "%s", printable(text))
	})
	close(ended)
	<-watched
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return a, err
}

// answer is one completed message and what it cost.
type answer struct {
	text   string
	tokens int           // as the server counted them
	ttft   time.Duration // request to first text
	decode time.Duration // first text to end
}

// speed says TTFT and tokens per second.
func (a answer) speed() string {
	if a.tokens < 2 || a.decode <= 0 {
		return fmt.Sprintf("[%d tokens, TTFT %d ms]", a.tokens, a.ttft.Milliseconds())
	}
	return fmt.Sprintf("[%d tokens, TTFT %d ms, %.1f tokens/s]", a.tokens, a.ttft.Milliseconds(),
		float64(a.tokens-1)/a.decode.Seconds())
}

// say writes to a terminal. When that is gone there is nobody to tell.
func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}

// printable drops control characters, with which a model could move the cursor
// or set the window's title.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}

// isTerminal says whether r is a person's terminal.
func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// secret is text that logs do not show.
type secret string

// String hides the secret.
func (s secret) String() string { return cmp.Or(strings.Repeat("*", min(len(s), 3)), "none") }
