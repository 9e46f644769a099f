package messages

// Routes is the plan as clients and routers read it: for every task, who serves
// it. The leader saves it, then broadcasts it; whoever misses one reads the saved
// copy. It stays valid when every coordinator is dead.
type Routes struct {
	V     int         `msgpack:"v" json:"v"`
	Term  Term        `msgpack:"t" json:"term"`
	Rev   uint64      `msgpack:"r" json:"revision"` // grows within a term
	Tasks []TaskRoute `msgpack:"ts" json:"tasks"`   // sorted by task name
}

// TaskRoute is the part of the plan that concerns one task.
type TaskRoute struct {
	Task     Task    `msgpack:"t" json:"task"`
	Replicas []Route `msgpack:"r,omitempty" json:"replicas"`          // best rank first, then by agent
	Waiting  string  `msgpack:"w,omitempty" json:"waiting,omitempty"` // why a replica is not placed, and what would place it
}

// Route is one replica that serves a task, or soon will.
type Route struct {
	ID    string       `msgpack:"id" json:"id"`
	Agent string       `msgpack:"a" json:"agent"`
	Inc   Incarnation  `msgpack:"i" json:"incarnation"`
	Tier  Tier         `msgpack:"ti" json:"tier"`
	Site  string       `msgpack:"si" json:"site"`
	State ReplicaState `msgpack:"s" json:"state"`
	Rank  int          `msgpack:"k" json:"rank"`
	Delay float64      `msgpack:"d" json:"delay_ms"` // as the model has it
}

// Find returns the route of a task.
func (r *Routes) Find(task string) (TaskRoute, bool) {
	for _, t := range r.Tasks {
		if t.Task.Name == task {
			return t, true
		}
	}
	return TaskRoute{}, false
}

// Newer reports whether r replaces routes of (term, rev).
func (r *Routes) Newer(term Term, rev uint64) bool {
	if c := r.Term.Compare(term); c != 0 {
		return c > 0
	}
	return r.Rev > rev
}

func (r *Routes) version() *int { return &r.V }

func (r *Routes) check() error {
	for _, t := range r.Tasks {
		if err := t.Task.Check("task " + shorten(t.Task.Name) + ": "); err != nil {
			return err
		}
		for _, e := range t.Replicas {
			if _, _, err := ParseReplica(e.ID); err != nil {
				return err
			}
			if err := CheckName("agent", e.Agent); err != nil {
				return err
			}
			if err := CheckName("site", e.Site); err != nil {
				return err
			}
			if err := e.Tier.Check("tier"); err != nil {
				return err
			}
			if !e.State.known() {
				return Errorf(CodeBadRequest, "replica %s: state %q is not one we know", e.ID, shorten(string(e.State)))
			}
			if e.Rank < 0 || e.Rank > MaxRank {
				return Errorf(CodeBadRequest, "replica %s: rank %d, allowed are 0 to %d", e.ID, e.Rank, MaxRank)
			}
		}
	}
	return nil
}
