package placement

import (
	"cmp"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// routeTable is the plan as clients read it, and how far it has gone out.
type routeTable struct {
	tasks  map[string]messages.TaskRoute
	rev    uint64 // of what is in tasks; 0 before the first
	saved  uint64
	saving uint64
	asked  time.Time
	sent   uint64
	retry  time.Time
	tries  int
}

// rank orders the environments of a task by modelled delay, site by site: those nearest
// to the requesters get rank 0, equal delays share a rank.
func (m *Machine) rank(task string) {
	bySite := make(map[string][]*hosting)
	for _, r := range m.ofTask(task) {
		for _, h := range []*hosting{r.home, r.next} {
			if h != nil {
				site := h.agent.env.Site
				bySite[site] = append(bySite[site], h)
			}
		}
	}
	for _, list := range bySite {
		slices.SortFunc(list, func(a, b *hosting) int {
			return cmp.Or(cmp.Compare(delay(a), delay(b)), cmp.Compare(a.agent.id, b.agent.id))
		})
		rank := -1
		for i, h := range list {
			if i == 0 || delay(h) != delay(list[i-1]) {
				rank = min(rank+1, messages.MaxRank)
			}
			if h.rank != rank {
				h.rank = rank
				m.dirtyDocs[h.agent.id] = true
			}
		}
	}
}

// delay of a hosting as the model has it, ms, rounded to a microsecond: rounding errors
// of float64 must not make two ranks of equal machines.
func delay(h *hosting) float64 {
	return math.Round(alloc.Delay(h.task, h.agent.env)*1000) / 1000
}

// route makes the route of a task. Lost agents are not in it. Neither are stale ones,
// where another replica is ready or the task is an action: to command a robot whose
// data connection is dead would end in an unknown outcome.
func (m *Machine) route(t messages.Task) messages.TaskRoute {
	out := messages.TaskRoute{Task: t}
	var stale []messages.Route
	ready := false
	for _, r := range m.ofTask(t.Name) {
		if r.waiting && out.Waiting == "" && r.wanted {
			out.Waiting = r.id + ": " + r.why
		}
		h := r.home
		if h == nil || h.drain || h.agent.state == messages.AgentLost {
			continue
		}
		e := messages.Route{ID: r.id, Agent: h.agent.id, Inc: h.agent.inc, Tier: h.agent.env.Tier, Site: h.agent.env.Site,
			State: h.state, Rank: h.rank, Delay: delay(h)}
		if h.agent.state == messages.AgentStale && h.agent.heard {
			stale = append(stale, e)
			continue
		}
		ready = ready || e.State == messages.ReplicaReady
		out.Replicas = append(out.Replicas, e)
	}
	if !ready && t.Class != messages.Action {
		out.Replicas = append(out.Replicas, stale...)
	}
	if ro := m.rollouts[t.Name]; ro != nil && ro.paused != "" && out.Waiting == "" {
		out.Waiting = "its update is paused: " + ro.paused
	}
	slices.SortFunc(out.Replicas, func(a, b messages.Route) int {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// flushRoutes makes the routes of the tasks that changed anew and asks for them to be
// stored. They are broadcast when that is done; what changes meanwhile goes out together
// in the next ones.
func (m *Machine) flushRoutes() {
	if m.routes.saving == 0 {
		m.makeRoutes()
	}
	m.saveRoutes()
}

func (m *Machine) makeRoutes() {
	t := &m.routes
	if t.tasks == nil {
		t.tasks = make(map[string]messages.TaskRoute)
	}
	changed := false
	for _, name := range sorted(m.dirtyRoutes) {
		task, ok := m.task(name)
		old, had := t.tasks[name]
		if !ok {
			delete(t.tasks, name)
			changed = changed || had
			continue
		}
		if route := m.route(task); !had || !reflect.DeepEqual(route, old) {
			t.tasks[name] = route
			changed = true
		}
	}
	if changed || t.rev == 0 {
		t.rev++
		t.tries, t.retry = 0, time.Time{}
	}
	clear(m.dirtyRoutes)
}

func (m *Machine) saveRoutes() {
	t := &m.routes
	if t.saving != 0 && m.now.Sub(t.asked) >= m.calm.SaveLost {
		m.routesSaved(m.term, t.saving, false)
	}
	switch {
	case t.saving != 0 || t.saved == t.rev || t.rev == 0:
	case m.now.Before(t.retry):
		m.at(t.retry)
	default:
		t.saving, t.asked = t.rev, m.now
		m.saves = append(m.saves, SaveRoutes{m.Routes()})
	}
}

// routesSaved follows a save. The routes are broadcast even where it failed: they say
// where requests may go now, clients take the newer of both, and while a raft group
// elects its leader a dead agent would stay in them for 4 to 9 s.
func (m *Machine) routesSaved(term messages.Term, rev uint64, ok bool) {
	t := &m.routes
	if !m.leading || term != m.term || rev != t.saving {
		return
	}
	t.saving = 0
	if ok {
		t.saved, t.tries = rev, 0
	} else {
		m.makeRoutes()
		t.retry = m.now.Add(backoff(m.calm.SaveRetry, m.calm.SaveRetryMax, t.tries))
		t.tries++
		m.at(t.retry)
	}
	if t.sent < t.rev {
		t.sent = t.rev
		m.sends = append(m.sends, BroadcastRoutes{m.Routes()})
	}
}

// Routes returns the plan as clients read it. Every call makes a new one.
func (m *Machine) Routes() messages.Routes {
	out := messages.Routes{V: messages.Version, Term: m.term, Rev: m.routes.rev}
	for _, name := range sorted(m.routes.tasks) {
		out.Tasks = append(out.Tasks, m.routes.tasks[name])
	}
	return out
}
