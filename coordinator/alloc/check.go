package alloc

import (
	"math"

	"github.com/fleetbus/fleetbus/messages"
)

// Check returns the first thing wrong with p, an [*messages.Error] with code
// bad_request that names the field, what was found and what is allowed. A pin, a
// site or a current environment that does not exist is no error: its replica waits
// or has moved.
func (p Problem) Check() error {
	if err := p.settings().Check("settings: "); err != nil {
		return err
	}
	if err := messages.CheckAmount("move price", p.MovePrice, 0, unusable, ""); err != nil {
		return err
	}
	if err := p.checkMeasured(); err != nil {
		return err
	}
	envs := make(map[string]bool, len(p.Environments))
	for _, e := range p.Environments {
		if err := e.check(); err != nil {
			return err
		}
		if envs[e.ID] {
			return messages.Errorf(messages.CodeBadRequest, "environment %s: id: it is used twice; every environment needs an id of its own", e.ID)
		}
		envs[e.ID] = true
	}
	reps := make(map[string]bool, len(p.Replicas))
	for _, r := range p.Replicas {
		prefix := "replica " + r.ID + ": "
		if r.ID == "" {
			return messages.Errorf(messages.CodeBadRequest, "replica of task %q: id: it is empty", r.Task.Name)
		}
		if err := r.Task.Check(prefix); err != nil {
			return err
		}
		if r.MovePrice != nil {
			if err := messages.CheckAmount(prefix+"move price", *r.MovePrice, 0, unusable, ""); err != nil {
				return err
			}
		}
		if reps[r.ID] {
			return messages.Errorf(messages.CodeBadRequest, "%sid: it is used twice; every replica needs an id of its own", prefix)
		}
		reps[r.ID] = true
	}
	return nil
}

func (e Environment) check() error {
	prefix := "environment " + e.ID + ": "
	if err := e.Environment.Check(prefix); err != nil {
		return err
	}
	return e.Foreign.Check(prefix + "foreign ")
}

// settings are p's with an empty mode, which the planner does not use, filled in.
func (p Problem) settings() messages.Settings {
	s := p.Settings
	if s.Mode == "" {
		s.Mode = messages.Dynamic
	}
	return s
}

// limitOf is the limit with "none" as the loosest of all.
func limitOf(t messages.Task) float64 {
	if t.Limit <= 0 {
		return math.Inf(1)
	}
	return t.Limit
}
