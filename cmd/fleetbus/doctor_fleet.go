package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// fewConsumers is the server's default of consumers a stream. A stream that was made
// without a limit of its own has it, and watchers of a bucket count.
const fewConsumers = 1000

// assets looks for the streams and buckets of the fleet. They are made by whoever misses
// them first, so a missing one is worth a remark, no more.
func (d *doctor) assets(ctx context.Context, b *bus.Bus) {
	if d.off {
		return // said already
	}
	var missing, narrow []string
	found := 0
	for _, name := range assetNames(b.Fleet, d.site) {
		stream, err := b.JS.Stream(ctx, name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			missing = append(missing, name)
			continue
		case err != nil:
			text, do := advice(bus.Explain(err, "look for stream "+name))
			d.add("streams", bad, text, do)
			return
		}
		found++
		info := stream.CachedInfo()
		most := info.Config.MaxConsumers
		if most <= 0 {
			most = fewConsumers
		}
		if info.State.Consumers*10 >= most*9 {
			narrow = append(narrow, fmt.Sprintf("%s has %d of %d", name, info.State.Consumers, most))
		}
	}
	switch {
	case found == 0:
		d.add("streams", warn, "fleet "+b.Fleet+" has none yet", "the first coordinator, router or agent makes them: `fleetbus up`; another fleet is named with --fleet")
	case len(missing) > 0:
		d.add("streams", good, fmt.Sprintf("%d there; not made yet, because nobody needed them: %s", found, strings.Join(missing, ", ")), "")
	default:
		d.add("streams", good, fmt.Sprintf("all %d streams and buckets of fleet %s, site %s are there", found, b.Fleet, d.site), "")
	}
	if len(narrow) > 0 {
		d.add("consumers", warn, "almost no room: "+strings.Join(narrow, ", "), "set jetstream { limits { default_max_consumers: 20000 } } on the server")
	} else if found > 0 {
		d.add("consumers", good, "no stream is near its limit of consumers", "")
	}
}

func assetNames(fleet, site string) []string {
	names := []string{bus.EventStreamName(fleet)}
	for _, class := range []messages.Class{messages.Training, messages.Inference, messages.Action} {
		names = append(names, bus.StreamName(fleet, site, class))
	}
	names = append(names, bus.MailStreamName(fleet, site), bus.MailedStreamName(fleet, site))
	for _, bucket := range bus.Buckets() {
		names = append(names, "KV_"+bus.BucketName(fleet, bucket)) // as the client names a bucket's stream
	}
	return names
}

// leader asks for the fleet's state and judges it.
func (d *doctor) leader(ctx context.Context, b *bus.Bus) {
	s, err := leaderState(ctx, b)
	if err != nil {
		found, do := advice(err)
		if errors.Is(err, errNoLeader) {
			found = "none answers in fleet " + b.Fleet + ": requests are served by the last plan, if there is one, and nothing new is placed"
		}
		d.add("coordinator", bad, found, do)
		return
	}
	d.add("coordinator", good, fmt.Sprintf("%s leads, term %s", s.Leader, s.Term), "")
	d.agents(s)
	d.waiting(s)
	d.routes(ctx, b, s)
	dropped := 0
	for _, n := range s.Bad {
		dropped += n
	}
	if dropped > 0 {
		d.add("garbage", warn, fmt.Sprintf("the leader has dropped %d malformed messages: %v", dropped, s.Bad), "its log names the subjects; is something else publishing below fb."+b.Fleet+"?")
	}
}

func (d *doctor) agents(s *messages.State) {
	by := map[messages.AgentState][]string{}
	for _, g := range s.Agents {
		by[g.State] = append(by[g.State], g.Environment.ID)
	}
	if len(s.Agents) == 0 {
		d.add("agents", warn, "none", "start one: `fleetbus agent --id robot-1 --tier robot --simulate`")
		return
	}
	well := len(by[messages.AgentReady]) + len(by[messages.AgentDraining])
	if away := append(by[messages.AgentStale], by[messages.AgentLost]...); len(away) > 0 {
		d.add("agents", warn, fmt.Sprintf("%d of %d are well; stale or lost: %s", well, len(s.Agents), list(away)), "are they running, and does their link carry data? stale means beats arrive, data does not; `fleetbus forget` takes one off the list that will not come back")
		return
	}
	d.add("agents", good, fmt.Sprintf("%d, none stale or lost", len(s.Agents)), "")
}

// stops tells who is stopped.
func (d *doctor) stops(ctx context.Context, b *bus.Bus) {
	if d.off {
		return // said already
	}
	s, err := safety.Read(ctx, b)
	if err != nil {
		found, do := advice(err)
		d.add("stops", warn, found, do)
		return
	}
	registered, err := coordinator.Registrations(ctx, b)
	if err != nil {
		found, do := advice(err)
		d.add("stops", warn, found, do)
		return
	}
	var stopped []string
	for _, robot := range s.Robots() {
		if _, ok := registered[robot]; !ok {
			continue // forgotten: it is told again when it comes back
		}
		if why, confirmed := s.Why(robot); why != "" {
			if !confirmed {
				why += " (not confirmed)"
			}
			stopped = append(stopped, robot+" "+why)
		}
	}
	switch {
	case len(stopped) > 0:
		d.add("stops", warn, fmt.Sprintf("%d robots take no actions: %s", len(stopped), list(stopped)), "`fleetbus release ROBOT` when it is safe; `fleetbus agents` has them all")
	case s.All != nil && s.All.Stop:
		d.add("stops", warn, "all robots were stopped, none has confirmed it", "`fleetbus release --all` when it is safe")
	default:
		d.add("stops", good, "no robot is stopped", "")
	}
}

// routes judges the room in the one message that the routes of a fleet are.
func (d *doctor) routes(ctx context.Context, b *bus.Bus, s *messages.State) {
	kv, err := b.KV(ctx, bus.RoutesKV)
	if err != nil {
		return // said already
	}
	e, err := kv.Get(ctx, bus.KeyRoutes)
	if err != nil {
		return // nothing was ever placed
	}
	var r messages.Routes
	if messages.Decode(e.Value(), &r) != nil {
		return
	}
	listed := 0
	for _, t := range r.Tasks {
		listed += len(t.Replicas)
	}
	if found := fullRoutes(len(e.Value()), listed, len(s.Replicas)); found != "" {
		d.add("routes", warn, found, "run fewer replicas in this fleet, or split it: what is over the limit is neither saved nor sent, and clients go on with the routes before")
	}
}

// fullRoutes says what is to be said of routes that have so many bytes with the replicas that
// they list, where the fleet has so many: "" for nothing.
func fullRoutes(size, listed, replicas int) string {
	const full = 0.8 // early enough to do something
	if listed == 0 {
		return ""
	}
	each := float64(size) / float64(listed)
	if float64(max(replicas, listed))*each < full*messages.MaxControl {
		return ""
	}
	return fmt.Sprintf("the routes of a fleet are one message of at most %d bytes, which has room for about %.0f replicas of %.0f bytes; there are %d", messages.MaxControl, messages.MaxControl/each, each, max(replicas, listed))
}

func (d *doctor) waiting(s *messages.State) {
	var waiting, reasons []string
	for _, r := range s.Replicas {
		if stuck(r) {
			waiting = append(waiting, r.ID)
			reasons = append(reasons, why(r))
		}
	}
	switch {
	case len(waiting) > 0:
		d.add("tasks", warn, fmt.Sprintf("%d of %d replicas serve nobody: %s: %s", len(waiting), len(s.Replicas), waiting[0], reasons[0]), "`fleetbus placements` has them all")
	case len(s.Tasks) == 0:
		d.add("tasks", warn, "none", "say what is to run: `fleetbus apply -f configs/smart-factory.yaml`")
	default:
		d.add("tasks", good, fmt.Sprintf("%d tasks, %d replicas, none waits or has failed", len(s.Tasks), len(s.Replicas)), "")
	}
}

// list writes the first few of many names.
func list(names []string) string {
	const few = 5
	if len(names) > few {
		return strings.Join(names[:few], ", ") + fmt.Sprintf(" and %d more", len(names)-few)
	}
	return strings.Join(names, ", ")
}
