package agent_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// lockedBuffer is a buffer that many goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestGarbageOnEverySubject: malformed messages are counted by kind, logged once, and
// do no harm.
func TestGarbageOnEverySubject(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var log lockedBuffer
	// What lies in the buckets may be garbage too.
	kv, err := g.bus.KV(g.ctx(), bus.Placements)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(g.ctx(), "edge", []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	p := g.run("edge", func(c *agent.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }, echo("detect"), echo("fit"))
	g.place("edge", inference("detect"), training("fit"))

	c := g.caller("robot")
	subject := func(kind messages.Kind, class messages.Class, task string) string {
		s := g.bus.Subject(kind, site)
		s.Agent, s.Origin, s.Task, s.Class, s.ID, s.Priority = "edge", "robot", task, class, "x", messages.Normal
		return s.String()
	}
	spoofed := c.request(messages.Inference, "detect")
	spoofed.Origin = "somebody"
	otherTask := c.request(messages.Inference, "other")
	stranger := g.document("stranger", nil)
	strange, err := messages.Encode(stranger)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]int{"place": 1} // the one in the bucket
	send := func(kind, subject string, header messages.Header, data string) {
		t.Helper()
		sent[kind]++
		if err := g.nc.PublishMsg(&nats.Msg{Subject: subject, Header: nats.Header(header), Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, data := range []string{"", "garbage", "\xc0", "\x80", "\x81\xa1v\x01"} {
		send("place", subject(messages.KindPlace, "", ""), nil, data)
		send("claim", subject(messages.KindClaim, "", ""), nil, data)
	}
	for _, data := range []string{"", "garbage", "\x80"} {
		send("probe", subject(messages.KindProbe, "", ""), nil, data)
		send("cancel", subject(messages.KindCancel, "", ""), nil, data)
	}
	send("place", subject(messages.KindPlace, "", ""), nil, string(strange))
	send("do", subject(messages.KindDo, "", "detect"), nil, "")
	send("do", subject(messages.KindDo, "", "detect"), spoofed.Header(), "")
	send("do", subject(messages.KindDo, "", "detect"), messages.Header{messages.HeaderID: {"a", "b"}}, "")
	for _, s := range []struct {
		subject string
		header  messages.Header
	}{
		{subject(messages.KindWork, messages.Inference, "detect"), nil},
		{subject(messages.KindWork, messages.Inference, "detect"), spoofed.Header()},
		{subject(messages.KindWork, messages.Inference, "detect"), otherTask.Header()},
		{subject(messages.KindWork, messages.Inference, "detect") + ".more.tokens", nil},
		{subject(messages.KindJob, "", "fit"), otherTask.Header()},
	} {
		sent["q"]++
		// With a confirmation: the stream keeps one message per subject.
		if _, err := g.bus.JS.PublishMsg(g.ctx(), &nats.Msg{Subject: s.subject, Header: nats.Header(s.header)}); err != nil {
			t.Fatal(err)
		}
		natstest.Eventually(t, patience, "the message to leave the queue", func() bool { return p.a.Counts()["q"] == sent["q"] })
	}
	badRecord := c.request(messages.Training, "fit")
	jobs, err := g.bus.KV(g.ctx(), bus.Jobs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jobs.Put(g.ctx(), badRecord.ID, []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	sent["job"]++
	c.queue(badRecord, "")
	g.queueIsEmpty()

	natstest.Eventually(t, patience, "everything to be counted", func() bool {
		counts := p.a.Counts()
		for kind, n := range sent {
			if counts[kind] != n {
				return false
			}
		}
		return true
	})
	for kind := range sent {
		if n := strings.Count(log.String(), "malformed message dropped\" agent=edge kind="+kind+" "); n != 1 {
			t.Errorf("%d lines about %s in the log, want 1", n, kind)
		}
	}
	// A sender that gives its id and waits is told what was wrong.
	bad := c.request(messages.Inference, "detect")
	bad.Attempt = 0
	if r := c.do("edge", bad, ""); messages.CodeOf(asError(r.Err)) != messages.CodeBadRequest || !strings.Contains(r.Err.Message, messages.HeaderAttempt) {
		t.Errorf("%+v", r)
	}
	c.queue(c.request(messages.Inference, "detect"), "still serves")
	c.result().want(t, "", "still serves")
}
