package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// The template of an agent lets it hold data and carry mail, also to other sites; that of a
// program lets it write and read through its agent.
func TestTemplatesAreEnoughForExchange(t *testing.T) {
	s := guarded(t)
	nc := connect(t, s, "admin", "admin", nil)
	admin, err := bus.New(nc, fleet, 1)
	must(t, err)
	for _, b := range bus.Buckets() {
		_, err := admin.KV(within(t), b)
		must(t, err)
	}
	for _, where := range []string{site, "hall-2"} {
		must(t, admin.Mail(within(t), where))
	}
	agents, err := admin.KV(within(t), bus.Agents)
	must(t, err)
	for name, where := range map[string]string{robot: site, "robot-2": site, "robot-3": "hall-2"} {
		text, err := messages.Encode(&messages.Registration{Environment: messages.Environment{ID: name, Tier: messages.Robot, Site: where}})
		must(t, err)
		_, err = agents.Put(within(t), name, text)
		must(t, err)
	}

	dir := t.TempDir()
	env := messages.Environment{ID: robot, Tier: messages.Robot}
	begin(t, "holder", data.NewHolder(connect(t, s, "agent", robot, nil), data.HolderConfig{Fleet: fleet, Environment: env, Dir: dir, Every: 100 * time.Millisecond, Logger: silent}).Run)
	_, err = admin.Bodies(within(t))
	must(t, err)
	writes, err := bus.New(connect(t, s, "writer", "lab", nil), fleet, 1)
	must(t, err)
	store := data.NewStore(writes)
	for _, body := range []string{"one", "another"} {
		_, err = store.Put(within(t), data.Body{Name: "map"}, strings.NewReader(body))
		must(t, err)
		natstest.Eventually(t, patience, "the map", func() bool {
			text, err := os.ReadFile(filepath.Join(dir, "map"))
			return err == nil && string(text) == body
		})
	}
	acked := func(n int) {
		t.Helper()
		natstest.Eventually(t, patience, "what it acknowledges", func() bool {
			_, lines, err := store.Status(within(t), "map")
			must(t, err)
			synced := 0
			for _, l := range lines {
				if l.State == "synced" {
					synced++
				}
			}
			return synced == n
		})
	}
	acked(1)
	if _, err := store.Get(within(t), "map", new(bytes.Buffer)); err != nil {
		t.Error(err)
	}
	_, err = store.Remove(within(t), "map", nil, "")
	must(t, err)
	natstest.Eventually(t, patience, "the map to go", func() bool {
		_, err := os.Stat(filepath.Join(dir, "map"))
		return os.IsNotExist(err)
	})

	peer := mail.New(connect(t, s, "agent", robot, nil), mail.Config{Fleet: fleet, Name: robot, Programs: true, Logger: silent})
	begin(t, "mail", peer.Run)
	other := mail.New(connect(t, s, "admin", "two", nil), mail.Config{Fleet: fleet, Name: "robot-2", Programs: true, Logger: silent})
	begin(t, "other mail", other.Run)
	must(t, peer.Ready(within(t)))
	must(t, other.Ready(within(t)))
	for _, to := range []string{"robot-2", "robot-3"} {
		r, err := peer.Send(within(t), mail.Letter{To: to, Body: []byte("hello")})
		must(t, err)
		if r.State != messages.MailWaiting {
			t.Errorf("nobody reads, and %+v", r)
		}
		if r, err = peer.Status(within(t), r); err != nil || r.State != messages.MailWaiting {
			t.Errorf("%+v %v", r, err)
		}
	}
	r, err := other.Send(within(t), mail.Letter{To: robot, Body: []byte("waits")})
	must(t, err)
	program := connect(t, s, "program", robot, nil)
	read, err := program.SubscribeSync("fb." + fleet + "." + site + ".mail.read." + robot + ".*")
	must(t, err)
	m, err := read.NextMsgWithContext(within(t))
	must(t, err)
	must(t, m.Respond(nil))
	if string(m.Data) != "waits" {
		t.Errorf("read %q", m.Data)
	}
	if r, err = other.Wait(within(t), r); err != nil || r.State != messages.MailDelivered {
		t.Errorf("%+v %v", r, err)
	}
	answer, err := program.RequestMsgWithContext(within(t), &nats.Msg{Subject: "fb." + fleet + "." + site + ".mail.post." + robot + ".robot-2", Data: []byte("from a program")})
	if err != nil || answer.Header.Get("Fb-Kind") != "waiting" {
		t.Errorf("%v %v", answer, err)
	}
}

// One robot can neither read another's mail, nor throw it away, nor write as another; nor
// say what another holds.
func TestTemplatesAreNotTooMuchForExchange(t *testing.T) {
	s := guarded(t)
	for _, tc := range []struct{ user, what, subject string }{
		{"agent", "publish", "fb.demo.main.mail.now.robot-2.robot-3"},
		{"agent", "publish", "fb.demo.main.mail.box.robot-2.robot-3"},
		{"agent", "publish", "fb.demo.main.mail.done.robot-2.robot-1.a1"},
		{"agent", "publish", "fb.demo.main.mail.life.robot-2"},
		{"agent", "publish", "fb.demo.main.mail.read.robot-2.robot-3"},
		{"agent", "publish", "fb.demo.main.mail.post.robot-2.robot-3"},
		{"agent", "publish", "$JS.API.CONSUMER.CREATE.FB__demo__main__mail.robot-1.fb.demo.main.mail.box.robot-2.*"},
		{"agent", "publish", "$JS.API.CONSUMER.CREATE.FB__demo__main__mail.robot-2.fb.demo.main.mail.box.robot-2.*"},
		{"agent", "publish", "$JS.API.CONSUMER.CREATE.FB__demo__main__mail"},
		{"agent", "publish", "$JS.API.CONSUMER.DELETE.FB__demo__main__mail.robot-2"},
		{"agent", "publish", "$JS.API.CONSUMER.MSG.NEXT.FB__demo__main__mail.robot-2"},
		{"agent", "publish", "$JS.ACK.FB__demo__main__mail.robot-2.1.1.1.1.0"},
		{"agent", "publish", "$JS.API.STREAM.MSG.GET.FB__demo__main__mail"},
		{"agent", "publish", "$JS.API.STREAM.MSG.DELETE.FB__demo__main__mail"},
		{"agent", "publish", "$JS.API.STREAM.PURGE.FB__demo__main__mail"},
		{"agent", "publish", "$JS.API.DIRECT.GET.FB__demo__main__mailed.fb.demo.main.mail.done.robot-2.robot-3.a1"},
		{"agent", "publish", "$KV.fb__demo__acks.robot-2.map"},
		{"agent", "publish", "$KV.fb__demo__data.map"},
		{"agent", "publish", "$O.fb__demo__bodies.C.x1"},
		{"agent", "publish", "fb.demo._fleet.data"},
		{"agent", "subscribe", "fb.demo.main.mail.now.robot-2.*"},
		{"agent", "subscribe", "fb.demo.main.mail.box.*.*"},
		{"agent", "subscribe", "fb.demo.main.mail.read.robot-2.*"},
		{"agent", "subscribe", "fb.demo.main.mail.post.robot-2.*"},
		{"agent", "subscribe", "fb.demo.main.mail.done.*.robot-2.*"},
		{"program", "publish", "fb.demo.main.mail.now.robot-2.robot-1"},
		{"program", "publish", "fb.demo.main.mail.post.robot-2.robot-1"},
		{"program", "subscribe", "fb.demo.main.mail.read.robot-2.*"},
		{"client", "publish", "fb.demo.main.mail.post.robot-1.robot-2"},
		{"writer", "publish", "$KV.fb__demo__acks.robot-1.map"},
		{"writer", "publish", "$KV.fb__demo__desired.task.detect"},
		{"client", "publish", "$KV.fb__demo__data.map"},
	} {
		refused := make(chan struct{}, 8)
		nc := connect(t, s, tc.user, robot, func(error) { refused <- struct{}{} })
		if tc.what == "publish" {
			must(t, nc.Publish(tc.subject, nil))
		} else {
			_, err := nc.SubscribeSync(tc.subject)
			must(t, err)
		}
		must(t, nc.FlushTimeout(patience))
		select {
		case <-refused:
		case <-time.After(time.Second):
			t.Errorf("%s may %s %s", tc.user, tc.what, tc.subject)
		}
		nc.Close()
	}
}
