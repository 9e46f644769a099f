package agent_test

import (
	"context"
	"sync"
	"testing"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
)

// told is a handler that says how far it is while it opens, and has metadata.
type told struct {
	agent.Server
	note  string
	ready chan struct{}
}

func (h told) Name() string { return "told" }
func (h told) Open(ctx context.Context, o agent.Open) (agent.Server, error) {
	o.Note("%s", h.note)
	<-h.ready
	inner, err := echo("told").Open(ctx, o)
	h.Server = inner
	return h, err
}
func (h told) Describe(context.Context) (agent.Response, error) {
	return agent.Response{Body: []byte("\x81\xa1x"), ContentType: "application/x-msgpack"}, nil
}

// What a handler waits for is in the heartbeat, and gone when it is ready.
func TestLoadingIsTold(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	h := told{note: "waits for http://127.0.0.1:8000: connection refused", ready: make(chan struct{})}
	var once sync.Once
	let := func() { once.Do(func() { close(h.ready) }) }
	defer let()
	g.run("edge", nil, h)
	if ack := g.send(g.document("edge", placed(inference("told")))); ack.Error != "" {
		t.Fatal(ack.Error)
	}
	g.until("the note", func(b *messages.Heartbeat) bool {
		return len(b.Replicas) == 1 && b.Replicas[0].State == messages.ReplicaLoading && b.Replicas[0].Reason == h.note
	})
	let()
	if s := g.replicaIs("edge", "told/0", messages.ReplicaReady); s.Reason != "" {
		t.Errorf("%+v", s)
	}
}

// A request for metadata asks the backend and not its model, straight or through the queue,
// and whoever has none says so.
func TestMetadata(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	h := told{ready: make(chan struct{})}
	close(h.ready)
	g.run("edge", nil, h, echo("plain"))
	g.place("edge", inference("told"), inference("plain"))
	c := g.caller("robot")
	ask := func(task string) messages.Request {
		r := c.request(messages.Inference, task)
		r.ContentType = messages.MetadataType
		return r
	}
	c.queue(ask("told"), "")
	c.result().want(t, "", "\x81\xa1x")
	if r := c.do("edge", ask("told"), ""); r.Err != nil {
		t.Error(r.Err)
	}
	if a := c.result(); string(a.body) != "\x81\xa1x" || a.ContentType != "application/x-msgpack" {
		t.Errorf("%q %+v", a.body, a.Reply)
	}
	c.queue(ask("told"), "an observation")
	c.result().want(t, messages.CodeBadRequest, "")
	c.queue(ask("plain"), "")
	c.result().want(t, messages.CodeBadRequest, "")
	// Nothing was executed.
	g.until("nothing served", func(b *messages.Heartbeat) bool {
		return len(b.Replicas) == 2 && b.Replicas[0].Served+b.Replicas[1].Served == 0
	})
}
