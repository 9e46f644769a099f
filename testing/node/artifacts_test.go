package node

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/deploy"
	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/internal/artifact"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// The template of a writer of artifacts is enough for `fleetbus artifacts`, that of an agent
// for what tasks bring, that of a reader of logs for `fleetbus logs`.
func TestTemplatesAreEnoughForArtifacts(t *testing.T) {
	s := guarded(t)
	admin, err := bus.New(connect(t, s, "admin", "admin", nil), fleet, 1)
	must(t, err)
	for _, b := range bus.Buckets() {
		_, err := admin.KV(within(t), b)
		must(t, err)
	}
	_, err = admin.Objects(within(t), bus.Artifacts)
	must(t, err)
	must(t, admin.TaskLogs(within(t)))

	writer, err := bus.New(connect(t, s, "artifacts", "lab", nil), fleet, 1)
	must(t, err)
	script := []byte("#!/bin/sh\necho listens\nexec cat\n")
	pushed, there, err := artifact.Push(within(t), writer, "serve.sh", "lab", bytes.NewReader(script), nil)
	if err != nil || there {
		t.Fatal(there, err)
	}
	if _, there, err = artifact.Push(within(t), writer, "serve.sh", "lab", struct{ *bytes.Buffer }{bytes.NewBuffer(script)}, nil); err != nil || !there {
		t.Errorf("again, from a pipe: %v %v", there, err)
	}
	if list, err := artifact.List(within(t), writer); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	if _, err := coordinator.ReadDesired(within(t), writer); err != nil {
		t.Error(err)
	}
	killed, err := writer.NewUpload(bus.Artifacts)
	must(t, err)
	for range 20 { // more than are on their way at once
		must(t, killed.Write(within(t), []byte("x")))
	}
	if n, _, err := artifact.RemoveUnfinished(within(t), writer, 0); n != 1 || err != nil {
		t.Errorf("of a push that was killed: %d, %v", n, err)
	}

	nc := connect(t, s, "agent", robot, nil)
	d, err := deploy.New(nc, deploy.Options{Fleet: fleet, Site: site, Agent: robot, Dir: t.TempDir(), Replicas: 1, Logger: silent})
	must(t, err)
	t.Cleanup(d.Close)
	task := messages.Task{Name: "grasp", Class: messages.Inference, Run: &messages.Run{
		Artifact: pushed.Digest, Command: []string{"{artifact}"}, Serve: messages.ServeHTTP, URL: "http://127.0.0.1:{port}/", ReadyTimeout: 1000,
	}}
	env := messages.Environment{ID: robot, Tier: messages.Robot}
	// It is fetched and started, and says something; it is no server.
	if _, err = d.Open(within(t), backend.Open{Replica: "grasp/0", Task: task, Environment: env}); err == nil || !strings.Contains(err.Error(), "its last line: listens") {
		t.Error(err)
	}

	reader := connect(t, s, "logs", "lab", nil)
	logs, err := bus.New(reader, fleet, 1)
	must(t, err)
	must(t, logs.TaskLogs(within(t)))
	natstest.Eventually(t, patience, "what it said", func() bool {
		consumer, err := logs.JS.OrderedConsumer(within(t), bus.TaskLogStreamName(fleet), jetstream.OrderedConsumerConfig{FilterSubjects: []string{"fb." + fleet + ".*.tasklog.*.grasp.*"}})
		must(t, err)
		text := ""
		for {
			m, err := consumer.Next(jetstream.FetchMaxWait(time.Second))
			if err != nil {
				break
			}
			text += string(m.Data())
			if meta, err := m.Metadata(); err != nil || meta.NumPending == 0 {
				break
			}
		}
		return strings.Contains(text, "[fleetbus] starts ") && strings.Contains(text, "listens\n")
	})

	must(t, artifact.Remove(within(t), writer, pushed))
	if list, err := artifact.List(within(t), admin); err != nil || len(list) != 0 {
		t.Errorf("removed, and %v %v", list, err)
	}
}

// An agent writes no artifact and no other's log; who writes artifacts changes no task, and
// who reads logs writes none.
func TestTemplatesAreNotTooMuchForArtifacts(t *testing.T) {
	s := guarded(t)
	for _, tc := range []struct{ user, what, subject string }{
		{"agent", "publish", "$O.fb__demo__artifacts.M.abc"},
		{"agent", "publish", "$O.fb__demo__artifacts.C.abc"},
		{"agent", "publish", "$JS.API.STREAM.PURGE.OBJ_fb__demo__artifacts"},
		{"agent", "publish", "$JS.API.STREAM.DELETE.OBJ_fb__demo__artifacts"},
		{"agent", "publish", "$JS.API.STREAM.MSG.DELETE.OBJ_fb__demo__artifacts"},
		{"agent", "publish", "fb.demo.main.tasklog.robot-2.grasp.0"},
		{"agent", "publish", "$JS.API.CONSUMER.CREATE.FB__demo__tasklogs.x"},
		{"agent", "subscribe", "fb.demo.main.tasklog.robot-2.*.*"},
		{"agent", "publish", "$KV.fb__demo__desired.task.grasp"},
		{"artifacts", "publish", "$KV.fb__demo__desired.task.grasp"},
		{"artifacts", "publish", "$KV.fb__demo__placements.robot-1"},
		{"artifacts", "publish", "$O.fb__demo__bodies.C.abc"},
		{"artifacts", "publish", "$O.fb__demo__checkpoints.C.abc"},
		{"artifacts", "publish", "$JS.API.STREAM.DELETE.OBJ_fb__demo__artifacts"},
		{"artifacts", "publish", "$JS.API.STREAM.PURGE.KV_fb__demo__desired"},
		{"artifacts", "publish", "fb.demo.main.tasklog.robot-1.grasp.0"},
		{"artifacts", "publish", "$JS.API.CONSUMER.CREATE.OBJ_fb__demo__artifacts.x"},
		{"logs", "publish", "fb.demo.main.tasklog.robot-1.grasp.0"},
		{"logs", "publish", "$JS.API.STREAM.PURGE.FB__demo__tasklogs"},
		{"logs", "publish", "$JS.API.STREAM.MSG.DELETE.FB__demo__tasklogs"},
		{"logs", "publish", "$JS.API.CONSUMER.CREATE.KV_fb__demo__desired.x"},
		{"client", "publish", "$O.fb__demo__artifacts.M.abc"},
		{"straight", "publish", "$JS.API.DIRECT.GET.OBJ_fb__demo__artifacts"},
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
