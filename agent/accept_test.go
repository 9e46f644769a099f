package agent_test

import (
	"context"
	"errors"
	"testing"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
)

// A quick inference is one message, its result; one that goes on is accepted before it,
// and so is every error of a handler, straight or out of the queue.
func TestAcceptedWhereItGoesOn(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	at := newGate()
	g.run("edge", nil, agent.Func("detect", func(_ context.Context, r *agent.Request) ([]byte, error) {
		switch string(r.Body) {
		case "slow":
			at.entered <- r
			return []byte(<-at.open), nil
		case "bad":
			return nil, errors.New("no GPU")
		case "busy":
			return nil, messages.Errorf(messages.CodeBusy, "the model is")
		}
		return r.Body, nil
	}))
	g.place("edge", inference("detect"))
	c := g.caller("robot")
	for range 5 {
		if r := c.do("edge", c.request(messages.Inference, "detect"), "quick"); r.Kind != messages.ReplyResult {
			// It may be slow on a busy machine, but then it has been accepted after 5 ms.
			t.Logf("the first word is %s", r.Kind)
		}
		c.result().want(t, "", "quick")
	}
	if r := c.do("edge", c.request(messages.Inference, "detect"), "slow"); r.Kind != messages.ReplyAccepted || r.Agent != "edge" {
		t.Errorf("the first word on a slow one: %+v", r)
	}
	at.open <- "done"
	c.result().want(t, "", "done")
	for _, body := range []string{"bad", "busy"} {
		if r := c.do("edge", c.request(messages.Inference, "detect"), body); r.Kind != messages.ReplyAccepted {
			t.Errorf("the first word on one that fails: %+v", r)
		}
		if a := c.result(); a.Err == nil {
			t.Errorf("%+v", a)
		}
		c.queue(c.request(messages.Inference, "detect"), body)
		if a := <-c.replies; a.Kind != messages.ReplyAccepted {
			t.Errorf("the first word on a queued one that fails: %+v", a)
		}
		c.result()
	}
	c.queue(c.request(messages.Inference, "detect"), "slow")
	c.next(messages.ReplyAccepted)
	at.open <- "done"
	c.result().want(t, "", "done")
}
