package coordinator

import (
	"sync"
	"time"
)

// doubts are the agents of which somebody says that they are gone. They are asked at once,
// and again with every look for the time of a beat: one that had just lost its connection,
// and is back, answers, and needs not wait for its next beat to be believed. The methods may
// be called from many goroutines.
type doubts struct {
	mu    sync.Mutex
	until map[string]time.Time
	asked int // at once, since the last look
}

// doubtFor is how long an agent in doubt is asked: as long as evidence takes to count. For
// as long again it is not asked: one that is dead is not asked all the time, whoever says so
// how often.
const doubtFor = 1200 * time.Millisecond

func (d *doubts) init() { d.until = make(map[string]time.Time) }

// put reports whether the agent is to be asked at once.
func (d *doubts) put(agent string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.until[agent]; ok {
		return false
	}
	d.until[agent] = now.Add(doubtFor)
	d.asked++
	return d.asked <= askAtOnce
}

// end ends a doubt: the agent answered.
func (d *doubts) end(agent string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.until, agent)
}

// due returns who is to be asked in this look.
func (d *doubts) due(now time.Time) (list []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = 0
	for agent, until := range d.until {
		switch {
		case !now.Before(until.Add(doubtFor)):
			delete(d.until, agent)
		case now.Before(until) && len(list) < askAtOnce:
			list = append(list, agent)
		}
	}
	return list
}
