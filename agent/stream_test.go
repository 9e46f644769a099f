package agent_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
)

// Partial results come in order before the result, to those who ask for them, by the
// queue and straight, of an inference and of an action; nothing comes after the result.
func TestPartialResults(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	kept := make(chan *agent.Request, 10)
	talk := func(name string) agent.Handler {
		return agent.Func(name, func(_ context.Context, r *agent.Request) ([]byte, error) {
			for i := range 3 {
				if err := r.Partial(fmt.Append(nil, "part ", i), "text/x"); err != nil {
					t.Error(err)
				}
			}
			if r.Stream {
				if err := r.Partial(make([]byte, 9<<20), ""); messages.CodeOf(err) != messages.CodePayloadTooLarge {
					t.Errorf("9 MB: %v", err)
				}
			}
			kept <- r
			return []byte("whole"), nil
		})
	}
	g.run("arm", robot(nil), talk("say"), talk("move"))
	inc := g.alive("arm")
	g.place("arm", inference("say"), action("move"))
	c := g.caller("lab")

	drain := func(stream bool) {
		t.Helper()
		n := 0
		for a := range c.replies {
			switch a.Kind {
			case messages.ReplyProgress:
				if n++; a.Part != n || string(a.body) != fmt.Sprint("part ", n-1) || a.ContentType != "text/x" {
					t.Fatalf("%+v %q", a.Reply, a.body)
				}
				continue
			case messages.ReplyAccepted:
				continue
			}
			want := 0
			if stream {
				want = 3
			}
			if a.want(t, "", "whole"); n != want || a.Part != want {
				t.Fatalf("%d parts, the result says %d, want %d", n, a.Part, want)
			}
			break
		}
		r := <-kept
		if err := r.Partial(nil, ""); stream && messages.CodeOf(err) != messages.CodeConflict || !stream && err != nil {
			t.Errorf("after the result: %v", err)
		}
	}
	for _, stream := range []bool{true, false} {
		req := c.request(messages.Inference, "say")
		req.Stream = stream
		c.queue(req, "")
		drain(stream)

		req = c.request(messages.Inference, "say")
		req.Stream = stream
		if r := c.do("arm", req, ""); r.Err != nil {
			t.Fatal(r.Err)
		}
		drain(stream)
	}
	req := c.request(messages.Action, "move")
	req.Stream, req.Episode, req.Seq, req.Inc = true, "e", 1, inc
	if r := c.do("arm", req, ""); r.Err != nil {
		t.Fatal(r.Err)
	}
	drain(true)
}

// Progress is the newest there is, some time later.
func TestProgressOfAnInference(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	h := make(chan struct{})
	g.run("edge", nil, agent.Func("see", func(ctx context.Context, r *agent.Request) ([]byte, error) {
		r.Progress(0.1, "begun")
		r.Progress(0.25, "a quarter")
		select {
		case <-h:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}))
	g.place("edge", inference("see"))
	c := g.caller("lab")
	req := c.request(messages.Inference, "see")
	req.Stream = true
	c.queue(req, "")
	a := c.next(messages.ReplyProgress)
	if a.Done == 100 { // the keeper came between the two
		a = c.next(messages.ReplyProgress)
	}
	if a.Done != 250 || a.Note != "a quarter" || a.Part != 0 || a.ID != req.ID {
		t.Errorf("%+v", a.Reply)
	}
	close(h)
	c.result().want(t, "", "")
}
