package serve

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// frame writes one frame of HTTP/2 (RFC 9113, section 4.1).
func frame(to *bytes.Buffer, kind, flags byte, stream uint32, payload []byte) {
	to.Write([]byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags})
	_ = binary.Write(to, binary.BigEndian, stream)
	to.Write(payload)
}

const headersFrame, resetFrame, settingsFrame = 1, 3, 4

// askFrame is the header block of a POST to /v1/completions: two entries of
// HPACK's static table, two literals.
var askFrame = append([]byte{0x83, 0x86, 0x01, 1, 'x', 0x04, 15}, "/v1/completions"...)

// opened is a connection of HTTP/2 whose frames a test writes.
func opened(t *testing.T, addr string) (net.Conn, *bytes.Buffer) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	var out bytes.Buffer
	out.WriteString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	frame(&out, settingsFrame, 0, 0, nil)
	return conn, &out
}

// The stream over the bound is refused while those within it wait for their
// bodies.
func TestStreamsAreBounded(t *testing.T) {
	l := &ledger{}
	addr := listening(t, newFixture(t, config(), ready(1), l.ServeHTTP))
	conn, out := opened(t, addr)
	var stream uint32
	for i := range uint32(maxStreams + 1) {
		stream = 2*i + 1
		frame(out, headersFrame, 4, stream, askFrame) // END_HEADERS; the body never comes
	}
	if _, err := out.WriteTo(conn); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 9)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatalf("no stream was refused: %v", err)
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			t.Fatal(err)
		}
		if head[3] != resetFrame {
			continue
		}
		const refusedStream = 7 // RFC 9113, section 7: it may be sent again
		if got := binary.BigEndian.Uint32(head[5:]); got != stream || binary.BigEndian.Uint32(payload) != refusedStream {
			t.Errorf("stream %d was reset with %x, want %d to be refused", got, payload, stream)
		}
		break
	}
	if seen := l.take(); len(seen) != 0 {
		t.Errorf("the engine saw %q", seen)
	}
}

// A client that opens streams and resets them at once gets no work done, and
// nobody else suffers.
func TestRapidReset(t *testing.T) {
	l := &ledger{}
	addr := listening(t, newFixture(t, config(), ready(1), l.ServeHTTP))
	conn, out := opened(t, addr)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	stream := uint32(1)
	for range 200 {
		for range 100 {
			frame(out, headersFrame, 4, stream, askFrame)
			frame(out, resetFrame, 0, stream, []byte{0, 0, 0, 8})
			stream += 2
		}
		if _, err := out.WriteTo(conn); err != nil {
			break // it was told to go
		}
		out.Reset()
	}
	c := h2c()
	defer c.CloseIdleConnections()
	resp, err := c.Post("http://"+addr+"/v1/completions", "", strings.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if seen := l.take(); resp.StatusCode != 200 || len(seen) != 1 {
		t.Errorf("another client got %d; the engine saw %d requests, want 1", resp.StatusCode, len(seen))
	}
}

// literal is an entry of HPACK that stands for itself (RFC 7541, section 6.2.2).
func literal(name, value string) string {
	return "\x00" + string(rune(len(name))) + name + string(rune(len(value))) + value
}

// What HTTP/2 has no place for does not reach the engine, nor does a body that
// is not as long as it says.
func TestSmugglingOverHTTP2(t *testing.T) {
	const dataFrame, endStream, endHeaders = 0, 1, 4
	l := &ledger{}
	addr := listening(t, newFixture(t, config(), ready(1), l.ServeHTTP))
	for name, tt := range map[string]struct {
		headers string
		body    string
		seen    int
	}{
		"plain":             {"", small, 1},
		"the right length":  {literal("content-length", "17"), small, 1},
		"too short":         {literal("content-length", "18"), small, 0},
		"too long":          {literal("content-length", "4"), small, 0},
		"two lengths":       {literal("content-length", "17") + literal("content-length", "4"), small, 0},
		"chunked":           {literal("transfer-encoding", "chunked"), chunks, 0},
		"connection":        {literal("connection", "content-length"), small, 0},
		"upgrade":           {literal("upgrade", "h2c"), small, 0},
		"capitals":          {literal("Content-Length", "17"), small, 0},
		"line in a value":   {literal("x-a", "b\r\ncontent-length: 4"), small, 0},
		"NUL in a value":    {literal("x-a", "b\x00"), small, 0},
		"line in a name":    {literal("x-a: b\r\nx-b", "c"), small, 0},
		"colon in a name":   {literal("x:a", "b"), small, 0},
		"another path":      {literal(":path", "/v1/chat/completions"), small, 0},
		"a path at the end": {literal("x-a", "b") + literal(":path", "/v1/completions"), small, 0},
		"a made up pseudo":  {literal(":engine", "b"), small, 0},
	} {
		t.Run(name, func(t *testing.T) {
			conn, out := opened(t, addr)
			frame(out, headersFrame, endHeaders, 1, append(slices.Clone(askFrame), tt.headers...))
			frame(out, dataFrame, endStream, 1, []byte(tt.body))
			if _, err := out.WriteTo(conn); err != nil {
				t.Fatal(err)
			}
			// Stream 1 ends with the flag of its last frame, or is reset, or all is over.
			head := make([]byte, 9)
			for {
				if _, err := io.ReadFull(conn, head); err != nil {
					break
				}
				if _, err := io.CopyN(io.Discard, conn, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
					break
				}
				mine := binary.BigEndian.Uint32(head[5:]) == 1
				if mine && (head[3] == resetFrame || head[3] <= headersFrame && head[4]&endStream != 0) {
					break
				}
			}
			want := slices.Repeat([]string{"POST /v1/completions " + small + " <nil>"}, tt.seen)
			if seen := l.take(); !slices.Equal(seen, want) {
				t.Errorf("the engine saw %q, want %q", seen, want)
			}
		})
	}
}
