package serve

import (
	"fmt"
	"math"
	"time"
)

// silence is how long a stream says nothing before a comment does. Proxies and
// load balancers close connections after 60 s without a byte, some after 30.
const silence = 15 * time.Second

// silence is how long this server's streams say nothing. Over HTTP/2 a stream
// whose write deadline passes is reset although nothing waits to be written, so
// that something is written well before.
func (s *Server) silence() time.Duration { return min(silence, s.cfg.ClientStall/3) }

// keep watches over the silence of a stream that the client asked for, from
// now on until the answer is over.
func (rl *relay) keep() {
	rl.keeper = time.AfterFunc(math.MaxInt64, rl.tick) // tick needs the assignment
	rl.commit = time.Since(rl.x.start) + rl.x.s.cfg.CommitAfter
	rl.keeper.Reset(min(rl.x.s.cfg.CommitAfter, rl.x.s.silence()))
}

// tick writes a comment when there was nothing else to write. Clients of all
// four protocols skip comments, also before the first event; an event named
// ping, which Anthropic has, would stand before message_start, where it may not.
func (rl *relay) tick() {
	silence := rl.x.s.silence()
	if !rl.mu.TryLock() { // somebody writes, so this is no silence
		rl.keeper.Reset(silence)
		return
	}
	defer rl.mu.Unlock()
	if rl.closed || rl.done || rl.shape == shapeWhole || rl.shape == shapeRefusal { // the exchange may be left already
		return
	}
	wait := silence - rl.x.quiet()
	if !rl.started {
		wait = rl.commit - time.Since(rl.x.start)
	}
	if wait > 0 {
		rl.keeper.Reset(min(wait, silence))
		return
	}
	if rl.send([]byte(rl.x.s.comment())) == nil {
		rl.keeper.Reset(silence)
	}
}

// still ends the watch. rl.mu is held.
func (rl *relay) still() {
	if rl.keeper != nil {
		rl.keeper.Stop()
	}
}

// comment says what a waiting client waits for.
func (s *Server) comment() string {
	if st := s.eng.Status(); starting(st.Phase) && st.Progress >= 0 {
		return fmt.Sprintf(": %s %.0f%%\n\n", st.Phase, 100*st.Progress)
	}
	return ": ping\n\n"
}
