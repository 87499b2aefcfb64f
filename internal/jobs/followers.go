package jobs

import "sync"

// followers are those in this process who read logs that still grow. They are
// called when this process writes into one; what other replicas write they find
// by looking. The zero value is ready.
type followers struct {
	mu    sync.Mutex
	calls map[string]map[chan struct{}]struct{} // by the prefix of the log
}

// join adds a follower of a log. It is called after every change from now on,
// of several once, until it leaves.
func (f *followers) join(prefix string) (called <-chan struct{}, leave func()) {
	call := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[string]map[chan struct{}]struct{}{}
	}
	if f.calls[prefix] == nil {
		f.calls[prefix] = map[chan struct{}]struct{}{}
	}
	f.calls[prefix][call] = struct{}{}
	return call, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if delete(f.calls[prefix], call); len(f.calls[prefix]) == 0 {
			delete(f.calls, prefix)
		}
	}
}

// call tells the followers of a log that it has changed.
func (f *followers) call(prefix string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for call := range f.calls[prefix] {
		select {
		case call <- struct{}{}:
		default: // it has yet to hear of an earlier change, and looks then
		}
	}
}
