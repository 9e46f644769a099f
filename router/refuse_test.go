package router

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

func TestNewestWins(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	g := f.gate()
	a := f.agent("edge", g.serve).pull("see", 0, 4)
	c := f.client()
	type end struct {
		name string
		ans  *Answer
		err  error
	}
	ends := make(chan end, 10)
	ask := func(name, key string) {
		go func() {
			ans, err := c.Infer(ctxFor(t), Inference{Task: "see", Key: key, Body: []byte(name)})
			ends <- end{name, ans, err}
		}()
	}
	ask("first", "camera")
	first := next(t, "the first", a.began)
	seq := func() uint64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.lastSeq
	}
	before := seq()
	ask("second", "camera")
	natstest.Eventually(t, wait, "the second to wait", func() bool { return seq() > before })
	ask("third", "camera")
	if e := next(t, "an end", ends); e.name != "second" {
		t.Fatalf("got %+v", e)
	} else {
		wantCode(t, e.err, messages.CodeSuperseded)
	}
	ask("other", "lidar")
	if got := next(t, "the other key", a.began); got.Body != "other" {
		t.Fatalf("got %+v", got)
	}
	g.open()
	for range 3 {
		if e := next(t, "an end", ends); e.err != nil {
			t.Fatalf("%s: %v", e.name, e.err)
		}
	}
	if third := next(t, "the third", a.began); third.Body != "third" || third.Seq <= first.Seq {
		t.Fatalf("got %+v after %+v", third, first)
	}
	if a.served() != 3 || c.newest.Len() != 0 {
		t.Fatalf("served %d, %d keys are left", a.served(), c.newest.Len())
	}
}

func TestRefusedBeforeItIsSent(t *testing.T) {
	f := newFleet(t, natstest.MaxPayload(64<<10))
	waiting := messages.TaskRoute{Task: messages.Task{Name: "big", Class: messages.Inference}, Waiting: "edge: compute 50 of 10; add 40 TFLOPS"}
	loading := task(messages.Inference, "new", "edge")
	loading.Replicas[0].State = messages.ReplicaLoading
	f.plan(waiting, task(messages.Training, "learn", "edge"), loading, task(messages.Inference, "see", "edge"))
	a := f.agent("edge", echo).pull("see", 0, 1)
	c := f.client()
	for name, s := range map[string]struct {
		in   Inference
		code messages.Code
		says string
	}{
		"unknown task":  {Inference{Task: "sea"}, messages.CodeNotFound, "known are big, learn, new, see"},
		"bad task":      {Inference{Task: "s.e"}, messages.CodeBadRequest, "allowed"},
		"bad id":        {Inference{Task: "see", ID: "*"}, messages.CodeBadRequest, "allowed"},
		"bad key":       {Inference{Task: "see", Key: "a b"}, messages.CodeBadRequest, "allowed"},
		"another class": {Inference{Task: "learn"}, messages.CodeBadRequest, "Submit"},
		"no room":       {Inference{Task: "big"}, messages.CodeNoCapacity, "add 40 TFLOPS"},
		"loading":       {Inference{Task: "new"}, messages.CodeNotPlaced, "loading"},
		"too large":     {Inference{Task: "see", Body: make([]byte, 64<<10)}, messages.CodePayloadTooLarge, "65536"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Infer(ctxFor(t), s.in)
			wantCode(t, err, s.code)
			if !strings.Contains(err.Error(), s.says) {
				t.Errorf("got %v, want it to say %q", err, s.says)
			}
		})
	}
	// What just fits goes through, and what does not is refused by us, not by NATS.
	fits := 0
	for n := 64<<10 - 600; n < 64<<10; n += 7 {
		body := bytes.Repeat([]byte("x"), n)
		_, err := c.Infer(ctxFor(t), Inference{Task: "see", Body: body})
		if err == nil {
			fits = n
			continue
		}
		wantCode(t, err, messages.CodePayloadTooLarge)
		if !strings.Contains(err.Error(), "the body has") {
			t.Fatal(err)
		}
	}
	if fits == 0 || a.served() == 0 {
		t.Fatal("nothing fits")
	}
}
