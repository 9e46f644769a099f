package messages

import "time"

// GoalState is how far a long-running request has come: the states of ROS 2's
// actions.
type GoalState string

// The states of a long-running request.
const (
	GoalUnknown   GoalState = "UNKNOWN"
	GoalAccepted  GoalState = "ACCEPTED"
	GoalExecuting GoalState = "EXECUTING"
	GoalCanceling GoalState = "CANCELING"
	GoalSucceeded GoalState = "SUCCEEDED"
	GoalCanceled  GoalState = "CANCELED"
	GoalAborted   GoalState = "ABORTED"
)

// Ended reports whether s is final.
func (s GoalState) Ended() bool {
	return s == GoalSucceeded || s == GoalCanceled || s == GoalAborted
}

// Priority says which of the jobs that wait for one task are begun first.
type Priority string

// The priorities of a job. Each has a queue of its own; one that is not named is normal.
const (
	High   Priority = "high"
	Normal Priority = "normal"
	Low    Priority = "low"
)

// Priorities lists the priorities, the first to be served first.
func Priorities() []Priority { return []Priority{High, Normal, Low} }

// Check returns an error unless p is one of [Priorities], naming the field.
func (p Priority) Check(field string) error {
	switch p {
	case High, Normal, Low:
		return nil
	}
	return Errorf(CodeBadRequest, "%s: found %q, allowed are high, normal, low", field, shorten(string(p)))
}

// MaxHistory bounds how many of its attempts the record of a job remembers.
const MaxHistory = 20

// Job is the record of a training request in the jobs bucket. It is written with
// compare-and-set only, so that of two executors one wins. A job that waits for its first
// attempt has none: it is what stands in the queue.
type Job struct {
	V       int       `msgpack:"v" json:"-"`
	ID      string    `msgpack:"id" json:"id"`
	Task    string    `msgpack:"t" json:"task"`
	Origin  string    `msgpack:"o" json:"origin"`
	Site    string    `msgpack:"si" json:"site"`
	State   GoalState `msgpack:"s" json:"state"`
	Attempt int       `msgpack:"n" json:"attempt"` // number of the last attempt; it only ever grows
	Agent   string    `msgpack:"a,omitempty" json:"agent,omitempty"`
	Result  []byte    `msgpack:"re,omitempty" json:"result,omitempty"` // the handler's bytes, with SUCCEEDED
	Type    string    `msgpack:"ct,omitempty" json:"content_type,omitempty"`
	Code    Code      `msgpack:"e,omitempty" json:"error,omitempty"`
	Reason  string    `msgpack:"w,omitempty" json:"reason,omitempty"`
	Created time.Time `msgpack:"cr" json:"created"` // when it was stored, on the server's clock; for display only

	Priority   Priority     `msgpack:"pr,omitempty" json:"priority,omitempty"`   // "": normal
	Inc        Incarnation  `msgpack:"i,omitempty" json:"incarnation"`           // the life of Agent that runs it
	Free       int          `msgpack:"f,omitempty" json:"free,omitempty"`        // attempts up to Attempt that do not count
	Pause      float64      `msgpack:"p,omitempty" json:"pause_ms,omitempty"`    // ms before it is begun again
	Checkpoint *Checkpoint  `msgpack:"cp,omitempty" json:"checkpoint,omitempty"` // the newest; nil: it begins from nothing
	History    []JobAttempt `msgpack:"h,omitempty" json:"history,omitempty"`     // how attempts ended, the oldest first, at most MaxHistory
	Redriven   int          `msgpack:"rd,omitempty" json:"redriven,omitempty"`   // how often it was taken out of the dead letters
}

// JobAttempt is how one attempt at a job ended without a result.
type JobAttempt struct {
	Attempt int    `msgpack:"n" json:"attempt"`
	Agent   string `msgpack:"a,omitempty" json:"agent,omitempty"`
	Code    Code   `msgpack:"e,omitempty" json:"error,omitempty"`
	Reason  string `msgpack:"w,omitempty" json:"reason,omitempty"`
}

// Checkpoint names what an attempt has stored of its work in the checkpoints bucket.
type Checkpoint struct {
	Name    string `msgpack:"n" json:"name"` // of the object
	Attempt int    `msgpack:"a" json:"attempt"`
	Number  int    `msgpack:"k" json:"number"` // of this job, from 1
	Size    uint64 `msgpack:"z" json:"bytes"`
	Digest  string `msgpack:"d" json:"digest"` // SHA-256, as Object Store writes it
}

// Dead reports whether j is a dead letter: it ended without success and can be redriven.
func (j *Job) Dead() bool { return j.State == GoalAborted }

// Level is j's priority, never empty.
func (j *Job) Level() Priority {
	if j.Priority == "" {
		return Normal
	}
	return j.Priority
}

// Remember appends how the last attempt ended; the oldest go where there is no room.
func (j *Job) Remember(code Code, reason string) {
	if n := len(j.History) - MaxHistory + 1; n > 0 {
		j.History = j.History[n:]
	}
	// Cloned: records are copied by value, and two must not share what they append to.
	j.History = append(j.History[:len(j.History):len(j.History)], JobAttempt{Attempt: j.Attempt, Agent: j.Agent, Code: code, Reason: oneLine(reason)})
}

func (j *Job) version() *int { return &j.V }

func (j *Job) check() error {
	if err := CheckName("job", j.ID); err != nil {
		return err
	}
	if j.Priority != "" {
		if err := j.Priority.Check("priority"); err != nil {
			return err
		}
	}
	return CheckName("task", j.Task)
}

// Progress is one report of a running job: core NATS, newest wins.
type Progress struct {
	V       int     `msgpack:"v" json:"-"`
	Job     string  `msgpack:"j" json:"job"`
	Agent   string  `msgpack:"a" json:"agent"`
	Attempt int     `msgpack:"n" json:"attempt"`
	Done    float64 `msgpack:"d" json:"done"` // 0 to 1
	Note    string  `msgpack:"w,omitempty" json:"note,omitempty"`
}

func (p *Progress) version() *int { return &p.V }

func (p *Progress) check() error {
	if err := CheckName("job", p.Job); err != nil {
		return err
	}
	return CheckAmount("done", p.Done, 0, 1, "")
}

// Outcome is how an action ended, as its executor writes it into the journal
// before it answers.
type Outcome struct {
	V       int         `msgpack:"v" json:"-"`
	ID      string      `msgpack:"id" json:"id"`
	Task    string      `msgpack:"t" json:"task"`
	Agent   string      `msgpack:"a" json:"agent"`
	Inc     Incarnation `msgpack:"i" json:"incarnation"`
	Episode string      `msgpack:"ep,omitempty" json:"episode,omitempty"`
	Seq     uint64      `msgpack:"q,omitempty" json:"sequence,omitempty"`
	State   GoalState   `msgpack:"s" json:"state"`
	Code    Code        `msgpack:"e,omitempty" json:"error,omitempty"`
	Reason  string      `msgpack:"w,omitempty" json:"reason,omitempty"`
	Service float64     `msgpack:"ms,omitempty" json:"service_ms,omitempty"`
}

func (o *Outcome) version() *int { return &o.V }
func (o *Outcome) check() error  { return CheckName("request", o.ID) }

// Probe asks an agent which of these requests it holds; the answer is a Probe with
// those that it does.
type Probe struct {
	V   int         `msgpack:"v"`
	Inc Incarnation `msgpack:"i"` // in the answer: the agent's
	IDs []string    `msgpack:"ids"`
}

func (p *Probe) version() *int { return &p.V }

func (p *Probe) check() error {
	for _, id := range p.IDs {
		if err := CheckName("request", id); err != nil {
			return err
		}
	}
	return nil
}
