package agent

import (
	"container/list"
	"sync"

	"github.com/fleetbus/fleetbus/messages"
)

// Bounds of what the guards remember. They bound memory against a stranger who invents
// names: 4,096 entries of a few hundred bytes. What falls out was not used for longer
// than 4,095 others; for a key that lets an old observation through once, which is
// harmless; for an episode see [episodes].
const (
	maxKeys     = 4096
	maxOrigins  = 4096
	maxEpisodes = 64 // older episodes remembered per (task, origin)
)

// recent is a map that keeps the entries used last. It is not safe for concurrent use.
type recent[K comparable, V any] struct {
	most  int
	index map[K]*list.Element
	order list.List // the one used last is in front; values are *entry[K, V]
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// get returns the value of a key, which is made where it is missing.
func (r *recent[K, V]) get(key K) *V {
	if r.index == nil {
		r.index = make(map[K]*list.Element)
	}
	if e, ok := r.index[key]; ok {
		r.order.MoveToFront(e)
		return &e.Value.(*entry[K, V]).value
	}
	if r.order.Len() >= r.most {
		last := r.order.Back()
		delete(r.index, r.order.Remove(last).(*entry[K, V]).key)
	}
	e := &entry[K, V]{key: key}
	r.index[key] = r.order.PushFront(e)
	return &e.value
}

// observation names a stream of observations: of one key only the newest counts.
type observation struct{ task, origin, key string }

// newest decides whether an observation is still the newest of its key. It is pure and
// not safe for concurrent use.
type newest struct {
	seen recent[observation, uint64]
}

func newNewest() newest { return newest{recent[observation, uint64]{most: maxKeys}} }

// admit reports whether no newer observation of the key was seen. The same sequence
// passes again: it is a redelivery or a retry. newer is the newest that was seen. An
// observation without a key or a sequence always passes.
func (n *newest) admit(task, origin, key string, seq uint64) (newer uint64, ok bool) {
	if key == "" || seq == 0 {
		return 0, true
	}
	last := n.seen.get(observation{task, origin, key})
	if seq < *last {
		return *last, false
	}
	*last = seq
	return seq, true
}

// command names a stream of commands: those of one origin to one task of this agent.
type command struct{ task, origin string }

// run is one stream's current episode and those before it.
type run struct {
	episode string
	last    uint64
	older   []string // the oldest first
}

// episodes decides whether a command may run: within an episode the sequence must grow,
// and an episode that another took the place of is over. A name that it does not know
// starts a new episode; so an episode is forgotten, and could run again, after 64 newer
// ones of its origin, or when 4,096 other origins were heard after it. It is pure and
// not safe for concurrent use.
type episodes struct {
	runs recent[command, run]
}

func newEpisodes() episodes { return episodes{recent[command, run]{most: maxOrigins}} }

// admit returns nil where the command may run, and remembers it; else an error with
// code stale.
func (e *episodes) admit(task, origin, episode string, seq uint64) *messages.Error {
	r := e.runs.get(command{task, origin})
	if r.episode == episode {
		if seq <= r.last {
			return messages.Errorf(messages.CodeStale, "sequence %d of episode %q: the newest that ran is %d; commands of an episode must count up", seq, episode, r.last)
		}
		r.last = seq
		return nil
	}
	for _, old := range r.older {
		if old == episode {
			return messages.Errorf(messages.CodeStale, "episode %q is over: episode %q took its place; use a new name for every episode", episode, r.episode)
		}
	}
	if r.episode != "" {
		if len(r.older) >= maxEpisodes {
			copy(r.older, r.older[1:])
			r.older = r.older[:maxEpisodes-1]
		}
		r.older = append(r.older, r.episode)
	}
	r.episode, r.last = episode, seq
	return nil
}

// guards are the guards of all tasks of an agent. They live as long as the process, so
// that a replica which is moved away and back has not forgotten what ran. The methods
// may be called from many goroutines.
type guards struct {
	mu       sync.Mutex
	newest   newest
	episodes episodes
}

// observe returns an error with code superseded where a newer observation of the
// request's key was seen.
func (g *guards) observe(req messages.Request) *messages.Error {
	if req.Key == "" || req.Seq == 0 {
		return nil
	}
	g.mu.Lock()
	newer, ok := g.newest.admit(req.Task, req.Origin, req.Key, req.Seq)
	g.mu.Unlock()
	if ok {
		return nil
	}
	return messages.Errorf(messages.CodeSuperseded, "observation %d of key %q: observation %d took its place", req.Seq, req.Key, newer)
}

// command returns an error with code stale where a command may not run.
func (g *guards) command(req messages.Request) *messages.Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.episodes.admit(req.Task, req.Origin, req.Episode, req.Seq)
}
