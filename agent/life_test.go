package agent_test

import (
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

func TestNewerIncarnationWins(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	older := g.run("edge", func(c *agent.Config) { c.Host = "old-box" }, echo("detect"))
	first := g.alive("edge")
	g.run("edge", func(c *agent.Config) { c.Host = "new-box" }, echo("detect"))
	err := older.wait()
	second := g.until("a new incarnation", func(h *messages.Heartbeat) bool { return h.Inc != first }).Inc
	if messages.CodeOf(err) != messages.CodeConflict {
		t.Fatal(err)
	}
	for _, part := range []string{first.String(), second.String(), "old-box", "new-box"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "detect"), "x")
	c.result().want(t, "", "x")
}

// TestDocumentForANewerIncarnation: the claim was missed; the coordinator knows better.
func TestDocumentForANewerIncarnation(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("edge", nil, echo("detect"))
	inc := g.alive("edge")
	doc := g.document("edge", nil)
	doc.Inc = messages.Incarnation{Epoch: inc.Epoch, Revision: inc.Revision + 1}
	if ack := g.send(doc); ack.Error == "" || ack.Rev != 0 {
		t.Errorf("%+v", ack)
	}
	if err := p.wait(); messages.CodeOf(err) != messages.CodeConflict {
		t.Error(err)
	}
}

// TestServesWithoutACoordinator: the document lies in the bucket, nobody sends it.
func TestServesWithoutACoordinator(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	doc := g.document("edge", placed(inference("detect"), action("grasp")))
	doc.Term = messages.Term{Epoch: 7, Revision: 9}
	g.put(bus.Placements, "edge", doc)
	g.run("edge", nil, echo("detect"), echo("grasp"))
	h := g.until("both replicas", func(h *messages.Heartbeat) bool {
		return len(h.Replicas) == 2 && h.Replicas[0].State == messages.ReplicaReady && h.Replicas[1].State == messages.ReplicaReady
	})
	if h.Term != doc.Term || h.Rev != doc.Rev || h.Capacity != environment("edge").Capacity {
		t.Errorf("%+v", h)
	}
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "detect"), "queued")
	c.result().want(t, "", "queued")
	c.do("edge", c.request(messages.Inference, "detect"), "direct")
	c.result().want(t, "", "direct")
	c.do("edge", c.command(h.Inc, "e", 1), "act")
	c.result().want(t, "", "act")
}

// TestServerRestart: the server comes back without its memory streams; the agent
// announces itself, makes them again and serves.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("detect"))
	inc := g.alive("edge")
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	c.queue(c.request(messages.Inference, "detect"), "before")
	c.result().want(t, "", "before")

	g.s.Restart(t)
	natstest.Eventually(t, patience, "the test to reconnect", g.nc.IsConnected)
	g.bus.Forget()
	for len(g.beats) > 0 {
		<-g.beats
	}
	h := g.until("the agent again", func(h *messages.Heartbeat) bool { return h.Agent == "edge" })
	if h.Inc != inc || len(h.Replicas) != 1 || h.Replicas[0].State != messages.ReplicaReady {
		t.Errorf("%+v", h)
	}
	c.queue(c.request(messages.Inference, "detect"), "after")
	c.result().want(t, "", "after")
	c.do("edge", c.request(messages.Inference, "detect"), "direct")
	c.result().want(t, "", "direct")
}

// TestStreamIsDeleted: the connection stays, stream and consumer go.
func TestStreamIsDeleted(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("detect"))
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	for _, drop := range []func() error{
		func() error { return g.bus.DeleteConsumer(g.ctx(), site, messages.Inference, "detect") },
		func() error {
			return g.bus.JS.DeleteStream(g.ctx(), bus.StreamName(fleet, site, messages.Inference))
		},
	} {
		c.queue(c.request(messages.Inference, "detect"), "x")
		c.result().want(t, "", "x")
		if err := drop(); err != nil {
			t.Fatal(err)
		}
		g.bus.Forget()
	}
	c.queue(c.request(messages.Inference, "detect"), "y")
	c.result().want(t, "", "y")
}

// TestRegistersAgain: the server has lost its storage while the agent was cut off.
func TestRegistersAgain(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("detect"))
	inc := g.alive("edge")
	if err := g.bus.JS.DeleteKeyValue(g.ctx(), bus.BucketName(fleet, bus.Agents)); err != nil {
		t.Fatal(err)
	}
	g.s.Restart(t)
	natstest.Eventually(t, patience, "the test to reconnect", g.nc.IsConnected)
	h := g.until("a newer incarnation", func(h *messages.Heartbeat) bool { return inc.Before(h.Inc) })
	kv, err := g.bus.KV(g.ctx(), bus.Agents)
	if err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(g.ctx(), "edge")
	if err != nil {
		t.Fatal(err)
	}
	var reg messages.Registration
	if err := messages.Decode(e.Value(), &reg); err != nil || reg.Environment.ID != "edge" || reg.Environment.Handlers[0] != "detect" {
		t.Errorf("%+v %v", reg, err)
	}
	if e.Revision() != h.Inc.Revision || kv.Epoch != h.Inc.Epoch {
		t.Errorf("registration %d of %d, heartbeat %s", e.Revision(), kv.Epoch, h.Inc)
	}
}

// TestMissedClaim: another process registered while this one was cut off.
func TestMissedClaim(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("edge", nil, echo("detect"))
	g.alive("edge")
	g.put(bus.Agents, "edge", &messages.Registration{Environment: environment("edge")})
	g.s.Restart(t)
	if err := p.wait(); messages.CodeOf(err) != messages.CodeConflict {
		t.Error(err)
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.run("edge", nil, echo("a"), echo("b"))
	g.alive("edge")
	one := g.document("edge", placed(inference("a")))
	if ack := g.send(one); ack.Error != "" || ack.Rev != one.Rev || ack.Term != one.Term || len(ack.Replicas) != 1 || ack.Agent != "edge" {
		t.Errorf("%+v", ack)
	}
	g.replicaIs("edge", "a/0", messages.ReplicaReady)

	two := g.document("edge", placed(inference("a"), inference("b")))
	g.send(two)
	if ack := g.send(one); ack.Error == "" || ack.Rev != two.Rev || len(ack.Replicas) != 2 {
		t.Errorf("an older document: %+v", ack)
	}
	if ack := g.send(two); ack.Error != "" || ack.Rev != two.Rev {
		t.Errorf("the same again: %+v", ack)
	}
	newTerm := &messages.Placement{Agent: "edge", Term: messages.Term{Epoch: 1, Revision: 2}, Rev: 1, Replicas: placed(inference("a"), inference("b"))}
	newTerm.Replicas[0].Drain = true
	if ack := g.send(newTerm); ack.Error != "" || ack.Rev != 1 {
		t.Errorf("a newer term: %+v", ack)
	}
	g.replicaIs("edge", "a/0", messages.ReplicaStopped)
	if ack := g.send(g.document("edge", nil)); ack.Error == "" {
		t.Error("the old term was accepted")
	}
	newTerm.Rev, newTerm.Replicas[0].Drain = 2, false
	g.send(newTerm)
	g.replicaIs("edge", "a/0", messages.ReplicaReady)
	newTerm.Rev, newTerm.Replicas = 3, nil
	g.send(newTerm)
	g.until("no replicas", func(h *messages.Heartbeat) bool { return h.Rev == 3 && len(h.Replicas) == 0 })
}

// TestChangedServiceIsOpenedAgain: the replica stays, its task has more slots.
func TestChangedServiceIsOpenedAgain(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	g.run("edge", nil, at.handler("a"))
	task := inference("a")
	g.place("edge", task)
	task.Concurrency = 2
	g.send(g.document("edge", placed(task)))
	c := g.caller("robot")
	for range 2 {
		c.queue(c.request(messages.Inference, "a"), "")
	}
	at.in(t)
	at.in(t) // both at once
	at.open <- ""
	at.open <- ""
	c.result()
	c.result()
}
