package route

import (
	"fmt"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// next sends the request to the next candidate, unless somebody who can be relied on
// has it already.
func (m *Machine) next(why Cause) {
	if m.anyLive() {
		return
	}
	m.rest = time.Time{}
	if m.begun >= m.p.Attempts {
		if i := m.waiting(); i >= 0 {
			m.tries[i].doubted = false // there is nothing better to rely on
			return
		}
		m.finish(m.exhausted(), nil)
		return
	}
	for _, c := range m.p.Candidates() {
		if slices.Contains(m.asked, c.Agent) {
			continue
		}
		m.begin(c, why)
		return
	}
	m.round()
}

// begin sends the next attempt to an agent.
func (m *Machine) begin(c Candidate, why Cause) {
	m.begun++
	m.asked = append(m.asked, c.Agent)
	m.tries = append(m.tries, try{attempt: m.begun, agent: c.Agent, site: c.Site, sent: m.now})
	m.emit(Effect{Kind: SendDirect, Agent: c.Agent, Site: c.Site, Attempt: m.begun, Cause: why})
	m.emit(Effect{Kind: ProbeOn, Agent: c.Agent, Site: c.Site, Attempt: m.begun})
}

// round is for when everybody there is was asked: end with the reason, early, so that
// the caller can act on it; or rest, and ask them again.
func (m *Machine) round() {
	why := m.last
	if m.busy != nil {
		why = m.busy
	}
	if why == nil {
		why = messages.Errorf(messages.CodeNotPlaced, "task %s: no replica is ready", m.p.Task)
	}
	pause := min(max(why.RetryAfter, PauseMin<<min(m.rounds, 10)), PauseMax)
	switch i := m.waiting(); {
	case i >= 0 && m.tries[i].acked:
		// It is still in the queue, doubted as it may be: the queue delivers it again
		// after its ack wait, and that should have its chance first.
		pause = QueueAckWait
	case m.last == nil, !m.p.Patient && !m.admit,
		why.Code == messages.CodeBusy && why.RetryAfter > m.p.Deadline.Sub(m.now), // it says itself that there is no point
		why.Code == messages.CodeBackendFailed && !m.evidence():                   // the backends fail: no point either
		m.finish(why, nil)
		return
	}
	m.rest = m.now.Add(pause)
	m.asked, m.busy = m.asked[:0], nil
	m.rounds++
}

// evidence reports whether the last thing that went wrong was an agent's end, not its
// answer.
func (m *Machine) evidence() bool {
	for i := range m.tries {
		if m.tries[i].over {
			return true
		}
	}
	return false
}

// timer does what is due. It runs after every event: one that comes at the same moment
// as a Timer must not put that off.
func (m *Machine) timer() {
	for i := 0; i < len(m.tries) && !m.done; i++ {
		t := &m.tries[i]
		switch {
		case t.over || t.ended:
		case !t.absent.IsZero() && m.due(t.absent.Add(AbsentGrace)):
			t.over = true
			m.emit(Effect{Kind: ProbeOff, Agent: t.agent})
			m.last = messages.Errorf(messages.CodeBackendFailed, "task %s: agent %s does not have the request any more and sent no result", m.p.Task, t.agent)
			m.asked = append(m.asked, t.agent)
			m.next(CauseMissing)
		case t.queued && t.agent == "" && !t.acked && !t.doubted && m.due(t.sent.Add(AckWait)):
			t.doubted = true
			m.last = messages.Errorf(messages.CodeUnavailable, "task %s: the queue of site %s did not confirm the request within %v", m.p.Task, t.site, AckWait)
			m.next(CauseNoAck)
		case t.queued && t.agent == "" && !m.watched && m.due(t.sent.Add(SuspectAfter)):
			m.watch(t.site)
		case t.queued && t.agent == "" && t.acked && !t.doubted && m.watched && m.due(m.look):
			m.look = m.now.Add(StuckEvery)
			if m.p.Stuck != nil && m.p.Stuck() {
				t.doubted = true
				m.last = messages.Errorf(messages.CodeUnavailable, "task %s: the queue of site %s has the request and delivers nothing", m.p.Task, t.site)
				m.next(CauseStuck)
			}
		}
	}
	if !m.done && !m.rest.IsZero() && m.due(m.rest) {
		m.next(CauseRefused)
	}
	if !m.done && m.hedging() && m.due(m.start.Add(m.p.Hedge)) {
		m.hedge()
	}
}

// hedging reports whether there will be a time to hedge.
func (m *Machine) hedging() bool { return m.p.Hedge > 0 && !m.hedged }

// watch looks, once, after everybody who may have pulled the request without a word.
func (m *Machine) watch(site string) {
	m.watched, m.look = true, m.now.Add(AckWait-SuspectAfter)
	for _, c := range m.p.Candidates() {
		if c.Site == site && !m.holds(c.Agent) {
			m.suspects = append(m.suspects, c)
			m.emit(Effect{Kind: ProbeOn, Agent: c.Agent, Site: c.Site})
		}
	}
}

func (m *Machine) due(t time.Time) bool { return !m.now.Before(t) }

// schedule asks for the next Timer where that has changed.
func (m *Machine) schedule() {
	if m.done {
		return
	}
	at := m.p.Deadline
	sooner := func(t time.Time) {
		if t.Before(at) && t.After(m.now) {
			at = t
		}
	}
	for i := range m.tries {
		t := &m.tries[i]
		if t.over || t.ended {
			continue
		}
		if !t.absent.IsZero() {
			sooner(t.absent.Add(AbsentGrace))
		}
		if t.queued && t.agent == "" {
			if !t.acked && !t.doubted {
				sooner(t.sent.Add(AckWait))
			}
			if !m.watched {
				sooner(t.sent.Add(SuspectAfter))
			} else if t.acked && !t.doubted && m.p.Stuck != nil {
				sooner(m.look)
			}
		}
	}
	if !m.rest.IsZero() {
		sooner(m.rest)
	}
	if m.hedging() {
		sooner(m.start.Add(m.p.Hedge))
	}
	if !at.Equal(m.wake) {
		m.wake = at
		m.emit(Effect{Kind: WakeAt, At: at})
	}
}

// finish ends the request, once: with an error, or with the result that ev brought.
// Whoever else may have it is told to drop it.
func (m *Machine) finish(err *messages.Error, ev *Event) {
	m.done = true
	if ev != nil {
		m.emit(Effect{Kind: Finish, Agent: ev.Agent, Attempt: ev.Attempt})
	} else {
		m.emit(Effect{Kind: Finish, Err: err})
	}
	for i := range m.tries {
		t := &m.tries[i]
		if t.agent != "" && !t.ended && (ev == nil || t.agent != ev.Agent || t.attempt != ev.Attempt) {
			m.emit(Effect{Kind: CancelAt, Agent: t.agent, Site: t.site})
		}
	}
}

func (m *Machine) overdue() *messages.Error {
	return messages.Errorf(messages.CodeDeadline, "inference of task %s: no answer within %v: %s", m.p.Task,
		m.p.Deadline.Sub(m.start).Round(time.Millisecond), m.standing())
}

func (m *Machine) exhausted() *messages.Error {
	err := m.last
	if err == nil {
		err = messages.Errorf(messages.CodeBackendFailed, "task %s: no attempt came to a result", m.p.Task)
	}
	out := *err
	out.Message = fmt.Sprintf("%s (begun %d times, allowed are %d)", err.Message, m.begun, m.p.Attempts)
	return &out
}

// standing says for people how far the request came.
func (m *Machine) standing() string {
	for i := range m.tries {
		if t := &m.tries[i]; t.accepted && t.live() {
			return fmt.Sprintf("agent %s has it as attempt %d; give it more time, or the task more compute", t.agent, t.attempt)
		}
	}
	switch i := m.waiting(); {
	case i >= 0 && m.last == nil:
		return fmt.Sprintf("it waits in the queue of site %s and no replica was free to take it; add replicas or concurrency, or ask less often", m.tries[i].site)
	case m.last != nil:
		return "last: " + m.last.Error()
	}
	return "no agent took it"
}
