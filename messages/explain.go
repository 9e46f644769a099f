package messages

// Question asks the leader to explain a task, a replica or an agent by its name.
type Question struct {
	V    int    `msgpack:"v"`
	Name string `msgpack:"n"`
}

// Explanation answers a Question. A name that nothing has is answered by one that has
// neither Task nor Replicas nor Agent.
type Explanation struct {
	V        int          `msgpack:"v" json:"-"`
	Leader   string       `msgpack:"l" json:"leader"`
	Term     Term         `msgpack:"t" json:"term"`
	Task     string       `msgpack:"k,omitempty" json:"task,omitempty"`          // where the name is a task's that is to run
	Replicas []WhyReplica `msgpack:"r,omitempty" json:"replicas"`                // of the task; of the agent: what it runs, and what is moving to it
	More     int          `msgpack:"m,omitempty" json:"more_replicas,omitempty"` // of the task that are not in Replicas
	Agent    string       `msgpack:"a,omitempty" json:"agent,omitempty"`         // where the name is an agent's
	State    AgentState   `msgpack:"s,omitempty" json:"agent_state,omitempty"`
	History  []Event      `msgpack:"h,omitempty" json:"history,omitempty"` // of the agent, the oldest first
}

// WhyReplica says why one replica is where it is or waits, why not elsewhere, and how it
// came to that.
type WhyReplica struct {
	Info     ReplicaInfo `msgpack:"i" json:"replica"`
	Verdicts []Verdict   `msgpack:"v,omitempty" json:"environments"`                // the chosen first, then the best
	More     int         `msgpack:"m,omitempty" json:"more_environments,omitempty"` // that are not in Verdicts
	History  []Event     `msgpack:"h,omitempty" json:"history"`                     // what this leader decided, the oldest first
}

// Verdict says of one agent why a replica is there, or why not.
type Verdict struct {
	Agent  string  `msgpack:"a" json:"agent"`
	Chosen bool    `msgpack:"c,omitempty" json:"chosen,omitempty"`
	Fits   bool    `msgpack:"f,omitempty" json:"fits"` // nothing keeps it off
	Delay  float64 `msgpack:"d,omitempty" json:"delay_ms,omitempty"`
	Cost   float64 `msgpack:"p,omitempty" json:"cost_per_hour,omitempty"`
	Text   string  `msgpack:"w" json:"why"` // one line for people
}

func (q *Question) version() *int { return &q.V }

func (q *Question) check() error {
	if _, _, err := ParseReplica(q.Name); err == nil {
		return nil
	}
	return CheckName("task, agent or replica", q.Name)
}

func (e *Explanation) version() *int { return &e.V }

func (e *Explanation) check() error {
	if e.Agent != "" {
		return CheckName("agent", e.Agent)
	}
	return nil
}
