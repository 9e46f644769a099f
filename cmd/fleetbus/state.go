package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
)

// errNoLeader says that no coordinator answers. Requests are served all the same, by the
// last plan; but nothing new is placed.
var errNoLeader = messages.Errorf(messages.CodeUnavailable, "ask the leader for its state: no coordinator answers; start one with `fleetbus up` or `fleetbus coordinator`")

// leaderState asks the leading coordinator for its picture. It returns errNoLeader where
// none answers within the time of ctx.
func leaderState(ctx context.Context, b *bus.Bus) (*messages.State, error) {
	state, err := coordinator.ReadState(ctx, b)
	switch messages.CodeOf(err) {
	case "":
		return &state, nil
	case messages.CodeUnavailable:
		return nil, errNoLeader
	case messages.CodeBadRequest:
		return nil, messages.Errorf(messages.CodeInternal, "read the leader's state: %v; is its version newer than this program's?", err)
	}
	return nil, err
}

// savedRoutes reads the plan that clients use; nil where none was ever made. It makes no
// bucket.
func savedRoutes(ctx context.Context, b *bus.Bus) (*messages.Routes, error) {
	const tried = "read the saved routes"
	kv, err := b.JS.KeyValue(ctx, bus.BucketName(b.Fleet, bus.RoutesKV))
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, bus.Explain(err, tried)
	}
	entry, err := kv.Get(ctx, bus.KeyRoutes)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, bus.Explain(err, tried)
	}
	routes := new(messages.Routes)
	if err := messages.Decode(entry.Value(), routes); err != nil {
		return nil, messages.Errorf(messages.CodeInternal, "%s: %v", tried, err)
	}
	return routes, nil
}

// picture is what can be known of the fleet: the leader's state, or, where no leader
// answers, what the buckets keep, marked as such.
type picture struct {
	*messages.State
	Live bool // a leader answered
}

// look asks the leader and falls back to the buckets.
func (a *app) look(ctx context.Context, b *bus.Bus) (picture, error) {
	// A leader answers in a millisecond. A third of the time is left to the buckets.
	ask, cancel := context.WithTimeout(ctx, a.timeout/3*2)
	defer cancel()
	state, err := leaderState(ask, b)
	if err == nil {
		return picture{state, true}, nil
	}
	if !errors.Is(err, errNoLeader) {
		return picture{}, err
	}
	state, err = savedState(ctx, b)
	return picture{state, false}, err
}

// picture connects, looks once, and says on standard error where no leader answers.
func (a *app) picture(cmd *cobra.Command) (picture, error) {
	ctx, cancel := a.within(cmd.Context())
	defer cancel()
	b, done, err := a.bus(ctx, a.shortLog(cmd))
	if err != nil {
		return picture{}, err
	}
	defer done()
	p, err := a.look(ctx, b)
	if err == nil {
		p.note(cmd)
	}
	return p, err
}

// note says on standard error that no leader answers.
func (p picture) note(cmd *cobra.Command) {
	if !p.Live {
		notef(cmd, "no coordinator answers: what was saved last is shown, and how things are now is not known; start one with `fleetbus up` or `fleetbus coordinator`\n")
	}
}

// stateUnknown stands for the state of an agent or a replica where no leader judges it.
const stateUnknown = "unknown"

// savedState puts together what the buckets keep of the fleet.
func savedState(ctx context.Context, b *bus.Bus) (*messages.State, error) {
	desired, err := coordinator.ReadDesired(ctx, b)
	if err != nil {
		return nil, err
	}
	registered, err := coordinator.Registrations(ctx, b)
	if err != nil {
		return nil, err
	}
	routes, err := savedRoutes(ctx, b)
	if err != nil {
		return nil, err
	}
	s := &messages.State{Settings: desired.Settings, Tasks: desired.Tasks}
	for _, id := range slices.Sorted(maps.Keys(registered)) {
		g := messages.AgentInfo{Environment: registered[id].Environment, State: stateUnknown}
		g.Drain = slices.ContainsFunc(desired.Drains, func(d messages.DrainEntry) bool { return d.Agent == id })
		s.Agents = append(s.Agents, g)
	}
	if routes == nil {
		return s, nil
	}
	s.Term = routes.Term
	for _, t := range routes.Tasks {
		for _, r := range t.Replicas {
			s.Replicas = append(s.Replicas, messages.ReplicaInfo{
				ID: r.ID, Task: t.Task.Name, Agent: r.Agent, Tier: r.Tier, State: r.State, Delay: r.Delay,
			})
		}
		if t.Waiting != "" {
			s.Replicas = append(s.Replicas, messages.ReplicaInfo{
				ID: messages.ReplicaID(t.Task.Name, "?"), Task: t.Task.Name, State: messages.ReplicaPending, Reason: t.Waiting,
			})
		}
	}
	return s, nil
}
