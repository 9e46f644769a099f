package coordinator

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// What one answer holds. A replica costs the Machine about a heartbeat for each agent, so a
// task of a thousand of them is explained in part; who wants another asks for it by its id.
// Agents are cut where nobody reads on.
const (
	explainReplicas = 20
	explainAgents   = 100
)

// explainTimeout is how long a leader has to answer. After explainBudget it answers with what
// it has by then, and says how much is missing: in a fleet of 50,000 agents one replica may
// take it most of a second on a busy machine, and the answer has to get there.
const (
	explainTimeout = 3 * time.Second
	explainBudget  = 1500 * time.Millisecond
)

func explainSubject(fleet string) string {
	return messages.Subject{Kind: messages.KindControl, Fleet: fleet, Site: messages.FleetSite, ID: "explain"}.String()
}

// Explain asks the leading coordinator about a task, a replica (<task>/<suffix>) or an
// agent. The error has code unavailable where none leads, and not_found where nothing has
// that name.
func Explain(ctx context.Context, b *bus.Bus, name string) (messages.Explanation, error) {
	var e messages.Explanation
	if _, _, err := messages.ParseReplica(name); err != nil {
		if err := messages.CheckName("task, agent or replica", name); err != nil {
			return e, err
		}
	}
	q := messages.Question{Name: name}
	data, err := messages.Encode(&q)
	if err != nil {
		return e, err
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	m, err := b.Conn.RequestWithContext(ctx, explainSubject(b.Fleet), data)
	if errors.Is(err, context.DeadlineExceeded) {
		return e, messages.Errorf(messages.CodeUnavailable, "ask why in fleet %s: the leader did not answer in time; it is busy, or hangs: try again, or ask `fleetbus doctor`", b.Fleet)
	}
	if errors.Is(err, nats.ErrNoResponders) {
		return e, messages.Errorf(messages.CodeUnavailable, "ask why in fleet %s: no coordinator leads (%v); start one with `fleetbus coordinator`, or wait until a new leader is elected", b.Fleet, err)
	}
	if err != nil {
		return e, bus.Explain(err, "ask why in fleet "+b.Fleet)
	}
	if err := messages.Decode(m.Data, &e); err != nil {
		return e, err
	}
	if e.Agent == "" && e.Task == "" && len(e.Replicas) == 0 {
		return e, messages.Errorf(messages.CodeNotFound, "no task, replica or agent is called %q; `fleetbus tasks`, `fleetbus placements` and `fleetbus agents` list them", name)
	}
	return e, nil
}

// answerExplain answers Explain while this coordinator leads.
func (c *Coordinator) answerExplain(ctx context.Context) (stop func(), err error) {
	sub, err := c.nc.Subscribe(explainSubject(c.cfg.Fleet), func(m *nats.Msg) {
		var q messages.Question
		if err := messages.Decode(m.Data, &q); err != nil {
			c.garbage.Note(c.log, "question", err)
			return
		}
		until := time.Now().Add(explainBudget)
		e, ok := explain(q.Name, func(f func(*placement.Machine)) bool { return c.look(ctx, f) }, func() bool { return time.Now().Before(until) })
		if !ok {
			leadsNoMore(m)
			return
		}
		e.Leader = c.cfg.ID
		data, err := messages.Encode(&e)
		if err != nil {
			c.log.Warn("an explanation cannot be sent", "name", q.Name, "error", err)
			return
		}
		_ = m.Respond(data) // whoever asked may be gone
	})
	if err != nil {
		return nil, bus.Explain(err, "answer questions")
	}
	return func() { _ = sub.Drain() }, nil // what was asked already is answered
}

// explain puts together what a Machine says of a name, one look for each replica: between two
// of them the Machine goes on with its work. It stops where goOn says so, after one replica
// at the earliest. ok is false where there is nobody to look at any more.
func explain(name string, look func(func(*placement.Machine)) bool, goOn func() bool) (e messages.Explanation, ok bool) {
	var about []messages.ReplicaInfo
	if !look(func(m *placement.Machine) { e, about = outline(m, name) }) {
		return e, false
	}
	for i, r := range about {
		if i == explainReplicas || i > 0 && !goOn() {
			e.More = len(about) - i
			break
		}
		var x placement.Explanation
		var there bool
		if !look(func(m *placement.Machine) { x, there = m.Explain(r.ID) }) {
			return e, false
		}
		if there {
			e.Replicas = append(e.Replicas, whyReplica(x))
		}
	}
	return e, true
}

// outline is what is said of a name without its replicas, and these.
func outline(m *placement.Machine, name string) (e messages.Explanation, about []messages.ReplicaInfo) {
	s := m.State()
	e.Term = s.Term
	if slices.ContainsFunc(s.Tasks, func(t messages.Task) bool { return t.Name == name }) {
		e.Task = name
	}
	if strings.Contains(name, "/") {
		about = slices.DeleteFunc(s.Replicas, func(r messages.ReplicaInfo) bool { return r.ID != name })
	} else if i := slices.IndexFunc(s.Agents, func(a messages.AgentInfo) bool { return a.Environment.ID == name }); i >= 0 {
		e.Agent, e.State, e.History = name, s.Agents[i].State, m.History(name)
		about = slices.DeleteFunc(s.Replicas, func(r messages.ReplicaInfo) bool { return r.Agent != name && r.To != name && r.Task != name })
	} else {
		about = slices.DeleteFunc(s.Replicas, func(r messages.ReplicaInfo) bool { return r.Task != name })
	}
	// What does not serve is what people ask about.
	slices.SortStableFunc(about, func(a, b messages.ReplicaInfo) int {
		return cmp.Compare(serving(a), serving(b))
	})
	return e, about
}

func serving(r messages.ReplicaInfo) int {
	if r.State == messages.ReplicaReady {
		return 1
	}
	return 0
}

// whyReplica orders the verdicts: the chosen, then those where it fits by their score, then
// the others by their names.
func whyReplica(x placement.Explanation) messages.WhyReplica {
	slices.SortStableFunc(x.Verdicts, func(a, b alloc.Verdict) int {
		if c := cmp.Compare(verdictRank(a), verdictRank(b)); c != 0 {
			return c
		}
		if verdictRank(a) == 1 {
			return cmp.Compare(a.Score, b.Score)
		}
		return cmp.Compare(a.Environment, b.Environment)
	})
	w := messages.WhyReplica{Info: x.Replica, History: x.History}
	for i, v := range x.Verdicts {
		if i == explainAgents {
			w.More = len(x.Verdicts) - i
			break
		}
		w.Verdicts = append(w.Verdicts, messages.Verdict{Agent: v.Environment, Chosen: v.Chosen, Fits: v.Chosen || len(v.Reasons) == 0,
			Delay: finite(v.Delay), Cost: finite(v.Cost), Text: v.Text})
	}
	return w
}

func verdictRank(v alloc.Verdict) int {
	switch {
	case v.Chosen:
		return 0
	case len(v.Reasons) == 0:
		return 1
	}
	return 2
}

// finite leaves out what JSON has no word for; the text says it.
func finite(v float64) float64 {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	return v
}
