package coordinator

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// slow takes long to lose an agent by its silence, and a moment after evidence.
var slow = placement.Calm{LostAfter: 3 * time.Second, Beat: 400 * time.Millisecond}

// reportUnreached says what a client says that found nobody at an agent.
func reportUnreached(t *testing.T, a *agentOf, inc messages.Incarnation) {
	t.Helper()
	s := a.b.Subject(messages.KindUnreached, a.env.Site)
	s.Agent, s.Origin = a.env.ID, "lab"
	data, err := messages.Encode(&messages.Unreached{Agent: a.env.ID, Inc: inc})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.b.Conn.Publish(s.String(), data); err != nil {
		t.Fatal(err)
	}
}

// A client's word ends the wait for an agent that is dead, and harms none that lives.
func TestUnreachedAgentIsReplaced(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	c := run(t, s.Connect(t), "coordinator-1", func(c *Coordinator) { c.calm = slow })
	c.awaitLead(t)
	up := time.Now()
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	startAgent(t, s.Connect(t), edge("edge-2"))
	natstest.Eventually(t, within, "the window of the gate to be over", func() bool { return time.Since(up) > slow.LostAfter })
	old := one.inc
	old.Revision--
	for range 3 {
		reportUnreached(t, one, one.inc) // which is a lie
	}
	routed(t, b, "detect", "edge-1")
	one.stop()
	gone := time.Now()
	reportUnreached(t, one, old) // of a life before: nobody needs to hear
	reportUnreached(t, one, one.inc)
	routed(t, b, "detect", "edge-2")
	if took := time.Since(gone); took > slow.LostAfter-200*time.Millisecond { // a beat may have been under way
		t.Errorf("replaced after %v, which is what it takes without evidence", took)
	}
	events(t, b, "agent_lost")
}

// A lie about an agent that answers is no evidence, also where its beats get lost.
func TestLieIsNoEvidence(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	c := run(t, s.Connect(t), "coordinator-1", func(c *Coordinator) { c.calm = slow })
	c.awaitLead(t)
	up := time.Now()
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	startAgent(t, s.Connect(t), edge("edge-2"))
	natstest.Eventually(t, within, "the window of the gate to be over", func() bool { return time.Since(up) > slow.LostAfter })
	one.mute.Store(true)
	silent := time.Now()
	reportUnreached(t, one, one.inc)
	routed(t, b, "detect", "edge-2")
	if took := time.Since(silent); took < slow.LostAfter/2 { // evidence takes a beat, 0.4 s, to count
		t.Errorf("replaced after %v, for a lie", took)
	}
}

func TestDoubts(t *testing.T) {
	t.Parallel()
	var d doubts
	d.init()
	t0 := time.Now()
	if !d.put("one", t0) || d.put("one", t0) {
		t.Error("an agent is asked at once, once")
	}
	for _, s := range []struct {
		at   time.Duration
		want int
	}{{0, 1}, {doubtFor / 2, 1}, {doubtFor, 0}, {2*doubtFor - 1, 0}} {
		if got := len(d.due(t0.Add(s.at))); got != s.want {
			t.Errorf("after %v: %d are asked, want %d", s.at, got, s.want)
		}
		if d.put("one", t0.Add(s.at)) {
			t.Errorf("after %v: asked at once again", s.at)
		}
	}
	d.due(t0.Add(2 * doubtFor))
	if !d.put("one", t0.Add(2*doubtFor)) {
		t.Error("a new doubt is not looked into")
	}
	d.end("one")
	if len(d.due(t0.Add(2*doubtFor))) != 0 {
		t.Error("one that has answered is asked")
	}
	asked := 0
	for i := range 3 * askAtOnce {
		if d.put(strconv.Itoa(i), t0) {
			asked++
		}
	}
	if got := len(d.due(t0)); asked != askAtOnce || got != askAtOnce {
		t.Errorf("%d are asked at once, %d in a look, want %d", asked, got, askAtOnce)
	}
}

// withAccounts starts a server as docs/operations.md shows one, whose account for fleets
// may hear what the system account hears of it.
func withAccounts(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "```\n# accounts.conf\n")
	text, _, end := strings.Cut(text, "```")
	if !ok || !end {
		t.Fatal("docs/operations.md has no accounts.conf")
	}
	file := filepath.Join(t.TempDir(), "accounts.conf")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "$FLEETBUS_PASSWORD", "secret")), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := natsserver.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.NoSigs, o.NoLog, o.JetStream, o.StoreDir = "127.0.0.1", natsserver.RANDOM_PORT, true, true, true, t.TempDir()
	ns, err := natsserver.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	if !ns.ReadyForConnections(within) {
		t.Fatal("the server did not start")
	}
	return ns.ClientURL()
}

// What the server says of a closed connection ends the wait for an agent that is dead.
func TestClosedConnectionIsEvidence(t *testing.T) {
	t.Parallel()
	url := withAccounts(t)
	connect := func(name string) *nats.Conn {
		t.Helper()
		nc, err := bus.Connect(url, name, nats.UserInfo("fleet", "secret"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	b := newBus(t, connect("test"))
	c := run(t, connect("coordinator-1"), "coordinator-1", func(c *Coordinator) { c.calm, c.cfg.SystemEvents = slow, true })
	c.awaitLead(t)
	up := time.Now()
	apply(t, b, detect())
	nc := connect(bus.AgentConn("test", "edge-1"))
	one := startAgent(t, nc, edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	startAgent(t, connect(bus.AgentConn("test", "edge-2")), edge("edge-2"))
	natstest.Eventually(t, within, "the window of the gate to be over", func() bool { return time.Since(up) > slow.LostAfter })
	for _, name := range []string{bus.BeatConn("test", "edge-1"), bus.AgentConn("other", "edge-1"), bus.AgentConn("test", "edge-9"), "something else"} {
		connect(name).Close() // another connection of an agent that lives, or nobody's
	}
	routed(t, b, "detect", "edge-1")
	gone := time.Now()
	nc.Close()
	one.stop()
	routed(t, b, "detect", "edge-2")
	if took := time.Since(gone); took > slow.LostAfter-200*time.Millisecond {
		t.Errorf("replaced after %v, which is what it takes without evidence", took)
	}
}

// An agent that dies while nobody asks anything of it is asked by the coordinator itself,
// when it has missed one beat.
func TestSilentAgentIsAsked(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	c := run(t, s.Connect(t), "coordinator-1", func(c *Coordinator) { c.calm = slow })
	c.awaitLead(t)
	up := time.Now()
	apply(t, b, detect())
	one := startAgent(t, s.Connect(t), edge("edge-1"))
	routed(t, b, "detect", "edge-1")
	startAgent(t, s.Connect(t), edge("edge-2"))
	natstest.Eventually(t, within, "the window of the gate to be over", func() bool { return time.Since(up) > slow.LostAfter })
	one.stop()
	gone := time.Now()
	routed(t, b, "detect", "edge-2")
	if took := time.Since(gone); took > slow.LostAfter-200*time.Millisecond {
		t.Errorf("replaced after %v, which is what it takes without asking", took)
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	t0 := time.Now()
	q := newQuiet(placement.Calm{Beat: time.Second})
	at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	q.heard("one", at(0))
	q.heard("two", at(0.5))
	for _, s := range []struct {
		at   float64
		want string
	}{{0.9, ""}, {1, "one"}, {1.2, ""}, {1.5, "two"}, {9, ""}} {
		if got := strings.Join(q.due(at(s.at)), " "); got != s.want {
			t.Errorf("at %v s: %q is asked, want %q", s.at, got, s.want)
		}
	}
	q.heard("one", at(10)) // it lives, so it is asked again when it is silent again
	if got := q.due(at(11)); len(got) != 1 {
		t.Errorf("asked %q", got)
	}
	for i := range 3 * askAtOnce {
		q.heard(strconv.Itoa(i), at(20))
	}
	if got := len(q.due(at(30))); got != askAtOnce {
		t.Errorf("%d are asked at once, want %d", got, askAtOnce)
	}
}
