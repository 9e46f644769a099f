package fleetfile

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"go.yaml.in/yaml/v3"
)

// maxTime bounds limits and deadlines, ms; it is the bound of package messages.
const maxTime = 1e12

// task reads one entry of tasks, and returns the nodes of its keys too.
func (d *decoder) task(n *yaml.Node, path string) (messages.Task, map[string]*yaml.Node) {
	var t messages.Task
	var class, per, delivery, interrupt string
	before := len(d.errs)
	preferred := make(map[string]*yaml.Node)
	keys := d.object(n, path, []field{
		{"name", d.label(&t.Name, "task")},
		{"class", d.text(&class, "a class", func(s string) error { return oneOf(s, "training", "inference", "action") })},
		{"compute", d.quantity(&t.Demand.Compute, Compute, math.MaxFloat64)},
		{"storage", d.quantity(&t.Demand.Storage, Storage, math.MaxFloat64)},
		{"network", d.quantity(&t.Demand.Network, Network, math.MaxFloat64)},
		{"work", d.optional(&t.Work, Work)},
		{"transfer", d.optional(&t.Transfer, Transfer)},
		{"limit", d.quantity(&t.Limit, Duration, maxTime)},
		{"cost", d.number(&t.Cost, math.MaxFloat64, "per hour")},
		{"replicas", d.whole(&t.Replicas, 1, messages.MaxReplicas)},
		{"per", d.text(&per, "robot or site", func(s string) error {
			return oneOf(s, string(messages.PerRobot), string(messages.PerSite))
		})},
		{"priority", d.whole(&t.Priority, -1_000_000, 1_000_000)},
		{"tiers", d.tiers(&t.Tiers)},
		{"sites", d.names(&t.Sites, "site")},
		{"labels", d.labels(&t.Labels)},
		{"prefer", d.prefer(&t.Prefer, preferred)},
		{"move_price", d.score(&t.MovePrice)},
		{"robot", d.label(&t.Robot, "robot")},
		{"colocate", d.flag(&t.Colocate)},
		{"interrupt", d.text(&interrupt, "allow or never", func(s string) error {
			return oneOf(s, string(messages.InterruptAllow), string(messages.InterruptNever))
		})},
		{"delivery", d.text(&delivery, "durable or direct", func(s string) error {
			return oneOf(s, string(messages.Durable), string(messages.Direct))
		})},
		{"handler", d.label(&t.Handler, "handler")},
		{"concurrency", d.whole(&t.Concurrency, 1, messages.MaxConcurrency)},
		{"max_batch", d.whole(&t.MaxBatch, 1, messages.MaxConcurrency)},
		{"max_wait", d.quantity(&t.MaxWait, Duration, float64(messages.MaxBatchWait.Milliseconds()))},
		{"max_attempts", d.whole(&t.MaxAttempts, 1, 1000)},
		{"retry_pause", d.quantity(&t.RetryPause, Duration, messages.MaxRetryPause)},
		{"retry_most", d.quantity(&t.RetryMost, Duration, messages.MaxRetryPause)},
		{"deadline", d.quantity(&t.Deadline, Duration, maxTime)},
		{"idempotent", d.flag(&t.Idempotent)},
		{"run", d.run(&t.Run, preferred)},
		{"on_link_loss", d.label(&t.OnLinkLoss, "hook")},
	})
	maps.Copy(keys, preferred)
	d.require(n, path, keys, "name", "a name")
	d.require(n, path, keys, "class", "one of training, inference, action")
	t.Class, t.Per, t.Delivery = messages.Class(class), messages.Per(per), messages.Delivery(delivery)
	t.Interrupt = messages.Interrupt(interrupt)
	if len(d.errs) == before {
		d.together(n, path, keys, t)
	}
	return t, keys
}

// together checks what two fields must not say together: the rules are those of
// package messages, the line is found by the field that its error names.
func (d *decoder) together(n *yaml.Node, path string, keys map[string]*yaml.Node, t messages.Task) {
	if t.Robot != "" && t.Per != messages.PerFleet {
		d.fail(keys["per"], join(path, "per"), "found %s beside robot: %s (line %d), which is one robot already; leave one of the two out", t.Per, t.Robot, keys["robot"].Line)
		return
	}
	err := t.Check("")
	if err == nil {
		return
	}
	name, text, ok := strings.Cut(messages.AsError(err, messages.CodeBadRequest).Message, ": ")
	if where := at(n, path, keys, name); ok && keys[name] != nil {
		d.fail(where.node, where.path, "%s", text)
		return
	}
	d.failErr(n, path, err)
}

// places are the names that a task of the file may refer to.
type places struct{ ids, sites []string }

func placesOf(envs []messages.Environment) places {
	var p places
	for _, e := range envs {
		p.ids, p.sites = append(p.ids, e.ID), append(p.sites, e.Site)
	}
	slices.Sort(p.sites)
	p.sites = slices.Compact(p.sites)
	return p
}

// references checks that what a task names is there. A file without environments is
// for a fleet that is running; nothing is known of it here.
func (d *decoder) references(t messages.Task, path string, keys map[string]*yaml.Node, p places) {
	known := func(field, name, verb string, among []string) {
		if len(among) == 0 || slices.Contains(among, name) {
			return
		}
		hint := ""
		if n := nearest(name, among); n != "" {
			hint = "did you mean " + n + "? "
		}
		d.fail(keys[field], join(path, field), "found %q, which no environment of this file %s; %sallowed are %s", name, verb, hint, some(among))
	}
	if t.Robot != "" {
		known("robot", t.Robot, "is called", p.ids)
	}
	for _, s := range t.Sites {
		known("sites", s, "is in", p.sites)
	}
	if t.Prefer != nil {
		for _, s := range t.Prefer.Sites {
			known("prefer.sites", s, "is in", p.sites)
		}
	}
}

// some lists words, the first ten.
func some(words []string) string {
	if len(words) > 10 {
		return strings.Join(words[:10], ", ") + ", …"
	}
	return strings.Join(words, ", ")
}
