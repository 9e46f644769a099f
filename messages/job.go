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

// Job is the record of a training request in the jobs bucket. It is written with
// compare-and-set only, so that of two executors one wins.
type Job struct {
	V       int       `msgpack:"v" json:"-"`
	ID      string    `msgpack:"id" json:"id"`
	Task    string    `msgpack:"t" json:"task"`
	Origin  string    `msgpack:"o" json:"origin"`
	Site    string    `msgpack:"si" json:"site"`
	State   GoalState `msgpack:"s" json:"state"`
	Attempt int       `msgpack:"n" json:"attempt"` // how often it was begun
	Agent   string    `msgpack:"a,omitempty" json:"agent,omitempty"`
	Result  []byte    `msgpack:"re,omitempty" json:"result,omitempty"` // the handler's bytes, with SUCCEEDED
	Type    string    `msgpack:"ct,omitempty" json:"content_type,omitempty"`
	Code    Code      `msgpack:"e,omitempty" json:"error,omitempty"`
	Reason  string    `msgpack:"w,omitempty" json:"reason,omitempty"`
	Created time.Time `msgpack:"cr" json:"created"` // the submitter's clock; for display only
}

func (j *Job) version() *int { return &j.V }

func (j *Job) check() error {
	if err := CheckName("job", j.ID); err != nil {
		return err
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
