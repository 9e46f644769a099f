package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
)

// Rule names what must hold.
type Rule string

// The rules. Each has a planted fault in the tests, and one that can be planted into a
// real run.
const (
	// Ended: a request ends. One whose client was killed before ends with it; a job does
	// not, its client's next life asks for it again.
	Ended Rule = "never ended"
	// EndedOnce: it ends once.
	EndedOnce Rule = "ended twice"
	// Kept: a job that was acknowledged is done in the end, a message that was comes, unless
	// it expires, and a body that was is what every environment holds.
	Kept Rule = "acknowledged and lost"
	// ActedOnce: an action, by its (origin, episode, sequence) and by its id, begins at
	// most once in the whole fleet. A message is handled once by each life of its receiver.
	ActedOnce Rule = "acted twice"
	// InTime: an action or a message does not begin after its time.
	InTime Rule = "acted late"
	// InOrder: the actions of an episode, and the messages of one sender to one receiver,
	// begin in the order of their sequence.
	InOrder Rule = "acted out of order"
	// TrueRefusal: an action whose caller was told that it did not run, did not run.
	TrueRefusal Rule = "refused but run"
	// Newest: what is delivered is no result of an older attempt of a job, an action does
	// not run in another life of its robot than it was meant for, and no client goes back
	// to the plan of an older term.
	Newest Rule = "older term or attempt"
	// OneWriter: of two who write one revision of a body, one is refused.
	OneWriter Rule = "two writers won"
	// Whole: an executor gets the bytes that the client sent.
	Whole Rule = "changed"
	// Real: what was answered was executed for that request by the one who signed it, and
	// what was executed was sent.
	Real Rule = "invented"
	// Expected: an error is one that faults explain.
	Expected Rule = "unexpected error"
	// Alive: no process ends by itself.
	Alive Rule = "crashed"
)

// The classes of what is no request to a model or robot.
const (
	Message messages.Class = "message" // Origin sends Agent a message, number Seq of Episode
	Sync    messages.Class = "sync"    // a body Task is put as revision Seq, with the digest Text
)

// Slack is what two processes on busy cores may disagree by: between the look at the
// deadline and the line in the history, the executor's goroutine may have to wait for a
// core.
//
// Forgiven is what a robot forgives on top of it: it cannot tell a command that lay in its
// socket from one that was sent just now unless its pings are silent for longer, and busy
// machines answer pings late (agent/link.go). What begins within it is counted as tardy. A
// planted late action is late by more than both.
const (
	Slack    = 100 * time.Millisecond
	Forgiven = time.Second
)

// Violation is one broken rule.
type Violation struct {
	Rule  Rule           `json:"rule"`
	ID    string         `json:"id,omitempty"`
	Class messages.Class `json:"class,omitempty"`
	Text  string         `json:"text"`
}

// Tally counts the requests of one class.
type Tally struct {
	Sent       int                   `json:"sent"`
	Answered   int                   `json:"answered"`
	Refused    map[messages.Code]int `json:"refused,omitempty"`
	CutOff     int                   `json:"cut_off,omitempty"` // its client was killed
	Executions int                   `json:"executions"`
}

// Verdict is what Check found.
type Verdict struct {
	Requests   int                       `json:"requests"`
	Classes    map[messages.Class]*Tally `json:"classes"`
	Tardy      int                       `json:"tardy"`       // actions and messages that began after their time, within what is forgiven
	Tardiest   float64                   `json:"tardiest_ms"` // by how much at most
	Violations []Violation               `json:"violations"`
}

// Check judges the records of all processes together, in any order; it sorts them by time.
func Check(records []history.Record) Verdict {
	c := checker{
		requests: make(map[string]*request), execs: make(map[string]history.Record),
		killed: make(map[string][]time.Time),
		v:      Verdict{Classes: make(map[messages.Class]*Tally), Violations: []Violation{}},
	}
	slices.SortStableFunc(records, func(a, b history.Record) int { return a.At.Compare(b.At) })
	for _, r := range records {
		c.take(r)
	}
	for _, q := range c.requests {
		c.judge(q)
	}
	c.judgeActions()
	c.judgeRoutes()
	c.judgeMail()
	c.judgeBodies()
	slices.SortFunc(c.v.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Text, b.Text))
	})
	return c.v
}

// request is all that is known of one request.
type request struct {
	first  history.Record // of any kind
	sent   []history.Record
	stored []history.Record
	ends   []history.Record
	begins []history.Record
	dones  []history.Record
}

type checker struct {
	requests map[string]*request
	execs    map[string]history.Record // begin records, by execution
	acts     []history.Record          // begin records of actions, by time
	routes   []history.Record
	mail     []history.Record // begin records of messages, by time
	held     []history.Record
	killed   map[string][]time.Time
	v        Verdict
}

func (c *checker) take(r history.Record) {
	switch r.Kind {
	case history.Killed:
		c.killed[r.Agent] = append(c.killed[r.Agent], r.At)
		return
	case history.Routes:
		c.routes = append(c.routes, r)
		return
	case history.Held:
		c.held = append(c.held, r)
		return
	}
	q := c.requests[r.ID]
	if q == nil {
		q = &request{first: r}
		c.requests[r.ID] = q
	}
	switch r.Kind {
	case history.Sent:
		q.sent = append(q.sent, r)
		c.v.Requests++
		c.tally(r.Class).Sent++
	case history.Stored:
		q.stored = append(q.stored, r)
	case history.Answered, history.Refused:
		q.ends = append(q.ends, r)
	case history.Begin:
		q.begins = append(q.begins, r)
		c.execs[r.Exec] = r
		c.tally(r.Class).Executions++
		switch r.Class {
		case messages.Action:
			c.acts = append(c.acts, r)
		case Message:
			c.mail = append(c.mail, r)
		}
	case history.End:
		q.dones = append(q.dones, r)
	}
}

func (c *checker) tally(class messages.Class) *Tally {
	t := c.v.Classes[class]
	if t == nil {
		t = &Tally{Refused: make(map[messages.Code]int)}
		c.v.Classes[class] = t
	}
	return t
}

func (c *checker) add(rule Rule, r history.Record, format string, args ...any) {
	c.v.Violations = append(c.v.Violations, Violation{rule, r.ID, r.Class, fmt.Sprintf(format, args...)})
}

// clock prints the time of a record as one finds it in the histories.
func clock(r history.Record) string { return r.At.Format("15:04:05.000") }
