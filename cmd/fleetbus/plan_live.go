package main

import (
	"cmp"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/internal/planreport"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

// liveFleet is the fleet as it runs, as a file to plan, and where it stands.
type liveFleet struct {
	file     *fleetfile.File
	measured []messages.MeasuredDelay
	homes    map[string]string // replica → agent; "" where it waits
}

// liveFleet asks the leader. What was saved last is no plan of a fleet that runs.
func (a *app) liveFleet(cmd *cobra.Command) (*liveFleet, error) {
	p, err := a.picture(cmd)
	if err != nil {
		return nil, err
	}
	if !p.Live {
		return nil, messages.Errorf(messages.CodeUnavailable, "--live: no coordinator answers, so nobody knows how the fleet is now; start one with `fleetbus up` or `fleetbus coordinator`, or plan a file with -f")
	}
	return liveOf(p.State, a.fleet), nil
}

// liveOf takes a state apart. Only agents that are there and stay can be planned on.
func liveOf(s *messages.State, fleet string) *liveFleet {
	settings := s.Settings
	settings.V = 0
	l := &liveFleet{measured: s.Measured, homes: make(map[string]string), file: &fleetfile.File{
		Name: "the fleet as it is", Fleet: fleet, Settings: &settings, Tasks: s.Tasks,
		Foreign: make(map[string]messages.Resources),
	}}
	open := make(map[string]bool)
	for _, g := range s.Agents {
		if g.State == messages.AgentReady && !g.Drain {
			l.file.Environments = append(l.file.Environments, g.Environment)
			l.file.Foreign[g.Environment.ID] = g.Foreign
			open[g.Environment.ID] = true
		}
	}
	for _, d := range s.Measured {
		if open[d.Agent] {
			if l.file.Measured == nil {
				l.file.Measured = make(map[alloc.Pair]float64)
			}
			l.file.Measured[alloc.Pair{Task: d.Task, Environment: d.Agent}] = d.Delay
		}
	}
	for _, r := range s.Replicas {
		l.homes[r.ID] = r.Agent
	}
	return l
}

// apart are the replicas that stand elsewhere than a plan would put them now.
type apart struct {
	Replica string `json:"replica"`
	Agent   string `json:"agent"`   // "": it waits
	Planned string `json:"planned"` // "": it would wait
}

func (l *liveFleet) apart(r *planreport.Report) (list []apart) {
	planned := make(map[string]string)
	for _, a := range r.Assignments {
		planned[a.Replica] = a.Environment
	}
	for id, home := range l.homes {
		if planned[id] != home {
			list = append(list, apart{id, home, planned[id]})
		}
	}
	slices.SortFunc(list, func(a, b apart) int { return cmp.Compare(a.Replica, b.Replica) })
	return list
}

func (l *liveFleet) print(cmd *cobra.Command, r *planreport.Report) error {
	elsewhere := l.apart(r)
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return new(app).printJSON(cmd, map[string]any{"plan": r, "measured": orEmpty(l.measured), "elsewhere": orEmpty(elsewhere)})
	}
	if err := r.Write(cmd.OutOrStdout()); err != nil {
		return writing(err)
	}
	if len(l.measured) > 0 {
		printf(cmd, "\nMeasured (the delay that plans count in mode adaptive, and what it is made of)\n")
		t := newTable("TASK", "AGENT", "MODEL", "DELAY", "SERVICE", "TRANSFER", "OUR OWN LOAD", "MEASURED")
		for _, d := range l.measured {
			age := "now"
			if d.Age > 2000 {
				age = millis(d.Age) + " ago"
			}
			t.add(d.Task, d.Agent, millis(roundTo(d.Modelled, 4)), millis(roundTo(d.Delay, 4)), millis(roundTo(d.Service, 4)),
				millis(roundTo(d.Transfer, 4)), millis(roundTo(d.Crowding, 4)), age)
		}
		if err := t.print(cmd); err != nil {
			return err
		}
	} else if l.file.Settings.Mode != messages.Adaptive {
		printf(cmd, "\nNothing is measured in mode %s: `fleetbus apply` with mode adaptive has agents' service times count.\n", l.file.Settings.Mode)
	}
	if len(elsewhere) == 0 {
		printf(cmd, "\nThe fleet stands as this plan has it.\n")
		return nil
	}
	printf(cmd, "\nThe fleet stands otherwise (a move must be worth its price; `fleetbus explain REPLICA` says more)\n")
	t := newTable("REPLICA", "IS ON", "PLANNED")
	for _, e := range elsewhere {
		t.add(e.Replica, e.Agent, e.Planned)
	}
	return t.print(cmd)
}

// orEmpty is [] in JSON where there is nothing, not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
