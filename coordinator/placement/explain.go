package placement

import (
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// Explanation answers for one replica: why it is where it is or waits, why not
// elsewhere, and how it came to that.
type Explanation struct {
	Replica  messages.ReplicaInfo // where it is, and why
	Verdicts []alloc.Verdict      // of every environment, sorted by id, given all that is placed now
	History  []messages.Event     // see [Machine.History]
}

// Explain explains a replica. It costs about as much as a heartbeat for each environment;
// ok is false where there is no such replica. What it returns shares nothing with the
// Machine that a later Step changes.
func (m *Machine) Explain(id string) (e Explanation, ok bool) {
	r := m.replicas[id]
	if r == nil {
		return Explanation{}, false
	}
	e = Explanation{Replica: m.replicaInfo(r), History: m.History(id)}
	p, plan := m.withoutItself(r)
	verdicts, err := alloc.Explain(p, plan, id)
	if err != nil { // where it is now it could not be placed today: then every place is one where it is not
		plan.Assignments = slices.DeleteFunc(plan.Assignments, func(a alloc.Assignment) bool { return a.Replica == id })
		verdicts, _ = alloc.Explain(p, plan, id)
	}
	for i := range verdicts {
		v := &verdicts[i]
		v.Text = m.plain(id, v.Text)
		for j := range v.Reasons {
			v.Reasons[j].Text = m.plain(id, v.Reasons[j].Text)
		}
	}
	e.Verdicts = verdicts
	return e, true
}

// withoutItself states the problem of placing r alone, as if it were not there yet, and
// the plan that has it where it is.
func (m *Machine) withoutItself(r *replica) (alloc.Problem, alloc.Plan) {
	p := m.stated([]*replica{r}, nil, false)
	var plan alloc.Plan
	if h := r.home; h != nil {
		for i := range p.Environments {
			if env := &p.Environments[i]; env.ID == h.agent.id {
				env.Foreign = env.Foreign.Sub(h.need()).Max(messages.Resources{})
				if len(h.agent.hosted) == 1 {
					env.Billing, env.Price = h.agent.env.Billing, h.agent.env.Price
				}
			}
		}
		plan.Assignments = append(plan.Assignments, alloc.Assignment{Replica: r.id, Environment: h.agent.id})
	}
	for _, s := range p.Replicas {
		if s.ID != r.id { // siblings, each where it is
			plan.Assignments = append(plan.Assignments, alloc.Assignment{Replica: s.ID, Environment: s.Pin})
		}
	}
	return p, plan
}

// plain says in plain words what the solver was told in its own: what is ours and stays
// was stated as the use of others, and what is kept off as a label.
func (m *Machine) plain(replica, text string) string {
	text = strings.ReplaceAll(text, "are used by others", "are in use")
	label := m.keptOff[replica]
	if label == "" {
		return text
	}
	return strings.ReplaceAll(text, "lacks "+label+"=yes", "is not open to "+replica+" now: it failed there, has yet to stop there, or the room is kept for another")
}
