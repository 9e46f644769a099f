package router

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// A log is read over one consumer, however long it is, and following it ends with its
// context, at once, also while nothing comes.
func TestJobLog(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Training, "learn", "cloud"))
	c := f.client()
	if err := f.bus.JobLogs(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	s := f.bus.Subject(messages.KindJobLog, "main")
	s.ID, s.Agent = "j", "cloud"
	say := func(text string) {
		r := messages.Reply{Kind: messages.ReplyAccepted, ID: "j", Job: "j", Attempt: 2}
		if _, err := f.bus.JS.PublishMsg(ctxFor(t), &nats.Msg{Subject: s.String(), Header: nats.Header(r.Header()), Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	var made atomic.Int64
	watch, err := f.nc.Subscribe("$JS.API.CONSUMER.CREATE.>", func(*nats.Msg) { made.Add(1) })
	if err == nil {
		err = f.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Unsubscribe() }()

	if err := c.JobLog(ctxFor(t), "j", false, func(JobText) { t.Error("it has said nothing") }); err != nil {
		t.Fatal(err)
	}
	var want, got strings.Builder
	for n := range 30 {
		fmt.Fprintf(&want, "%d\n", n)
		say(fmt.Sprintf("%d\n", n))
	}
	if err := c.JobLog(ctxFor(t), "j", false, func(x JobText) {
		if x.Agent != "cloud" || x.Attempt != 2 || x.Time.IsZero() {
			t.Errorf("%+v", x)
		}
		got.WriteString(x.Text)
	}); err != nil || got.String() != want.String() {
		t.Errorf("%q, %v", got.String(), err)
	}

	said := make(chan string, 100)
	ctx, cancel := context.WithCancel(ctxFor(t))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.JobLog(ctx, "j", true, func(x JobText) { said <- x.Text }) }()
	for range 30 {
		next(t, "what was said", said)
	}
	say("more\n")
	if text := next(t, "what is said", said); text != "more\n" {
		t.Errorf("%q", text)
	}
	natstest.Eventually(t, wait, "the consumers to be counted", func() bool { return f.nc.Flush() == nil && made.Load() >= 3 })
	if n := made.Load(); n > 6 {
		t.Errorf("%d consumers were made for three readers", n)
	}
	begun := time.Now()
	cancel()
	if err := next(t, "it to end", done); err != nil || time.Since(begun) > logWait/2 {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	wantCode(t, c.JobLog(ctxFor(t), "a.b", false, nil), messages.CodeBadRequest)
}
