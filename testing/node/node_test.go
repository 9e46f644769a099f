package node

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// answer is what client.mjs prints of one request.
type answer struct {
	ID, Agent, Attempt, Type, Job string
	Body                          []byte
	Error, Message                string
	Bytes                         int
}

// machines is a fleet of one machine a tier.
func machines() []messages.Environment {
	return []messages.Environment{
		{ID: "cloud-1", Tier: messages.Cloud, Capacity: messages.Resources{Compute: 1000, Storage: 10_000, Network: 1000}, Latency: 50, Price: 10},
		{ID: "edge-1", Tier: messages.Edge, Capacity: messages.Resources{Compute: 100, Storage: 1000, Network: 100}, Latency: 10, Price: 5},
		{ID: robot, Tier: messages.Robot, Capacity: messages.Resources{Compute: 10, Storage: 100, Network: 10}, Latency: 1, Price: 1},
	}
}

// wanted are the tasks of the fleet, each on one tier.
func wanted() []messages.Task {
	return []messages.Task{
		{Name: "learn", Class: messages.Training, Demand: messages.Resources{Compute: 500}, Tiers: []messages.Tier{messages.Cloud}},
		{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Tiers: []messages.Tier{messages.Edge}},
		{Name: "describe", Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Tiers: []messages.Tier{messages.Edge}},
		{Name: "broken", Class: messages.Inference, Demand: messages.Resources{Compute: 10}, Tiers: []messages.Tier{messages.Edge}, MaxAttempts: 1},
		{Name: "move", Class: messages.Action, Demand: messages.Resources{Compute: 1}, Per: messages.PerRobot},
	}
}

// startFleet runs a coordinator, a router and an agent a tier in this process, and
// returns when every task has a ready replica.
func startFleet(t *testing.T, s *natstest.Server) {
	t.Helper()
	b, err := bus.New(s.Connect(t), fleet, 1)
	must(t, err)
	desired, err := b.KV(within(t), bus.Desired)
	must(t, err)
	for _, task := range wanted() {
		data, err := messages.Encode(&messages.TaskEntry{Task: task})
		must(t, err)
		_, err = desired.Put(within(t), bus.KeyTask+task.Name, data)
		must(t, err)
	}
	begin(t, "coordinator", coordinator.New(s.Connect(t), coordinator.Config{Fleet: fleet, ID: "coordinator-1", Logger: silent}).Run)
	service := router.NewService(s.Connect(t), router.Config{Fleet: fleet, Logger: silent})
	begin(t, "router", service.Run)
	for _, env := range machines() {
		begin(t, env.ID, agent.New(s.Connect(t), agent.Config{Fleet: fleet, Environment: env, HandoverWait: -1, Logger: silent},
			agent.Func("learn", reversed), agent.Func("detect", reversed), agent.Func("move", reversed),
			agent.Func("describe", described),
			agent.Func("broken", func(context.Context, *agent.Request) ([]byte, error) { return nil, errors.New("the lens is dirty") }),
		).Run)
	}
	natstest.Eventually(t, patience, "a ready replica of every task", func() bool {
		routes := service.Client().Routes()
		for _, task := range wanted() {
			r, _ := routes.Find(task.Name)
			if !slices.ContainsFunc(r.Replicas, func(e messages.Route) bool { return e.State == messages.ReplicaReady }) {
				return false
			}
		}
		return true
	})
}

// described answers in two parts and a whole.
func described(_ context.Context, r *agent.Request) ([]byte, error) {
	for _, part := range []string{"a wrench", " on a table"} {
		if err := r.Partial([]byte(part), "text/plain"); err != nil {
			return nil, err
		}
	}
	return []byte("a wrench on a table"), nil
}

// message is one of those that come back to a streamed request.
type message struct {
	Kind, Part, Done, Note, Error string
	Body                          []byte
}

func TestNodeClient(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is not installed: run `make deps`")
	}
	if _, err := os.Stat("node_modules/@nats-io/transport-node"); err != nil {
		t.Fatal("the packages of testing/node are not installed: run `make deps`")
	}
	s := natstest.Start(t)
	startFleet(t, s)

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "client.mjs", s.URL(), fleet)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("node client.mjs: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("node client.mjs: %v", err)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	one := func(name string) (a answer) {
		if err := json.Unmarshal(got[name], &a); err != nil {
			t.Errorf("%s: %v in %s", name, err, got[name])
		}
		return a
	}

	body := make([]byte, 256)
	for i := range body {
		body[i] = byte(255 - i) // the request, backwards
	}
	if a := one("inference"); !slices.Equal(a.Body, body) || a.Agent != "edge-1" || a.Attempt != "1" || a.ID != "node-1" || a.Type != "image/raw" || a.Error != "" {
		t.Errorf("inference: %+v", a)
	}
	if a := one("action"); !slices.Equal(a.Body, body) || a.Agent != robot || a.Error != "" {
		t.Errorf("action: %+v", a)
	}
	first, second := one("training"), one("resubmitted")
	if first.Job == "" || string(first.Body) != first.Job || first.Error != "" {
		t.Errorf("training: %+v", first)
	}
	if second.Job != first.Job {
		t.Errorf("the same key named another job: %+v, then %+v", first, second)
	}
	for name, code := range map[string]messages.Code{
		"again": messages.CodeStale, "absent": messages.CodeNotConnected, "unknown": messages.CodeNotFound,
		"failed": messages.CodeBackendFailed, "malformed": messages.CodeBadRequest,
	} {
		a := one(name)
		if a.Error != string(code) || a.Message == "" || a.Bytes != 0 {
			t.Errorf("%s: %+v, want an error with code %s and an empty body", name, a, code)
		}
	}
	for name, want := range map[string][]string{
		"streamed":       {"progress 1 a wrench", "progress 2  on a table", "result 2 a wrench on a table"},
		"streamedAction": {"result  " + string(body)},
		"streamedError":  {"result  not_found"},
	} {
		var all []message
		if err := json.Unmarshal(got[name], &all); err != nil {
			t.Fatalf("%s: %v in %s", name, err, got[name])
		}
		var heard []string
		for _, m := range all {
			heard = append(heard, m.Kind+" "+m.Part+" "+string(m.Body)+m.Error)
		}
		if !slices.Equal(heard, want) {
			t.Errorf("%s: %q, want %q", name, heard, want)
		}
	}
	if string(got["nobody"]) != `"no responders"` {
		t.Errorf("a fleet that does not exist: %s", got["nobody"])
	}
}
