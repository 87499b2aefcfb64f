// Package engine is the contract between the server and whatever runs the model.
//
// An engine is an http.Handler that speaks the OpenAI wire, plus a blocking
// Run and a cheap Status. Everything else (admission, limits, metrics, error
// shapes) sits in front of that handler and is written once.
package engine

import (
	"context"
	"net/http"
	"time"
)

// Engine is a model that can answer.
type Engine interface {
	// Handler answers the routes of the OpenAI wire that reach a model. It is
	// called only while Status().Phase is Ready or Asleep, by any number of
	// goroutines; a request wakes a sleeping engine and waits for it.
	http.Handler

	// Run owns every process and thread of the engine and returns when all
	// have ended. It returns nil when ctx ended it, and a *Failure when the
	// engine cannot be made to work. It is called once.
	Run(ctx context.Context) error

	// Status never blocks. Any goroutine may call it, also before Run.
	Status() Status

	// Changed returns a channel that is closed when the Status of now is
	// replaced. Whoever waits takes the channel first and looks at Status
	// after, so that no change is lost.
	Changed() <-chan struct{}
}

// Phase is one state of an engine's life.
//
//	from                                        to
//	starting → pulling → loading → compiling    the next, or ready
//	warming                                     ready
//	ready                                       asleep, draining, stalled
//	asleep                                      ready
//	draining                                    stopped
//	any running phase                           stalled, failed
type Phase string

// The phases, in the order of a normal life.
const (
	Starting  Phase = "starting"  // created, nothing done yet
	Pulling   Phase = "pulling"   // fetching model files
	Loading   Phase = "loading"   // reading weights into memory
	Compiling Phase = "compiling" // converting weights, building or optimising graphs
	Warming   Phase = "warming"   // running a first inference
	Ready     Phase = "ready"     // answering
	Asleep    Phase = "asleep"    // weights freed, wakes on demand
	Draining  Phase = "draining"  // finishing admitted work
	Stopped   Phase = "stopped"   // ended as asked
	Stalled   Phase = "stalled"   // work is in flight and nothing moves
	Failed    Phase = "failed"    // ended with a Failure
)

// Phases lists every phase, for metrics that report all of them.
func Phases() []Phase {
	return []Phase{Starting, Pulling, Loading, Compiling, Warming, Ready, Asleep, Draining, Stopped, Stalled, Failed}
}

// Model is one model that an engine serves.
type Model struct {
	ID            string    // the name clients use
	Created       time.Time // when its weights were made; zero when unknown
	ContextTokens int       // prompt plus completion; 0 while unknown
}

// Status is a snapshot of an engine.
type Status struct {
	Phase    Phase
	Since    time.Time // when Phase began
	Progress float64   // share of Phase that is done, 0 to 1; negative when unknown
	Detail   string    // one line for people, such as the file being read
	Slots    int       // sequences that can run at once; 0 until known
	Beside   int       // requests for vectors and scores that run at once beside the slots; 0 when they take slots
	Models   []Model   // the first is canonical; never changed after publication
	Failure  *Failure  // set while Phase is Failed, and while an engine starts again after it
	ReadyAt  time.Time // when Ready is expected, learned from earlier starts; zero when unknown

	// Yields says that work of the batch class gives its slot to any other that
	// needs it, and goes on later: as many requests as there are Slots may come
	// on top of those.
	Yields bool

	// SlotsGuessed says that the engine does not know its own Slots: who does,
	// such as the operator, is right.
	SlotsGuessed bool
}

// Activity says what an engine does with what it was asked, judged by progress
// and never by an answer to a probe.
type Activity string

// The activities.
const (
	ActivityIdle    Activity = "idle"    // nothing is asked
	ActivityBusy    Activity = "busy"    // asked, and something moves
	ActivityStalled Activity = "stalled" // asked, and nothing moves for too long
	ActivityDead    Activity = "dead"    // there is no engine
)

// Activities lists every activity, for metrics that report all of them.
func Activities() []Activity {
	return []Activity{ActivityIdle, ActivityBusy, ActivityStalled, ActivityDead}
}
