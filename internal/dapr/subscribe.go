package dapr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
)

// Bounds of the wait before a lost subscription is made again.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// closeTimeout is how long the sidecar may take to end a stream.
const closeTimeout = 2 * time.Second

// crossing is how long an answer may be on its way to the sidecar. Longer, and
// whoever publishes an id again would have streams opened anew.
const crossing = 100 * time.Millisecond

// subscribe keeps one subscription to the topic of requests until ctx ends. A
// stream that breaks is opened again, for as long as it takes: the SDK's own
// subscriber tries once and then ends in silence.
func (s *Sidecar) subscribe(ctx context.Context) {
	backoff := minBackoff
	s.say(&s.topic, "not yet subscribed to "+s.cfg.Topic)
	for {
		began := time.Now()
		err := s.session(ctx)
		s.metrics.subscribed.Set(0)
		if ctx.Err() != nil {
			s.say(&s.topic, "no longer subscribed to "+s.cfg.Topic+": stopping")
			return
		}
		s.metrics.reconnects.Inc()
		if errors.Is(err, errRefresh) {
			s.log.Info("subscribing anew, to free the deliveries that duplicates hold", "topic", s.cfg.Topic)
			continue
		}
		s.say(&s.topic, fmt.Sprintf("not subscribed to %s: %v", s.cfg.Topic, err))
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		s.log.Warn("the subscription ended; it is made again", "topic", s.cfg.Topic, "err", err, "wait_seconds", backoff.Seconds())
		select {
		case <-time.After(backoff/2 + rand.N(backoff)):
		case <-ctx.Done():
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// errRefresh ends a subscription in which an event was delivered twice at once:
// while it was worked on, or while its answer was on the way. The sidecar
// matches answers to deliveries by the event's id, so one delivery of the two is
// never answered and keeps its place in the component until the stream ends.
var errRefresh = errors.New("duplicates were delivered")

// subscription is one stream of events.
type subscription struct {
	s      *Sidecar
	stream pb.Dapr_SubscribeTopicEventsAlpha1Client
	slots  chan struct{} // a place for each event that is worked on

	sending sync.Mutex // a stream takes one sender at a time

	mu         sync.Mutex
	inFlight   map[string]*flight // by the event's id
	told       recent             // ids that were answered
	unsettled  int                // events that were begun and whose answers are not yet sent
	duplicated bool
	closing    bool          // nothing more is begun: the stream is to be closed
	idle       chan struct{} // closed when closing and nothing is unsettled
}

// flight is what is worked on under one id. Ids of different sources may be the
// same, and the sidecar takes one answer for all: it is given when all are done.
type flight struct {
	names []string // sources and ids
	open  int
	left  bool // one at least must come again
}

// session subscribes once and works until the stream breaks or ctx ends. In
// both cases it returns when all work in flight has ended.
func (s *Sidecar) session(ctx context.Context) error {
	// The stream outlives ctx, so that work in flight can be answered.
	streamCtx, closeStream := context.WithCancel(context.WithoutCancel(ctx))
	defer closeStream()
	sub := &subscription{s: s, slots: make(chan struct{}, s.concurrency()), inFlight: map[string]*flight{}, idle: make(chan struct{})}
	opening := context.AfterFunc(ctx, closeStream)
	err := sub.open(streamCtx)
	if !opening() {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	s.metrics.subscribed.Set(1)
	s.say(&s.topic, "subscribed to "+s.cfg.Topic)
	s.log.Info("subscribed", "pubsub", s.cfg.PubSub, "topic", s.cfg.Topic, "concurrency", cap(sub.slots))

	// Work ends some time after ctx did, and is then left unanswered.
	workCtx, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-time.After(s.cfg.Drain):
			stopWork()
		case <-workCtx.Done():
		}
	})()
	var work sync.WaitGroup
	broken := make(chan error, 1)
	go func() { broken <- sub.receive(ctx, workCtx, &work) }()
	select {
	case err = <-broken:
		// What runs goes on: its answer is kept under the event's name, and
		// the event comes again.
		work.Wait()
		return err
	case <-sub.idle:
		err = errRefresh
	case <-ctx.Done():
		err = ctx.Err()
		sub.stop()
		select {
		case <-sub.idle:
		case lost := <-broken:
			broken <- lost
		}
	}
	sub.close(closeStream, broken) // the sidecar does not end while a stream is open
	work.Wait()                    // not before receive has ended, which adds to it
	return err
}

// close tells the sidecar that no more comes, so that it reads the answers that
// are on their way, and cuts the stream if it does not end it then.
func (sub *subscription) close(cut func(), broken <-chan error) {
	sub.sending.Lock()
	_ = sub.stream.CloseSend() // always nil
	sub.sending.Unlock()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	var err error
	select {
	case err = <-broken:
	case <-timer.C:
		cut()
		err = <-broken
	}
	sub.s.log.Debug("the stream of events is closed", "err", err)
}

// concurrency is how many events are worked on at once.
func (s *Sidecar) concurrency() int {
	if s.cfg.Concurrency > 0 {
		return s.cfg.Concurrency
	}
	return max(s.program.Describe().Slots, 1) + 1
}

// open subscribes and waits for the sidecar's yes.
func (sub *subscription) open(ctx context.Context) error {
	stream, err := sub.s.client.GrpcClient().SubscribeTopicEventsAlpha1(ctx)
	if err != nil {
		return fmt.Errorf("open the stream: %w", err)
	}
	first := &pb.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: sub.s.cfg.PubSub, Topic: sub.s.cfg.Topic}
	if sub.s.cfg.DeadLetter != "" {
		first.DeadLetterTopic = &sub.s.cfg.DeadLetter
	}
	err = stream.Send(&pb.SubscribeTopicEventsRequestAlpha1{
		SubscribeTopicEventsRequestType: &pb.SubscribeTopicEventsRequestAlpha1_InitialRequest{InitialRequest: first}})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	answer, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if answer.GetInitialResponse() == nil {
		return errors.New("subscribe: the sidecar's first answer is an event")
	}
	sub.stream = stream
	return nil
}

// receive starts the work on every event until the stream breaks. Once ctx has
// ended it starts no more: an event without an answer comes again.
func (sub *subscription) receive(ctx, workCtx context.Context, work *sync.WaitGroup) error {
	for {
		m, err := sub.stream.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		e := m.GetEventMessage()
		if e == nil || ctx.Err() != nil || !sub.begin(e) {
			continue
		}
		if !sub.place(ctx) {
			sub.end(e.GetId(), false)
			sub.settle()
			continue
		}
		work.Go(func() {
			defer func() { <-sub.slots }()
			sub.s.metrics.running.Inc()
			defer sub.s.metrics.running.Dec()
			if status, ok := sub.s.handle(workCtx, ctx, e); sub.end(e.GetId(), ok) {
				sub.answer(e.GetId(), status)
			}
			sub.settle()
		})
	}
}

// place waits for a place for one event, and says whether it has one.
func (sub *subscription) place(ctx context.Context) bool {
	select {
	case sub.slots <- struct{}{}:
		return true
	default:
		sub.s.crowded()
	}
	select {
	case sub.slots <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-sub.stream.Context().Done():
	}
	return false
}

// crowded notes that the component hands over more than is worked on.
func (s *Sidecar) crowded() {
	if s.metrics.crowd() {
		s.log.Warn("the pub/sub component hands over more events than are worked on at once, and holds them back from other replicas; lower its concurrency or prefetch",
			"pubsub", s.cfg.PubSub, "concurrency", s.concurrency())
	}
}

// begin says whether to work on e. One that is worked on already is not begun a
// second time: the answer of the first is the answer of both. One that comes
// while the stream is closing comes again on the next.
func (sub *subscription) begin(e *pb.TopicEventRequest) bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.closing {
		return false
	}
	f := sub.inFlight[e.GetId()]
	if f != nil || sub.told.has(e.GetId(), time.Now()) {
		sub.duplicated = true
	}
	if f == nil {
		f = &flight{}
		sub.inFlight[e.GetId()] = f
	}
	name := nameOf(e)
	if slices.Contains(f.names, name) {
		sub.s.metrics.events.WithLabelValues("duplicate").Inc()
		return false
	}
	f.names = append(f.names, name)
	f.open++
	sub.unsettled++
	return true
}

// end notes that the work on one event has ended, and says whether to answer.
func (sub *subscription) end(id string, ok bool) bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	f := sub.inFlight[id]
	f.left = f.left || !ok
	if f.open--; f.open > 0 {
		return false
	}
	delete(sub.inFlight, id)
	if !f.left {
		sub.told.add(id, time.Now())
	}
	return !f.left
}

// recent is the ids of the last one to two crossings.
type recent struct {
	ids, before map[string]bool
	began       time.Time // of ids
}

func (r *recent) turn(now time.Time) {
	switch age := now.Sub(r.began); {
	case age > 2*crossing:
		r.ids, r.before, r.began = map[string]bool{}, nil, now
	case age > crossing:
		r.ids, r.before, r.began = map[string]bool{}, r.ids, now
	}
}

func (r *recent) add(id string, now time.Time) {
	r.turn(now)
	r.ids[id] = true
}

func (r *recent) has(id string, now time.Time) bool {
	r.turn(now)
	return r.ids[id] || r.before[id]
}

// settle notes that what there was to say about an event that was begun is
// said. After a duplicate the last one to settle has the stream opened anew: no
// sooner, or an answer that is about to be sent would meet a closed stream.
func (sub *subscription) settle() {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.unsettled--; sub.unsettled == 0 && (sub.duplicated || sub.closing) {
		sub.closing = true
		close(sub.idle)
	}
}

// stop has nothing more begun. An event that came just before is settled like
// the others: its result may be published already, and unanswered it would be
// worked on once more.
func (sub *subscription) stop() {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.closing {
		return
	}
	if sub.closing = true; sub.unsettled == 0 {
		close(sub.idle)
	}
}

// answer tells the sidecar what became of an event. On a broken stream nobody
// listens, and the event comes again.
func (sub *subscription) answer(id string, status pb.TopicEventResponse_TopicEventResponseStatus) {
	sub.sending.Lock()
	defer sub.sending.Unlock()
	err := sub.stream.Send(&pb.SubscribeTopicEventsRequestAlpha1{
		SubscribeTopicEventsRequestType: &pb.SubscribeTopicEventsRequestAlpha1_EventProcessed{
			EventProcessed: &pb.SubscribeTopicEventsRequestProcessedAlpha1{Id: id, Status: &pb.TopicEventResponse{Status: status}}}})
	if err != nil {
		sub.s.log.Warn("an event's outcome could not be told", "event", id, "err", err)
	}
}
