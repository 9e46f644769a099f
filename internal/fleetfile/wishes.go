package fleetfile

import (
	"math"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
	"go.yaml.in/yaml/v3"
)

// prefer reads where a task would rather run, and adds its keys to those of the task,
// under their path.
func (d *decoder) prefer(into **messages.Preference, keys map[string]*yaml.Node) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		p := new(messages.Preference)
		before := len(d.errs)
		for name, k := range d.object(n, path, []field{
			{"tiers", d.tiers(&p.Tiers)},
			{"sites", d.names(&p.Sites, "site")},
			{"labels", d.labels(&p.Labels)},
			{"penalty", d.score(&p.Penalty)},
		}) {
			keys["prefer."+name] = k
		}
		if len(d.errs) == before {
			*into = p
		}
	}
}

// tiers reads a list of tiers.
func (d *decoder) tiers(into *[]messages.Tier) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		d.list(n, path, func(n *yaml.Node, path string) {
			var s string
			if d.tier(&s)(n, path); s != "" {
				*into = append(*into, messages.Tier(s))
			}
		})
	}
}

// score reads a number in units of score whose absence means something.
func (d *decoder) score(into **float64) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		v := math.NaN() // stays so if the value is refused
		d.number(&v, messages.MaxScore, "")(n, path)
		if !math.IsNaN(v) {
			*into = &v
		}
	}
}

// measurement is one entry of measured, and where its names stand.
type measurement struct {
	pair              alloc.Pair
	task, environment item
}

// measured reads one entry of measured.
func (d *decoder) measured(n *yaml.Node, path string, f *File) (m measurement) {
	delay := math.NaN()
	keys := d.object(n, path, []field{
		{"task", d.label(&m.pair.Task, "task")},
		{"environment", d.label(&m.pair.Environment, "environment")},
		{"delay", d.quantity(&delay, Duration, math.MaxFloat64)},
	})
	d.require(n, path, keys, "task", "the name of a task")
	d.require(n, path, keys, "environment", "the id of an environment")
	d.require(n, path, keys, "delay", "a number with or without a unit")
	m.task, m.environment = at(n, path, keys, "task"), at(n, path, keys, "environment")
	if m.pair.Task == "" || m.pair.Environment == "" || math.IsNaN(delay) {
		return m
	}
	if _, ok := f.Measured[m.pair]; ok {
		d.fail(m.task.node, path, "the delay of %s on %s is measured already; one is enough", m.pair.Task, m.pair.Environment)
		return m
	}
	if f.Measured == nil {
		f.Measured = make(map[alloc.Pair]float64)
	}
	f.Measured[m.pair] = delay
	return m
}

// measuredNames checks that what was measured is there.
func (d *decoder) measuredNames(m measurement, f *File, p places) {
	tasks := make([]string, len(f.Tasks))
	for i, t := range f.Tasks {
		tasks[i] = t.Name
	}
	known := func(i item, name, what string, among []string) {
		if name == "" || slices.Contains(among, name) {
			return
		}
		hint := "it has none"
		if len(among) > 0 {
			hint = "allowed are " + some(among)
		}
		if s := nearest(name, among); s != "" {
			hint = "did you mean " + s + "? " + hint
		}
		d.fail(i.node, i.path, "found %q, which no %s of this file is called; %s", name, what, hint)
	}
	known(m.task, m.pair.Task, "task", tasks)
	known(m.environment, m.pair.Environment, "environment", p.ids)
}
