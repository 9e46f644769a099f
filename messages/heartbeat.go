package messages

import "math"

// AgentState is what is known of an agent. An agent itself only ever says ready or
// draining; stale and lost are the coordinator's judgement.
type AgentState string

// The states of an agent.
const (
	AgentReady    AgentState = "ready"
	AgentDraining AgentState = "draining"
	AgentStale    AgentState = "stale" // beats arrive, but its data connection answers no pings
	AgentLost     AgentState = "lost"  // there is evidence that it is gone
)

// ReplicaState is how far a replica has come on its agent.
type ReplicaState string

// The states of a replica.
const (
	ReplicaPending  ReplicaState = "pending"  // planned, the agent has not confirmed it
	ReplicaLoading  ReplicaState = "loading"  // its handler gets ready
	ReplicaReady    ReplicaState = "ready"    // it serves
	ReplicaDraining ReplicaState = "draining" // it finishes what it has
	ReplicaStopped  ReplicaState = "stopped"  // it is gone
	ReplicaFailed   ReplicaState = "failed"   // its handler did not get ready, or died
)

func (s ReplicaState) known() bool {
	switch s {
	case ReplicaPending, ReplicaLoading, ReplicaReady, ReplicaDraining, ReplicaStopped, ReplicaFailed:
		return true
	}
	return false
}

// Heartbeat is what an agent says of itself once a second and at once when
// something that matters changes. It is never queued: a late one is dropped.
type Heartbeat struct {
	V        int             `msgpack:"v"`
	Agent    string          `msgpack:"a"`
	Inc      Incarnation     `msgpack:"i"`
	Seq      uint64          `msgpack:"s"`  // grows within one incarnation
	State    AgentState      `msgpack:"st"` // ready or draining
	Capacity Resources       `msgpack:"c"`  // what the machine has
	Foreign  Resources       `msgpack:"f"`  // what others than our replicas use of it, measured
	Term     Term            `msgpack:"t"`  // of the placement applied
	Rev      uint64          `msgpack:"r"`  // of the placement applied
	DataAge  float64         `msgpack:"da"` // ms since the data connection's last round trip
	RTT      float64         `msgpack:"rt"` // ms, the data connection's last round trip
	Replicas []ReplicaStatus `msgpack:"rs,omitempty"`
	Stopped  string          `msgpack:"sp,omitempty"` // why it takes no actions; "": it takes them
	Readings *Readings       `msgpack:"m,omitempty"`  // nil: nothing is measured there
}

// ReplicaStatus is the state and the load of one replica on its agent.
type ReplicaStatus struct {
	ID       string       `msgpack:"id" json:"id"`
	State    ReplicaState `msgpack:"s" json:"state"`
	Reason   string       `msgpack:"w,omitempty" json:"reason,omitempty"`     // why it failed or waits
	InFlight int          `msgpack:"n,omitempty" json:"in_flight,omitempty"`  // requests being served
	Served   uint64       `msgpack:"c,omitempty" json:"served,omitempty"`     // requests begun in this incarnation
	Rate     float64      `msgpack:"q,omitempty" json:"rate,omitempty"`       // requests per second, smoothed
	Latency  float64      `msgpack:"l,omitempty" json:"latency_ms,omitempty"` // ms of service, smoothed

	// Alone is what Latency would be, had nothing else of ours run on the machine meanwhile:
	// what the machine is like, without what we do to it. 0: the agent does not measure it.
	Alone float64 `msgpack:"o,omitempty" json:"alone_ms,omitempty"`
	// Kbit is how much one request carries, to the machine and back; smoothed.
	Kbit float64 `msgpack:"k,omitempty" json:"kbit,omitempty"`
	// Done is, of what it fetches while it loads, the share that is there, 0 to 1.
	Done float64 `msgpack:"d,omitempty" json:"done,omitempty"`
}

func (h *Heartbeat) version() *int { return &h.V }

func (h *Heartbeat) check() error {
	if err := CheckName("agent", h.Agent); err != nil {
		return err
	}
	if h.State != AgentReady && h.State != AgentDraining {
		return Errorf(CodeBadRequest, "state: found %q, allowed are ready, draining", shorten(string(h.State)))
	}
	if err := h.Capacity.Check("capacity."); err != nil {
		return err
	}
	if err := h.Foreign.Check("foreign."); err != nil {
		return err
	}
	if err := CheckAmount("data_age", h.DataAge, 0, math.MaxFloat64, "ms"); err != nil {
		return err
	}
	if err := CheckAmount("rtt", h.RTT, 0, math.MaxFloat64, "ms"); err != nil {
		return err
	}
	if err := h.Readings.check(); err != nil {
		return err
	}
	return checkStatuses(h.Replicas)
}

func checkStatuses(list []ReplicaStatus) error {
	for _, r := range list {
		if _, _, err := ParseReplica(r.ID); err != nil {
			return err
		}
		if !r.State.known() {
			return Errorf(CodeBadRequest, "replica %s: state %q is not one we know", r.ID, shorten(string(r.State)))
		}
		if r.InFlight < 0 {
			return Errorf(CodeBadRequest, "replica %s: in_flight %d, allowed is 0 or more", r.ID, r.InFlight)
		}
		if err := CheckAmount("rate", r.Rate, 0, math.MaxFloat64, "per second"); err != nil {
			return err
		}
		if err := CheckAmount("latency", r.Latency, 0, math.MaxFloat64, "ms"); err != nil {
			return err
		}
		if err := CheckAmount("alone", r.Alone, 0, math.MaxFloat64, "ms"); err != nil {
			return err
		}
		if err := CheckAmount("kbit", r.Kbit, 0, math.MaxFloat64, "kbit"); err != nil {
			return err
		}
		if err := CheckAmount("done", r.Done, 0, 1, ""); err != nil {
			return err
		}
	}
	return nil
}

// Goodbye is an agent's last word: it has drained, or it could not finish in time
// and says so. It needs no answer.
type Goodbye struct {
	V      int         `msgpack:"v"`
	Agent  string      `msgpack:"a"`
	Inc    Incarnation `msgpack:"i"`
	Reason string      `msgpack:"w,omitempty"`
}

func (g *Goodbye) version() *int { return &g.V }
func (g *Goodbye) check() error  { return CheckName("agent", g.Agent) }

// Claim is an agent's first word: whoever else runs under its id with an older
// incarnation must stop.
type Claim struct {
	V     int         `msgpack:"v"`
	Agent string      `msgpack:"a"`
	Inc   Incarnation `msgpack:"i"`
	Host  string      `msgpack:"h,omitempty"` // where it runs, for the error that the older one prints
}

func (c *Claim) version() *int { return &c.V }
func (c *Claim) check() error  { return CheckName("agent", c.Agent) }

func (r *Registration) version() *int { return &r.V }
func (r *Registration) check() error  { return r.Environment.Check("environment.") }
