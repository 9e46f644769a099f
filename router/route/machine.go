package route

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Params describe one inference request.
type Params struct {
	Task     string
	Deadline time.Time
	Attempts int    // how often it may be begun
	Queue    string // the site whose queue gets it first; "" sends it straight to an agent

	// Patient says what happens when every candidate is busy: a patient request rests
	// and goes round again, as it would wait in the queue; any other ends as busy.
	Patient bool

	// Hedge is after how long the request is so late that a second agent is asked as
	// well; 0: never. MayHedge is called then, and takes from the budget.
	Hedge    time.Duration
	MayHedge func() bool

	// Stuck reports whether the queue seems to deliver nothing; nil: nobody knows.
	Stuck func() bool

	// Candidates returns whom to ask now, the best first. It is called during Step and
	// may return something else each time.
	Candidates func() []Candidate
}

// try is one way in which the request may be under way.
type try struct {
	attempt  int
	agent    string // "" while it is in the queue and nobody accepted it
	site     string
	queued   bool // through the queue
	acked    bool // the queue has it
	doubted  bool // in the queue, and not relied on any more
	accepted bool
	over     bool      // its agent was given up on; a late result still counts
	ended    bool      // its agent answered with an error
	sent     time.Time // when it left
	absent   time.Time // when its agent first said that it does not hold it
}

// live reports whether the try alone is reason enough to wait.
func (t *try) live() bool { return !t.over && !t.ended && !t.doubted }

// Machine is the life of one inference request.
type Machine struct {
	p        Params
	start    time.Time
	tries    []try
	begun    int      // attempts that may have been begun
	asked    []string // agents asked in this round
	watched  bool
	look     time.Time       // when to ask whether the queue is stuck
	hedged   bool            // it was time to
	suspects []Candidate     // watched though they did not say that they hold it
	admit    bool            // somebody has taken it once: it is not refused as busy any more
	rest     time.Time       // everybody was asked; when the next round begins
	rounds   int             // that ended without anybody who took it
	busy     *messages.Error // the busy answer of this round that promises most
	last     *messages.Error // the last thing that went wrong
	wake     time.Time
	done     bool
	now      time.Time
	fx       []Effect

	// Room for the plain case, so that a request allocates its machine once.
	fxRoom  [3]Effect
	tryRoom [2]try
	askRoom [2]string
}

// NewMachine makes the machine of one request. Its first event is Start.
func NewMachine(p Params) *Machine {
	m := new(Machine)
	m.Init(p)
	return m
}

// Init makes a zero Machine that of one request; it must not be copied afterwards.
func (m *Machine) Init(p Params) {
	m.p = p
	m.fx, m.tries, m.asked = m.fxRoom[:0], m.tryRoom[:0], m.askRoom[:0]
}

// Done reports whether the request has ended.
func (m *Machine) Done() bool { return m.done }

// Step takes in an event that came at now and returns what to do, in this order. The
// slice is good until the next Step. now must not go back.
func (m *Machine) Step(now time.Time, ev Event) []Effect {
	m.now, m.fx = now, m.fx[:0]
	if m.done {
		if ev.Kind == Accepted {
			m.emit(Effect{Kind: CancelAt, Agent: ev.Agent})
		}
		return m.fx
	}
	if ev.Kind == Start {
		m.start = now
	}
	switch {
	case !now.Before(m.p.Deadline): // whatever comes now comes too late
		m.finish(m.overdue(), nil)
	case ev.Kind == Cancel:
		err := ev.Err
		if err == nil {
			err = messages.Errorf(messages.CodeCanceled, "inference of task %s: the caller gave it up", m.p.Task)
		}
		m.finish(err, nil)
	case ev.Kind == Start && m.p.Queue != "":
		m.begun = queueAttempt
		m.tries = append(m.tries, try{attempt: queueAttempt, site: m.p.Queue, queued: true, sent: now})
		m.emit(Effect{Kind: PublishWork, Site: m.p.Queue, Attempt: queueAttempt})
	case ev.Kind == Start:
		m.next(CauseFirst)
	default:
		m.step(ev)
		m.timer()
	}
	m.schedule()
	return m.fx
}

func (m *Machine) step(ev Event) {
	switch ev.Kind {
	case Published:
		for i := range m.tries {
			if t := &m.tries[i]; t.queued {
				t.acked, m.admit = true, true
				if m.watched { // a large body may have been on its way for long
					m.look = m.now.Add(AckWait - SuspectAfter)
				}
			}
		}
	case PublishFailed:
		if i := m.waiting(); i >= 0 {
			m.last = ev.Err
			m.unbegin(i)
			m.next(CauseStream)
		}
	case Accepted:
		m.accepted(ev)
	case Result:
		m.result(ev)
	case NoResponders:
		if i := m.find(ev); i >= 0 && !m.tries[i].accepted && !m.tries[i].queued {
			if m.last = ev.Err; m.last == nil {
				m.last = messages.Errorf(messages.CodeNotPlaced, "task %s: agent %s has no connection", m.p.Task, ev.Agent)
			}
			m.unbegin(i)
			m.next(CauseAway)
		}
	case HolderLost:
		m.giveUp(ev.Agent, CauseLost)
	case HolderHung:
		m.giveUp(ev.Agent, CauseHung)
	case Absent:
		for i := range m.tries {
			t := &m.tries[i]
			known := t.accepted || !t.queued && m.now.Sub(t.sent) >= AcceptWait
			if t.agent == ev.Agent && t.live() && known && t.absent.IsZero() {
				t.absent = m.now
			}
		}
	}
}

// find returns the try that an agent's word is about: the agent's own, else the one in
// the queue that nobody has accepted; −1 where there is none.
func (m *Machine) find(ev Event) int {
	for i := range m.tries {
		if t := &m.tries[i]; t.agent == ev.Agent && t.attempt == ev.Attempt {
			return i
		}
	}
	if i := m.waiting(); i >= 0 && m.tries[i].attempt == ev.Attempt {
		return i
	}
	return -1
}

// waiting returns the try that is in the queue without a holder, or −1.
func (m *Machine) waiting() int {
	for i := range m.tries {
		if t := &m.tries[i]; t.queued && t.agent == "" {
			return i
		}
	}
	return -1
}

// queueAttempt is the number under which the queue gets a request.
const queueAttempt = 1

// unasked reports whether an agent speaks of an attempt that it cannot have. Whoever
// pulls from the queue can have the first one, also after somebody else had it: the
// queue delivers again where a report of progress was late.
func (m *Machine) unasked(ev Event) bool {
	return ev.Agent == "" || m.find(ev) < 0 && (m.p.Queue == "" || ev.Attempt != queueAttempt)
}

func (m *Machine) accepted(ev Event) {
	if m.unasked(ev) {
		return
	}
	i := m.find(ev)
	if i < 0 {
		m.tries = append(m.tries, try{attempt: ev.Attempt, agent: ev.Agent, site: m.p.Queue, queued: true, acked: true, sent: m.now})
		i = len(m.tries) - 1
	}
	t := &m.tries[i]
	if t.ended || t.accepted && !t.over {
		return // its result overtook it: the two come on different subscriptions
	}
	t.agent, t.accepted, t.over, t.doubted, t.absent = ev.Agent, true, false, false, time.Time{}
	m.admit, m.rest = true, time.Time{}
	m.emit(Effect{Kind: ProbeOn, Agent: t.agent, Site: t.site, Attempt: t.attempt})
	if t.queued {
		m.trust(t.agent)
	}
}

// trust ends the watch over the suspects; holder is watched as a holder from now on.
func (m *Machine) trust(holder string) {
	for _, s := range m.suspects {
		if s.Agent != holder && !m.holds(s.Agent) {
			m.emit(Effect{Kind: ProbeOff, Agent: s.Agent})
		}
	}
	m.suspects = m.suspects[:0]
}

func (m *Machine) holds(agent string) bool {
	for i := range m.tries {
		if t := &m.tries[i]; t.agent == agent && !t.over && !t.ended {
			return true
		}
	}
	return false
}

func (m *Machine) result(ev Event) {
	if m.unasked(ev) {
		return
	}
	if ev.Err == nil {
		m.finish(nil, &ev) // the first result wins, of whichever attempt
		return
	}
	i := m.find(ev)
	if i < 0 {
		return // an error of a second delivery: the first holder or its successor has it
	}
	t := &m.tries[i]
	if t.ended {
		return
	}
	m.last = ev.Err
	m.asked = append(m.asked, ev.Agent)
	if !t.accepted && !t.queued && refusal(ev.Err.Code) {
		if ev.Err.Code == messages.CodeBusy && (m.busy == nil || ev.Err.RetryAfter < m.busy.RetryAfter) {
			m.busy = ev.Err
		}
		m.unbegin(i)
		m.next(CauseRefused)
		return
	}
	given := t.over
	t.agent, t.ended = ev.Agent, true
	m.unwatch(t.agent)
	switch {
	case given:
		// It was given up on before; somebody else has it, or will.
	case ev.Err.Code.Advice() == messages.RetryElsewhere:
		m.next(CauseFailed)
	case t.queued && !t.accepted && refusal(ev.Err.Code):
		m.next(CauseRefused) // whoever pulled it cannot do it in time; another one may
	case !m.anyLive():
		m.finish(ev.Err, nil)
	}
}

// refusal reports whether an agent that answers with the code before it has accepted
// certainly did not begin the request, and another one may.
func refusal(c messages.Code) bool {
	return c == messages.CodeBusy || c == messages.CodeDraining || c == messages.CodeNotPlaced
}

// giveUp takes agent for lost or hung: whatever it holds moves elsewhere now, and so
// does what it may have pulled without a word.
func (m *Machine) giveUp(agent string, why Cause) {
	moved := false
	for i := range m.tries {
		if t := &m.tries[i]; t.agent == agent && !t.over && !t.ended {
			t.over, moved = true, true
			m.emit(Effect{Kind: ProbeOff, Agent: agent})
		}
	}
	if i := m.waiting(); i >= 0 && !m.tries[i].doubted {
		for k, s := range m.suspects {
			if s.Agent == agent {
				m.suspects = slices.Delete(m.suspects, k, k+1)
				m.emit(Effect{Kind: ProbeOff, Agent: agent})
				m.tries[i].doubted, moved = true, true
				break
			}
		}
	}
	if moved {
		m.last = messages.Errorf(messages.CodeBackendFailed, "task %s: agent %s was %s while it had the request", m.p.Task, agent, why)
		m.asked = append(m.asked, agent)
		m.next(why)
	}
}

// unbegin forgets a try that was certainly not begun, and its number with it where it
// is the newest.
func (m *Machine) unbegin(i int) {
	if m.tries[i].attempt == m.begun {
		m.begun--
	}
	agent := m.tries[i].agent
	m.tries = slices.Delete(m.tries, i, i+1)
	m.unwatch(agent)
}

// unwatch ends the watch over an agent that holds nothing any more; a suspect stays one.
func (m *Machine) unwatch(agent string) {
	if agent == "" || m.holds(agent) {
		return
	}
	m.emit(Effect{Kind: ProbeOff, Agent: agent})
	for _, s := range m.suspects {
		if s.Agent == agent {
			m.emit(Effect{Kind: ProbeOn, Agent: agent, Site: s.Site})
		}
	}
}

func (m *Machine) anyLive() bool {
	for i := range m.tries {
		if m.tries[i].live() {
			return true
		}
	}
	return false
}

func (m *Machine) emit(e Effect) { m.fx = append(m.fx, e) }
