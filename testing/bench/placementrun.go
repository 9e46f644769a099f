package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
)

// placementRow is what was measured of one fleet: times are medians of the runs, all
// else is the same in every run.
type placementRow struct {
	environments, replicas, runs int

	solve, repair float64 // ms
	gap           float64 // %, of the recomputed score to the bound
	used          float64 // %, of the scarcest resource of the site of edges and robots that uses least
	fault         string  // the first thing wrong with a plan; "" for nothing
	waiting       int     // without a place after the full solve
	moved, forced int     // by the repair; those that were on the lost box
	repairWaiting int
	memory        float64 // MB, the most that the process ever had
}

func (r placementRow) figures() []placementLine {
	feasible := 0.0
	if r.fault == "" {
		feasible = 1
	}
	name := fmt.Sprintf("%dx%d", r.environments, r.replicas)
	var out []placementLine
	add := func(metric string, v float64, unit string) {
		out = append(out, placementLine{"placement", name, metric, math.Round(v*1e4) / 1e4, unit})
	}
	add("solve_ms", r.solve, "ms")
	add("gap_pct", r.gap, "%")
	add("feasible", feasible, "bool")
	add("used_pct", r.used, "%")
	add("repair_ms", r.repair, "ms")
	add("repair_moved", float64(r.moved), "replicas")
	add("repair_forced", float64(r.forced), "replicas")
	add("repair_waiting", float64(r.repairWaiting), "replicas")
	add("rss_mb", r.memory, "MB")
	return out
}

// measurePlacement solves and repairs; the box that dies is the edge that holds most.
func measurePlacement(environments, replicas int, seed uint64, roomy bool, runs int) (placementRow, error) {
	row := placementRow{environments: environments, replicas: replicas}
	f, err := generateFleet(environments, replicas, seed, roomy)
	if err != nil {
		return row, err
	}
	if v := inspect(f.problem, f.witness); !v.full() {
		return row, fmt.Errorf("the generated fleet has no full solution: %s", v.faults[0])
	}
	var solves, repairs []float64
	for begin := time.Now(); len(solves) < runs || runs == 0 && len(solves) < enoughRuns && (len(solves) == 0 || time.Since(begin) < enoughTime); {
		p := f.problem
		var solver alloc.Solver // a new one, so that every run begins with nothing
		runtime.GC()            // so that no run pays for the rubbish of the one before
		start := time.Now()
		plan, err := solver.Solve(p, alloc.Options{})
		solves = append(solves, millis(start))
		if err != nil {
			return row, err
		}
		at := placesOf(plan)
		v := inspect(p, at)
		row.gap, row.used, row.waiting = 100*(v.score/plan.Bound-1), 100*v.used, len(plan.Waiting)
		row.note("solve", v)

		lost := busiestEdge(p, at)
		p = lose(p, lost, at)
		runtime.GC()
		start = time.Now()
		after, err := solver.Repair(p, alloc.Options{})
		repairs = append(repairs, millis(start))
		if err != nil {
			return row, err
		}
		row.compare(p, at, placesOf(after), lost)
	}
	row.runs = len(solves)
	row.solve, row.repair = median(solves), median(repairs)
	row.memory = memory()
	return row, nil
}

// note keeps the first fault of a plan.
func (r *placementRow) note(what string, v verdict) {
	if !v.full() && r.fault == "" {
		r.fault = fmt.Sprintf("%s: %s (%d faults)", what, v.faults[0], len(v.faults))
	}
}

// compare says what the repair did. What waits is counted and is no fault: a fleet need
// not have room for a lost box. Everything that has a place has to keep the constraints.
func (r *placementRow) compare(p alloc.Problem, before, after map[string]string, lost string) {
	r.moved, r.forced, r.repairWaiting = 0, 0, 0
	var placed []alloc.Replica
	for _, rep := range p.Replicas {
		old, had := before[rep.ID]
		now, has := after[rep.ID]
		if had && old == lost {
			r.forced++
		}
		if has {
			placed = append(placed, rep)
			if had && old != now {
				r.moved++
			}
		} else {
			r.repairWaiting++
		}
	}
	p.Replicas = placed
	r.note("repair", inspect(p, after))
}

// placesOf is the environment by replica.
func placesOf(p alloc.Plan) map[string]string {
	out := make(map[string]string, len(p.Assignments))
	for _, a := range p.Assignments {
		out[a.Replica] = a.Environment
	}
	return out
}

// busiestEdge is the edge that holds most replicas; of several, the first by id.
func busiestEdge(p alloc.Problem, at map[string]string) string {
	many := make(map[string]int)
	for _, e := range at {
		many[e]++
	}
	best := ""
	for _, e := range p.Environments {
		if e.Tier != messages.Edge {
			continue
		}
		if best == "" || many[e.ID] > many[best] || many[e.ID] == many[best] && e.ID < best {
			best = e.ID
		}
	}
	return best
}

// movePrice is what leaving its place costs a replica in the repair: 10 ms, about the
// difference between two edges. Only what gains more than that is worth a move.
const movePrice = 10

// lose is the problem after the box is gone.
func lose(p alloc.Problem, box string, at map[string]string) alloc.Problem {
	p.Environments = slices.Clone(p.Environments)
	for i := range p.Environments {
		if p.Environments[i].ID == box {
			p.Environments[i].Closed = "lost"
		}
	}
	p.Current, p.MovePrice = at, movePrice
	return p
}

func millis(start time.Time) float64 { return float64(time.Since(start).Microseconds()) / 1000 }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// memory is the most that the process has had in memory, MB: where the system does
// not say so, what the runtime has asked of it.
func memory() float64 {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64); err == nil {
				return kb / 1024
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys) / (1 << 20)
}
