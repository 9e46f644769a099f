package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	fleet = "demo"
	site  = messages.DefaultSite
	robot = "robot-1"
	// patience bounds every wait of these tests: far above what anything takes, so that
	// only a defect reaches it, on a busy machine too.
	patience = 30 * time.Second
	secret   = "only for this test"
)

var silent = slog.New(slog.DiscardHandler)

// template reads a table of rights from docs/protocol.md.
func template(t *testing.T, heading string) *server.Permissions {
	t.Helper()
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "\n### "+heading+"\n")
	if !ok {
		t.Fatalf("docs/protocol.md has no heading %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n#")
	p := &server.Permissions{Publish: &server.SubjectPermission{}, Subscribe: &server.SubjectPermission{}}
	fill := strings.NewReplacer("<fleet>", fleet, "<site>", site, "<agent>", robot, "<origin>", "lab")
	for _, row := range regexp.MustCompile("(?m)^\\| (publish|subscribe) \\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		to := p.Publish
		if row[1] == "subscribe" {
			to = p.Subscribe
		}
		to.Allow = append(to.Allow, fill.Replace(row[2]))
	}
	if len(p.Publish.Allow) == 0 || len(p.Subscribe.Allow) == 0 {
		t.Fatalf("the table of %q has no rights", heading)
	}
	return p
}

// guarded starts a server with a user for each template, and one that may do everything.
func guarded(t *testing.T) *server.Server {
	t.Helper()
	forAgent := template(t, "Of an agent")
	forAgent.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
	client := template(t, "Of a client")
	straight := template(t, "Of a client that does without the router")
	straight.Publish.Allow = append(straight.Publish.Allow, client.Publish.Allow...)
	straight.Subscribe.Allow = append(straight.Subscribe.Allow, client.Subscribe.Allow...)
	operator := template(t, "Of an operator who stops robots")
	writer := template(t, "Of a writer of named data")
	artifacts := template(t, "Of a writer of artifacts")
	logs := template(t, "Of a reader of what processes say")
	program := template(t, "Of a program beside an agent")
	program.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
	s, err := server.NewServer(&server.Options{
		ServerName: "guarded", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{
			{Username: "admin", Password: secret},
			{Username: "agent", Password: secret, Permissions: forAgent},
			{Username: "client", Password: secret, Permissions: client},
			{Username: "straight", Password: secret, Permissions: straight},
			{Username: "operator", Password: secret, Permissions: operator},
			{Username: "writer", Password: secret, Permissions: writer},
			{Username: "artifacts", Password: secret, Permissions: artifacts},
			{Username: "logs", Password: secret, Permissions: logs},
			{Username: "program", Password: secret, Permissions: program},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server did not start")
	}
	return s
}

// connect opens a connection of a user. Whatever the server refuses it is a fault of the
// template, unless the test wants to see it.
func connect(t *testing.T, s *server.Server, user, inbox string, refused func(error)) *nats.Conn {
	t.Helper()
	if refused == nil {
		refused = func(err error) { t.Errorf("%s: %v", user, err) }
	}
	nc, err := bus.Connect(s.ClientURL(), user, nats.UserInfo(user, secret), nats.CustomInboxPrefix("_INBOX_"+inbox),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				refused(err)
			}
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// begin runs something until the test ends.
func begin(t *testing.T, what string, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(patience):
			t.Errorf("%s did not end", what)
		}
	})
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tasks has one task of each class.
func tasks() []messages.Task {
	return []messages.Task{
		{Name: "detect", Class: messages.Inference, Demand: messages.Resources{Compute: 1}},
		{Name: "quick", Class: messages.Inference, Demand: messages.Resources{Compute: 1}, Delivery: messages.Direct},
		{Name: "learn", Class: messages.Training, Demand: messages.Resources{Compute: 1}},
		{Name: "move", Class: messages.Action, Demand: messages.Resources{Compute: 1}, Per: messages.PerRobot},
	}
}

// reversed is what every handler of these tests answers: the request, backwards.
func reversed(_ context.Context, req *agent.Request) ([]byte, error) {
	body := bytes.Clone(req.Body)
	slices.Reverse(body)
	return body, nil
}

// place does what a coordinator would: it writes streams, documents and routes for one
// agent that has registered.
func place(t *testing.T, admin *bus.Bus) {
	t.Helper()
	ctx := within(t)
	for _, class := range []messages.Class{messages.Inference, messages.Training, messages.Action} {
		must(t, admin.Stream(ctx, site, class))
	}
	agents, err := admin.KV(ctx, bus.Agents)
	must(t, err)
	var inc messages.Incarnation
	natstest.Eventually(t, patience, "the agent's registration", func() bool {
		e, err := agents.Get(ctx, robot)
		if err == nil {
			inc = messages.Incarnation{Epoch: agents.Epoch, Revision: e.Revision()}
		}
		return err == nil
	})
	term := messages.Term{Epoch: 1, Revision: 1}
	doc := messages.Placement{Agent: robot, Term: term, Rev: 1, Inc: inc}
	routes := messages.Routes{Term: term, Rev: 1}
	for _, task := range tasks() {
		id := messages.ReplicaID(task.Name, robot)
		doc.Replicas = append(doc.Replicas, messages.PlacedReplica{ID: id, Task: task})
		routes.Tasks = append(routes.Tasks, messages.TaskRoute{Task: task, Replicas: []messages.Route{
			{ID: id, Agent: robot, Inc: inc, Tier: messages.Robot, Site: site, State: messages.ReplicaReady},
		}})
	}
	data, err := messages.Encode(&doc)
	must(t, err)
	subject := admin.Subject(messages.KindPlace, site)
	subject.Agent = robot
	var ack messages.PlacementAck
	natstest.Eventually(t, patience, "the agent's acknowledgement", func() bool {
		m, err := admin.Conn.Request(subject.String(), data, time.Second)
		return err == nil && messages.Decode(m.Data, &ack) == nil
	})
	if ack.Error != "" || ack.Rev != 1 {
		t.Fatalf("the agent answered %+v", ack)
	}
	data, err = messages.Encode(&routes)
	must(t, err)
	kv, err := admin.KV(ctx, bus.RoutesKV)
	must(t, err)
	_, err = kv.Put(ctx, bus.KeyRoutes, data)
	must(t, err)
}

// The templates of docs/protocol.md give an agent and a client everything that they need.
func TestTemplatesAreEnough(t *testing.T) {
	s := guarded(t)
	admin, err := bus.New(connect(t, s, "admin", "admin", nil), fleet, 1)
	must(t, err)
	for _, b := range bus.Buckets() {
		_, err := admin.KV(within(t), b)
		must(t, err)
	}
	for _, class := range []messages.Class{messages.Inference, messages.Training, messages.Action} {
		must(t, admin.Stream(within(t), site, class))
	}
	var handlers []agent.Handler
	for _, task := range tasks() {
		handlers = append(handlers, agent.Func(task.Name, reversed))
	}
	a := agent.New(connect(t, s, "agent", robot, nil), agent.Config{
		Fleet: fleet, Environment: messages.Environment{ID: robot, Tier: messages.Robot, Capacity: messages.Resources{Compute: 100}},
		HandoverWait: -1, Logger: silent,
	}, handlers...)
	begin(t, "agent", a.Run)
	place(t, admin)
	service := router.NewService(connect(t, s, "admin", "router", nil), router.Config{Fleet: fleet, Logger: silent})
	begin(t, "router", service.Run)
	must(t, service.Client().Ready(within(t)))

	t.Run("straight", func(t *testing.T) { straightClient(t, s) })
	t.Run("router", func(t *testing.T) { plainClient(t, s) })
	t.Run("operator", func(t *testing.T) { operatorStops(t, s) })
}

// operatorStops stops and releases, by name and all.
func operatorStops(t *testing.T, s *server.Server) {
	nc := connect(t, s, "operator", "lab", nil)
	for _, o := range []safety.Order{{Robot: robot, Reason: "somebody is in the cell"}, {}} {
		for _, give := range []func(context.Context, *nats.Conn, string, safety.Order) (safety.Report, error){safety.Stop, safety.Release} {
			r, err := give(within(t), nc, fleet, o)
			must(t, err)
			if !r.Done() || len(r.Acks) != 1 || r.Acks[0].Agent != robot {
				t.Errorf("%+v", r)
			}
		}
	}
	admin, err := bus.New(connect(t, s, "admin", "admin", nil), fleet, 1)
	must(t, err)
	natstest.Eventually(t, patience, "the robot to show its latch", func() bool {
		state, err := safety.Read(within(t), admin)
		must(t, err)
		return state.Latches[robot].Own.Fence.Revision > 0 && state.Latches[robot].Why() == ""
	})
}

// straightClient uses the fleet as the Go client does.
func straightClient(t *testing.T, s *server.Server) {
	c := router.NewClient(connect(t, s, "straight", "lab", nil), router.Config{Fleet: fleet, Origin: "lab", Logger: silent})
	begin(t, "client", c.Run)
	ctx := within(t)
	must(t, c.Ready(ctx))
	for _, task := range []string{"detect", "quick"} {
		ans, err := c.Infer(ctx, router.Inference{Task: task, Body: []byte("abc"), Deadline: patience})
		must(t, err)
		if string(ans.Body) != "cba" {
			t.Errorf("%s answered %q", task, ans.Body)
		}
	}
	ans, err := c.Act(ctx, router.Action{Robot: robot, Task: "move", Episode: "straight", Seq: 1, Body: []byte("abc"), Deadline: patience})
	must(t, err)
	if string(ans.Body) != "cba" {
		t.Errorf("move answered %q", ans.Body)
	}
	waitingAction(t, s, c)
	id, err := c.Submit(ctx, router.Job{Task: "learn", Body: []byte("abc")})
	must(t, err)
	natstest.Eventually(t, patience, "the job's end", func() bool {
		job, err := c.Job(ctx, id)
		return err == nil && job.State == messages.GoalSucceeded && string(job.Result) == "cba"
	})
}

// waitingAction puts an action into the journal, as a client does whose robot is away, and
// the robot takes it from there.
func waitingAction(t *testing.T, s *server.Server, c *router.Client) {
	_, err := c.Act(within(t), router.Action{Robot: "robot-9", Task: "move", Episode: "e", Seq: 1, Deadline: patience, Queue: true})
	if messages.CodeOf(err) != messages.CodeNotFound {
		t.Errorf("a robot that never registered: %v", err)
	}
	nc := connect(t, s, "straight", "lab", nil)
	results := make(chan *nats.Msg, 2)
	_, err = nc.ChanSubscribe("fb."+fleet+".*.res.*.lab.waits", results)
	must(t, err)
	js, err := jetstream.New(nc)
	must(t, err)
	req := messages.Request{ID: "waits-1", Class: messages.Action, Task: "move", Origin: "lab", Inbox: "waits", Attempt: 1, Left: patience, Episode: "waits", Seq: 1}
	to := "fb." + fleet + "." + site + ".journal.queued." + robot + ".lab.waits-1"
	_, err = js.PublishMsg(within(t), &nats.Msg{Subject: to, Header: nats.Header(req.Header()), Data: []byte("abc")})
	must(t, err)
	must(t, nc.Publish("fb."+fleet+"."+site+".wake."+robot+".lab", nil))
	for _, want := range []string{"", "cba"} { // accepted, then the result
		select {
		case m := <-results:
			if string(m.Data) != want || m.Header.Get("Fb-Error") != "" {
				t.Errorf("%q %v, want %q", m.Data, m.Header, want)
			}
		case <-within(t).Done():
			t.Fatal("the robot did not take what waits")
		}
	}
}

// plainClient asks the router with nothing but NATS requests.
func plainClient(t *testing.T, s *server.Server) {
	nc := connect(t, s, "client", "lab", nil)
	for _, what := range []string{"req.inference.lab.detect", "req.training.lab.learn", "req.action.lab.robot-1.move"} {
		m := nats.NewMsg("fb." + fleet + "." + site + "." + what)
		m.Data = []byte("abc")
		m.Header = nats.Header{"Fb-Episode": {"plain"}, "Fb-Seq": {"1"}, "Fb-Left-Ms": {"10000"}}
		answer, err := nc.RequestMsg(m, patience)
		must(t, err)
		if code := answer.Header.Get("Fb-Error"); code != "" || len(answer.Data) == 0 {
			t.Errorf("%s: %s %s", what, code, answer.Header.Get("Fb-Error-Message"))
		}
	}
}

// They give no more than that: what would do harm is refused by the server.
func TestTemplatesAreNotTooMuch(t *testing.T) {
	s := guarded(t)
	for _, tc := range []struct{ user, inbox, what, subject string }{
		{"agent", robot, "publish", "fb.demo.main.hb.robot-2"},
		{"agent", robot, "publish", "fb.demo.main.claim.robot-2"},
		{"agent", robot, "publish", "fb.demo.main.res.robot-2.lab.x1"},
		{"agent", robot, "publish", "fb.demo.main.place.robot-2"},
		{"agent", robot, "publish", "fb.demo.main.do.robot-2.lab.move"},
		{"agent", robot, "publish", "fb.demo._fleet.routes"},
		{"agent", robot, "publish", "$KV.fb__demo__agents.robot-2"},
		{"agent", robot, "publish", "$KV.fb__demo__lease.leader"},
		{"agent", robot, "publish", "$KV.fb__demo__placements.robot-1"},
		{"agent", robot, "publish", "$JS.API.STREAM.DELETE.FB__demo__main__inference"},
		{"agent", robot, "subscribe", "fb.demo.main.do.robot-2.lab.move"},
		{"agent", robot, "subscribe", "fb.demo.main.res.*.lab.*"},
		{"agent", robot, "subscribe", "_INBOX_lab.>"},
		{"agent", robot, "subscribe", "fb.demo.>"},
		{"agent", robot, "publish", "fb.demo._fleet.stop.robot-2"},
		{"agent", robot, "publish", "fb.demo._fleet.release.robot-1"},
		{"agent", robot, "publish", "fb.demo._fleet.stopack.robot-2.x1"},
		{"agent", robot, "publish", "$KV.fb__demo__safety.robot.robot-1"},
		{"agent", robot, "publish", "$KV.fb__demo__safety.latch.robot-2"},
		{"agent", robot, "subscribe", "fb.demo._fleet.stop.robot-2"},
		{"client", "lab", "publish", "fb.demo._fleet.stop"},
		{"client", "lab", "publish", "fb.demo._fleet.release.robot-1"},
		{"straight", "lab", "publish", "fb.demo._fleet.release"},
		{"operator", "lab", "publish", "$KV.fb__demo__safety.latch.robot-1"},
		{"operator", "lab", "publish", "fb.demo._fleet.stopack.robot-1.x1"},
		{"operator", "lab", "publish", "fb.demo.main.do.robot-1.lab.move"},
		{"client", "lab", "publish", "fb.demo.main.do.robot-1.lab.move"},
		{"client", "lab", "publish", "fb.demo.main.req.inference.other.detect"},
		{"client", "lab", "publish", "fb.demo.main.req.action.other.robot-1.move"},
		{"client", "lab", "subscribe", "fb.demo.main.req.inference.lab.detect"},
		{"straight", "lab", "publish", "fb.demo.main.do.robot-1.other.move"},
		{"straight", "lab", "publish", "fb.demo.main.q.inference.detect.other.a1"},
		{"agent", robot, "publish", "fb.demo.main.journal.queued.robot-2.lab.a1"},
		{"agent", robot, "publish", "$JS.API.CONSUMER.CREATE.FB__demo__main__action.x.fb.demo.main.journal.queued.robot-2.*.*"},
		{"straight", "lab", "publish", "fb.demo.main.journal.queued.robot-1.other.a1"},
		{"straight", "lab", "publish", "fb.demo.main.journal.outcome.robot-1.lab.a1"},
		{"straight", "lab", "publish", "fb.demo.main.res.robot-1.lab.x1"},
		{"straight", "lab", "publish", "$KV.fb__demo__desired.task.detect"},
		{"straight", "lab", "subscribe", "fb.demo.main.res.robot-1.other.x1"},
		{"straight", "lab", "subscribe", "fb.demo.main.q.inference.detect.lab.a1"},
	} {
		refused := make(chan struct{}, 8)
		nc := connect(t, s, tc.user, tc.inbox, func(error) { refused <- struct{}{} })
		if tc.what == "publish" {
			must(t, nc.Publish(tc.subject, nil))
		} else {
			_, err := nc.SubscribeSync(tc.subject)
			must(t, err)
		}
		// The server answers in order, so a refusal is read before the flush returns; it is
		// handed over by another goroutine.
		must(t, nc.FlushTimeout(patience))
		select {
		case <-refused:
		case <-time.After(time.Second):
			t.Errorf("%s may %s %s", tc.user, tc.what, tc.subject)
		}
		nc.Close()
	}
}
