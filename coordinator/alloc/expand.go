package alloc

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/fleetbus/fleetbus/messages"
)

// Expand returns the replicas that the tasks ask for in a fleet of the environments,
// sorted by id (see [messages.ReplicaID]).
//
//   - Task.Robot set: Task.Replicas of them ("task/0", …), pinned to that robot.
//   - PerFleet: Task.Replicas of them ("task/0", …).
//   - PerRobot: one for each environment of tier robot that the task's sites and
//     labels admit, pinned to it, with its id as suffix.
//   - PerSite: one for each site that has an environment and that the task's sites
//     admit, kept to it, with the site as suffix.
func Expand(tasks []messages.Task, envs []messages.Environment) []Replica {
	var out []Replica
	for _, t := range tasks {
		t = t.Normal()
		switch t.Per {
		case messages.PerRobot:
			for _, e := range envs {
				e = e.Normal()
				if e.Tier == messages.Robot && admitsSite(t, e.Site) && len(missingLabels(t, e)) == 0 {
					out = append(out, Replica{ID: messages.ReplicaID(t.Name, e.ID), Task: t, Pin: e.ID})
				}
			}
		case messages.PerSite:
			for _, s := range sites(envs) {
				if admitsSite(t, s) {
					out = append(out, Replica{ID: messages.ReplicaID(t.Name, s), Task: t, Site: s})
				}
			}
		default:
			for i := range max(1, t.Replicas) {
				out = append(out, Replica{ID: messages.ReplicaID(t.Name, strconv.Itoa(i)), Task: t, Pin: t.Robot})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Replica) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func sites(envs []messages.Environment) []string {
	var out []string
	for _, e := range envs {
		out = append(out, e.Normal().Site)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func admitsSite(t messages.Task, site string) bool {
	return len(t.Sites) == 0 || slices.Contains(t.Sites, site)
}

func admitsTier(t messages.Task, tier messages.Tier) bool {
	return len(t.Tiers) == 0 || slices.Contains(t.Tiers, tier)
}

// missingLabels returns the labels of t that e has not, sorted, as key=value.
func missingLabels(t messages.Task, e messages.Environment) []string {
	var out []string
	for k, v := range t.Labels {
		if got, ok := e.Labels[k]; !ok || got != v {
			out = append(out, k+"="+v)
		}
	}
	slices.Sort(out)
	return out
}
