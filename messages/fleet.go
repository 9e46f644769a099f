package messages

import (
	"maps"
	"slices"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// Settings are the fleet's planning parameters, kept in the desired bucket.
type Settings struct {
	V             int     `msgpack:"v" json:"-"`
	WeightLatency float64 `msgpack:"wl" json:"weight_latency"`         // 0 to 10, per ms
	WeightCost    float64 `msgpack:"wc" json:"weight_cost"`            // 0 to 10, per currency/hour
	Reserve       float64 `msgpack:"rr" json:"resource_reserve_ratio"` // 0 to 0.3 of every capacity stays free
	Mode          Mode    `msgpack:"m" json:"mode"`
}

// Mode says when the placement is made again.
type Mode string

// Static places once; dynamic (the default) again as load and membership change;
// adaptive also corrects the model by what was measured.
const (
	Static   Mode = "static"
	Dynamic  Mode = "dynamic"
	Adaptive Mode = "adaptive"
)

// Presets returns the settings called realtime, balanced (the default) and cost.
func Presets() map[string]Settings {
	return map[string]Settings{
		"realtime": {WeightLatency: 2, WeightCost: 0.5, Reserve: 0.15, Mode: Dynamic},
		"balanced": {WeightLatency: 1, WeightCost: 1, Reserve: 0.1, Mode: Dynamic},
		"cost":     {WeightLatency: 0.5, WeightCost: 2, Reserve: 0.05, Mode: Dynamic},
	}
}

// DefaultSettings returns the preset balanced.
func DefaultSettings() Settings { return Presets()["balanced"] }

// Check returns the first thing wrong with s, naming the field under the prefix.
func (s Settings) Check(prefix string) error {
	if err := CheckAmount(prefix+"weight_latency", s.WeightLatency, 0, 10, ""); err != nil {
		return err
	}
	if err := CheckAmount(prefix+"weight_cost", s.WeightCost, 0, 10, ""); err != nil {
		return err
	}
	if err := CheckAmount(prefix+"resource_reserve_ratio", s.Reserve, 0, 0.3, ""); err != nil {
		return err
	}
	switch s.Mode {
	case Static, Dynamic, Adaptive:
		return nil
	}
	return Errorf(CodeBadRequest, "%smode: found %q, allowed are static, dynamic, adaptive", prefix, shorten(string(s.Mode)))
}

func (s *Settings) version() *int { return &s.V }
func (s *Settings) check() error  { return s.Check("") }

// TaskEntry is a task as the desired bucket keeps it.
type TaskEntry struct {
	V    int  `msgpack:"v"`
	Task Task `msgpack:"t"`
}

func (t *TaskEntry) version() *int { return &t.V }
func (t *TaskEntry) check() error  { return t.Task.Check("task.") }

// DrainEntry says in the desired bucket that an agent is to be emptied.
type DrainEntry struct {
	V      int    `msgpack:"v"`
	Agent  string `msgpack:"a"`
	Reason string `msgpack:"w,omitempty"`
}

func (d *DrainEntry) version() *int { return &d.V }
func (d *DrainEntry) check() error  { return CheckName("agent", d.Agent) }

// Lease is what the leading coordinator writes into the lease bucket.
type Lease struct {
	V      int    `msgpack:"v"`
	Holder string `msgpack:"h"`           // who leads, for people
	TTL    int    `msgpack:"t,omitempty"` // whole seconds that it lasts unless it is renewed; 0: not said
}

func (l *Lease) version() *int { return &l.V }

func (l *Lease) check() error {
	if l.TTL < 0 {
		return Errorf(CodeBadRequest, "ttl: found %d s, allowed is 0 or more", l.TTL)
	}
	return nil
}

// Event is one thing that happened to the fleet, for people and dashboards.
type Event struct {
	V      int       `msgpack:"v" json:"-"`
	Time   time.Time `msgpack:"ti" json:"time"` // the leader's clock; for display only
	Term   Term      `msgpack:"t" json:"term"`
	Kind   string    `msgpack:"k" json:"kind"` // agent_ready, agent_lost, replica_ready, replica_moved, waiting, elected, …
	Agent  string    `msgpack:"a,omitempty" json:"agent,omitempty"`
	Task   string    `msgpack:"ta,omitempty" json:"task,omitempty"`
	ID     string    `msgpack:"r,omitempty" json:"replica,omitempty"`
	Reason string    `msgpack:"w,omitempty" json:"reason,omitempty"`
}

func (e *Event) version() *int { return &e.V }
func (e *Event) check() error  { return CheckName("event kind", e.Kind) }

// State is the leader's picture of the fleet, for whoever asks.
type State struct {
	V        int           `msgpack:"v" json:"-"`
	Leader   string        `msgpack:"l" json:"leader"`
	Term     Term          `msgpack:"t" json:"term"`
	Settings Settings      `msgpack:"se" json:"settings"`
	Agents   []AgentInfo   `msgpack:"a,omitempty" json:"agents"`              // sorted by id
	Replicas []ReplicaInfo `msgpack:"r,omitempty" json:"replicas"`            // sorted by id
	Tasks    []Task        `msgpack:"ta,omitempty" json:"tasks"`              // sorted by name
	Bad      Counts        `msgpack:"b,omitempty" json:"malformed,omitempty"` // malformed messages dropped, by kind

	// Measured is what is believed of the delays, in mode adaptive; sorted by task and agent.
	Measured []MeasuredDelay `msgpack:"md,omitempty" json:"measured,omitempty"`
}

// MeasuredDelay is what is believed of the requests of a task on an agent, from what was
// measured there. Times are in ms.
type MeasuredDelay struct {
	Task     string  `msgpack:"t" json:"task"`
	Agent    string  `msgpack:"a" json:"agent"`
	Delay    float64 `msgpack:"d" json:"delay_ms"`                   // what the plan counts in place of the model's
	Modelled float64 `msgpack:"m" json:"modelled_ms"`                // by the model
	Service  float64 `msgpack:"s" json:"service_ms"`                 // of one request, with nothing else of ours beside it
	Transfer float64 `msgpack:"tr,omitempty" json:"transfer_ms"`     // of its bodies
	Crowding float64 `msgpack:"c,omitempty" json:"crowding_ms"`      // of the delay: waiting for what else of ours runs there
	Age      float64 `msgpack:"g,omitempty" json:"age_ms,omitempty"` // since it was measured last
}

// Counts are numbers by name. The type has its own encoder because the library sorts
// only maps of strings, and equal messages must be equal bytes.
type Counts map[string]int

// EncodeMsgpack writes c with its keys sorted.
func (c Counts) EncodeMsgpack(enc *msgpack.Encoder) error {
	if err := enc.EncodeMapLen(len(c)); err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(c)) {
		if err := enc.EncodeString(k); err != nil {
			return err
		}
		if err := enc.EncodeInt(int64(c[k])); err != nil {
			return err
		}
	}
	return nil
}

// AgentInfo is one agent in a [State].
type AgentInfo struct {
	Environment Environment `msgpack:"e" json:"environment"`
	State       AgentState  `msgpack:"s" json:"state"`
	Drain       bool        `msgpack:"d,omitempty" json:"drain,omitempty"` // told to drain by an operator
	Inc         Incarnation `msgpack:"i" json:"incarnation"`
	Rev         uint64      `msgpack:"r" json:"revision"` // of its newest document
	Applied     uint64      `msgpack:"ap" json:"applied"` // revision it has confirmed
	Planned     Resources   `msgpack:"p" json:"planned"`  // what the plan uses of it
	Foreign     Resources   `msgpack:"f" json:"foreign"`
	BeatAge     float64     `msgpack:"b" json:"beat_age_ms"`
	RTT         float64     `msgpack:"rt" json:"rtt_ms"`
	Readings    *Readings   `msgpack:"m,omitempty" json:"readings,omitempty"` // what it measures of its machine
}

// ReplicaInfo is one replica in a [State].
type ReplicaInfo struct {
	ID     string        `msgpack:"id" json:"id"`
	Task   string        `msgpack:"t" json:"task"`
	Agent  string        `msgpack:"a,omitempty" json:"agent,omitempty"` // "" where it waits
	To     string        `msgpack:"to,omitempty" json:"to,omitempty"`   // where it is moving
	Tier   Tier          `msgpack:"ti,omitempty" json:"tier,omitempty"`
	State  ReplicaState  `msgpack:"s" json:"state"`
	Reason string        `msgpack:"w,omitempty" json:"reason,omitempty"` // why it is there, or why it waits and what would help
	Delay  float64       `msgpack:"d,omitempty" json:"delay_ms,omitempty"`
	Status ReplicaStatus `msgpack:"st" json:"status"`
}

func (s *State) version() *int { return &s.V }
func (s *State) check() error  { return s.Settings.Check("settings.") }
