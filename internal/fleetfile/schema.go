package fleetfile

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"go.yaml.in/yaml/v3"
)

// file reads the root.
func (d *decoder) file(root *yaml.Node, f *File) {
	var envs, tasks []item
	var later []func(places)
	d.object(root, "", []field{
		{"fleet", d.label(&f.Fleet, "fleet")},
		{"settings", func(n *yaml.Node, path string) { f.Settings = d.settings(n, path) }},
		{"environments", func(n *yaml.Node, path string) {
			d.list(n, path, func(n *yaml.Node, path string) {
				more, at := d.environment(n, path)
				if len(f.Environments)+len(more) > maxEnvironments {
					d.fail(n, path, "more than %d environments", maxEnvironments)
					return
				}
				for _, e := range more {
					f.Environments = append(f.Environments, e)
					envs = append(envs, item{e.ID, at.node, at.path})
				}
			})
		}},
		{"tasks", func(n *yaml.Node, path string) {
			d.list(n, path, func(n *yaml.Node, path string) {
				t, keys := d.task(n, path)
				if t.Name != "" {
					where := at(n, path, keys, "name")
					where.name = t.Name
					tasks = append(tasks, where)
				}
				f.Tasks = append(f.Tasks, t)
				later = append(later, func(p places) { d.references(t, path, keys, p) })
			})
		}},
		{"measured", func(n *yaml.Node, path string) {
			d.list(n, path, func(n *yaml.Node, path string) {
				m := d.measured(n, path, f)
				later = append(later, func(p places) { d.measuredNames(m, f, p) })
			})
		}},
		{"baselines", func(n *yaml.Node, path string) {
			var seen []item
			d.list(n, path, func(n *yaml.Node, path string) {
				b, at := d.baseline(n, path)
				f.Baselines = append(f.Baselines, b)
				if at.name = b.Name; b.Name != "" {
					seen = append(seen, at)
				}
			})
			d.unique(seen, "baseline")
		}},
	})
	d.unique(envs, "environment")
	d.unique(tasks, "task")
	// The order of the sections is free, so what names another section is checked last.
	p := placesOf(f.Environments)
	for _, check := range later {
		check(p)
	}
}

// item is something with a name, and where the name stands.
type item struct {
	name string
	node *yaml.Node
	path string // of the name; of the object where it has none
}

// unique refuses a name that is used twice.
func (d *decoder) unique(items []item, what string) {
	first := make(map[string]item)
	for _, i := range items {
		if o, ok := first[i.name]; ok {
			d.fail(i.node, i.path, "the %s %q is in line %d already; every %s needs a name of its own", what, i.name, o.node.Line, what)
			continue
		}
		first[i.name] = i
	}
}

// at is where the field of an object stands, or the object itself.
func at(n *yaml.Node, path string, keys map[string]*yaml.Node, name string) item {
	if k := keys[name]; k != nil {
		return item{node: k, path: join(path, name)}
	}
	return item{node: n, path: path}
}

// require reports the absence of a field.
func (d *decoder) require(n *yaml.Node, path string, keys map[string]*yaml.Node, name, allowed string) {
	if keys[name] == nil {
		d.fail(n, join(path, name), "it is missing; allowed is %s", allowed)
	}
}

// settings reads the planning parameters: a preset, and what differs from it.
func (d *decoder) settings(n *yaml.Node, path string) *messages.Settings {
	preset := "balanced"
	nan := math.NaN()
	latency, cost, reserve := nan, nan, nan
	var mode string
	presets := messages.Presets()
	d.object(n, path, []field{
		{"preset", d.text(&preset, "the name of a preset", func(s string) error {
			return oneOf(s, slices.Sorted(maps.Keys(presets))...)
		})},
		{"weight_latency", d.number(&latency, 10, "")},
		{"weight_cost", d.number(&cost, 10, "")},
		{"resource_reserve_ratio", d.number(&reserve, 0.3, "")},
		{"mode", d.text(&mode, "a mode", func(s string) error {
			return oneOf(s, string(messages.Static), string(messages.Dynamic), string(messages.Adaptive))
		})},
	})
	s := presets[preset]
	for _, v := range []struct {
		found float64
		into  *float64
	}{{latency, &s.WeightLatency}, {cost, &s.WeightCost}, {reserve, &s.Reserve}} {
		if !math.IsNaN(v.found) {
			*v.into = v.found
		}
	}
	s.Mode = cmp.Or(messages.Mode(mode), s.Mode)
	return &s
}

// oneOf refuses a word that is not allowed.
func oneOf(s string, allowed ...string) error {
	if slices.Contains(allowed, s) {
		return nil
	}
	hint := ""
	if n := nearest(s, allowed); n != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", n)
	}
	return messages.Errorf(messages.CodeBadRequest, "found %q, allowed are %s%s", shorten(s), strings.Join(allowed, ", "), hint)
}

// environment reads one entry, which may stand for several environments.
func (d *decoder) environment(n *yaml.Node, path string) ([]messages.Environment, item) {
	e := messages.Environment{Offline: true}
	var tier, billing string
	count := 0
	keys := d.object(n, path, []field{
		{"id", d.label(&e.ID, "environment")},
		{"count", d.whole(&count, 1, messages.MaxReplicas)},
		{"tier", d.tier(&tier)},
		{"site", d.label(&e.Site, "site")},
		{"labels", d.labels(&e.Labels)},
		{"compute", d.quantity(&e.Capacity.Compute, Compute, math.MaxFloat64)},
		{"storage", d.quantity(&e.Capacity.Storage, Storage, math.MaxFloat64)},
		{"network", d.quantity(&e.Capacity.Network, Network, math.MaxFloat64)},
		{"latency", d.quantity(&e.Latency, Duration, math.MaxFloat64)},
		{"price", d.number(&e.Price, math.MaxFloat64, "per hour")},
		{"billing", d.billing(&billing)},
	})
	d.require(n, path, keys, "id", "a name")
	d.require(n, path, keys, "tier", "one of cloud, edge, robot")
	e.Tier, e.Billing = messages.Tier(tier), messages.Billing(billing)
	where := at(n, path, keys, "id")
	if e.ID == "" {
		return nil, where
	}
	e = e.Normal()
	if count == 0 {
		return []messages.Environment{e}, where
	}
	out := make([]messages.Environment, count)
	for i := range out {
		out[i] = e
		out[i].ID = fmt.Sprintf("%s-%d", e.ID, i+1)
	}
	if err := messages.CheckName("environment", out[count-1].ID); err != nil {
		d.failErr(where.node, where.path, err)
	}
	return out, where
}

func (d *decoder) tier(into *string) func(*yaml.Node, string) {
	return d.text(into, "a tier", func(s string) error { return oneOf(s, "cloud", "edge", "robot") })
}

func (d *decoder) billing(into *string) func(*yaml.Node, string) {
	return d.text(into, "a billing", func(s string) error { return oneOf(s, string(messages.Share), string(messages.Whole)) })
}

// baseline reads one entry of baselines.
func (d *decoder) baseline(n *yaml.Node, path string) (Baseline, item) {
	var b Baseline
	var tier, per, billing string
	keys := d.object(n, path, []field{
		{"name", d.label(&b.Name, "baseline")},
		{"tier", d.tier(&tier)},
		{"one_per", d.text(&per, "robot", func(s string) error { return oneOf(s, string(messages.PerRobot)) })},
		{"billing", d.billing(&billing)},
	})
	d.require(n, path, keys, "name", "a name")
	d.require(n, path, keys, "tier", "one of cloud, edge, robot")
	if b.Name == "hybrid" {
		d.fail(keys["name"], join(path, "name"), "found hybrid, which is what the plan itself is called; allowed is any other name")
	}
	if keys["billing"] != nil && keys["one_per"] == nil {
		d.fail(keys["billing"], join(path, "billing"), "found it without one_per: robot; the environments that there are say themselves how they are billed")
	}
	b.Tier, b.OnePer, b.Billing = messages.Tier(tier), messages.Per(per), messages.Billing(billing)
	return b, at(n, path, keys, "name")
}
