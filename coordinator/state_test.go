package coordinator

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// The state of a large fleet does not fit into one message.
func TestStateInParts(t *testing.T) {
	t.Parallel()
	for _, agents := range []int{0, 1, 5_000} {
		s := messages.State{Leader: "c1", Term: messages.Term{Epoch: 1, Revision: 2}, Settings: messages.DefaultSettings(), Bad: messages.Counts{"hb": 1}}
		for i := range agents {
			s.Agents = append(s.Agents, messages.AgentInfo{Environment: edge(fmt.Sprintf("edge-%05d", i)).Normal(), State: messages.AgentReady})
		}
		for i := range agents / 7 {
			s.Replicas = append(s.Replicas, messages.ReplicaInfo{ID: fmt.Sprintf("see/%d", i), Task: "see", State: messages.ReplicaReady, Status: messages.ReplicaStatus{ID: fmt.Sprintf("see/%d", i), State: messages.ReplicaReady}})
		}
		srv := natstest.Start(t)
		b := newBus(t, srv.Connect(t))
		c := New(srv.Connect(t), Config{Fleet: "test", ID: "c1"})
		if _, err := c.nc.Subscribe(StateSubject("test"), func(m *nats.Msg) { c.sendState(m.Reply, s) }); err != nil {
			t.Fatal(err)
		}
		natstest.Eventually(t, within, "the subscription", func() bool { return c.nc.Flush() == nil })
		got, err := ReadState(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		got.Settings.V, s.Settings.V, got.V, got.Bad, s.Bad = 0, 0, 0, nil, nil
		if !reflect.DeepEqual(got, s) {
			t.Errorf("%d agents: got %d agents, %d replicas, leader %q", agents, len(got.Agents), len(got.Replicas), got.Leader)
		}
	}
}

// Who asks a leader that is just leaving is told so, as if nobody were there.
func TestStateOfOneWhoLeaves(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	b := newBus(t, srv.Connect(t))
	c := New(srv.Connect(t), Config{Fleet: "test", ID: "c1"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, answer := range []func(context.Context) (func(), error){c.answerState, c.answerExplain} {
		stop, err := answer(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	natstest.Eventually(t, within, "the subscriptions", func() bool { return c.nc.Flush() == nil })
	begin := time.Now()
	if _, err := ReadState(t.Context(), b); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	if _, err := Explain(t.Context(), b, "detect"); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took >= stateTimeout {
		t.Errorf("it took %v to be told", took)
	}
}

// Somebody who answers that there are more parts than come does not hold the asker up.
func TestStateOfALiar(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Connect(t)
	b := newBus(t, srv.Connect(t))
	if _, err := nc.Subscribe(StateSubject("test"), func(m *nats.Msg) {
		s := messages.State{Leader: "liar", Settings: messages.DefaultSettings()}
		data, _ := messages.Encode(&s)
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Data: data, Header: nats.Header{messages.HeaderParts: []string{"3"}}})
	}); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, within, "the subscription", func() bool { return nc.Flush() == nil })
	if _, err := ReadState(t.Context(), b); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("got %v", err)
	}
}
