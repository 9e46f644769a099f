package coordinator

import "sync"

// lane runs saves beside one another, each key's one after the other. Of what waits for one
// key only the newest is kept: a save that the Machine gave up waiting for and asks for
// again is done once, and never behind a newer one. What waits keeps its place in the
// order, so it is bounded by the number of keys. Its methods may be called from many
// goroutines; none of them waits.
type lane struct {
	work *sync.WaitGroup

	mu      sync.Mutex
	room    int // how many more may run at once
	order   []string
	next    map[string]func() // what waits, by key
	running map[string]bool
}

func newLane(room int, work *sync.WaitGroup) *lane {
	return &lane{work: work, room: room, next: make(map[string]func()), running: make(map[string]bool)}
}

// put asks for a save under a key, in place of the one that still waits for it.
func (l *lane) put(key string, save func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, waits := l.next[key]
	l.next[key] = save
	if !waits && !l.running[key] {
		l.order = append(l.order, key)
	}
	if l.room > 0 && len(l.order) > 0 {
		l.room--
		l.work.Go(l.run)
	}
}

// clear drops what waits. What runs goes on.
func (l *lane) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.order = nil
	clear(l.next)
}

// run saves until nothing waits.
func (l *lane) run() {
	for {
		key, save := l.take()
		if save == nil {
			return
		}
		save()
		l.done(key)
	}
}

// take returns what is to be run next, nil for nothing: then there is room for one more.
func (l *lane) take() (key string, save func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.order) == 0 {
		l.room++
		return "", nil
	}
	key, l.order = l.order[0], l.order[1:]
	save = l.next[key]
	delete(l.next, key)
	l.running[key] = true
	return key, save
}

func (l *lane) done(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, key)
	if l.next[key] != nil {
		l.order = append(l.order, key)
	}
}
