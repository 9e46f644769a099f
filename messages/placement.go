package messages

import (
	"strings"
)

// ReplicaID names a replica of a task: "task/suffix". The suffix is a number from 0
// for replicas of the fleet, the robot's id with PerRobot, the site with PerSite.
func ReplicaID(task, suffix string) string { return task + "/" + suffix }

// ParseReplica splits what [ReplicaID] made.
func ParseReplica(id string) (task, suffix string, err error) {
	task, suffix, ok := strings.Cut(id, "/")
	if !ok {
		return "", "", Errorf(CodeBadRequest, "replica %q: expected <task>/<suffix>", shorten(id))
	}
	if err := CheckName("task", task); err != nil {
		return "", "", err
	}
	return task, suffix, CheckName("replica", suffix)
}

// Placement is everything that an agent is to run: a whole document, never a
// difference. The coordinator saves it, then sends it; an agent refuses one that
// is older than what it has, by term first, then by revision.
type Placement struct {
	V        int             `msgpack:"v"`
	Agent    string          `msgpack:"a"`
	Term     Term            `msgpack:"t"`
	Rev      uint64          `msgpack:"r"`            // grows with every document for this agent
	Inc      Incarnation     `msgpack:"i"`            // the newest incarnation that the coordinator knows
	Replicas []PlacedReplica `msgpack:"rs,omitempty"` // sorted by ID
}

// PlacedReplica is one replica in a [Placement].
type PlacedReplica struct {
	ID    string `msgpack:"id" json:"id"`
	Task  Task   `msgpack:"t" json:"task"`
	Rank  int    `msgpack:"k,omitempty" json:"rank"`            // 0 to 9: the nearest to the requesters of its site is 0
	Drain bool   `msgpack:"d,omitempty" json:"drain,omitempty"` // take no more, finish, stop
}

// MaxRank is the last rank: NATS knows ten priorities of a pull.
const MaxRank = 9

// Newer reports whether p replaces a document of (term, rev).
func (p *Placement) Newer(term Term, rev uint64) bool {
	if c := p.Term.Compare(term); c != 0 {
		return c > 0
	}
	return p.Rev > rev
}

func (p *Placement) version() *int { return &p.V }

func (p *Placement) check() error {
	if err := CheckName("agent", p.Agent); err != nil {
		return err
	}
	for _, r := range p.Replicas {
		task, _, err := ParseReplica(r.ID)
		if err != nil {
			return err
		}
		if err := r.Task.Check("replica " + r.ID + ": "); err != nil {
			return err
		}
		if task != r.Task.Name {
			return Errorf(CodeBadRequest, "replica %s: its task is called %q", r.ID, r.Task.Name)
		}
		if r.Rank < 0 || r.Rank > MaxRank {
			return Errorf(CodeBadRequest, "replica %s: rank %d, allowed are 0 to %d", r.ID, r.Rank, MaxRank)
		}
	}
	return nil
}

// PlacementAck answers a [Placement]: what the agent now holds. Error is set where
// it refused the document; Term and Rev are then those of the one it keeps.
type PlacementAck struct {
	V        int             `msgpack:"v"`
	Agent    string          `msgpack:"a"`
	Inc      Incarnation     `msgpack:"i"`
	Term     Term            `msgpack:"t"`
	Rev      uint64          `msgpack:"r"`
	Error    string          `msgpack:"e,omitempty"`
	Replicas []ReplicaStatus `msgpack:"rs,omitempty"`
}

func (a *PlacementAck) version() *int { return &a.V }

func (a *PlacementAck) check() error {
	if err := CheckName("agent", a.Agent); err != nil {
		return err
	}
	return checkStatuses(a.Replicas)
}
