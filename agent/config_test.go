package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	good := agent.Config{Fleet: fleet, Environment: environment("edge")}
	bad := func(change func(*agent.Config)) agent.Config { c := good; change(&c); return c }
	for _, c := range []struct {
		nc       *nats.Conn
		cfg      agent.Config
		handlers []agent.Handler
		text     string
	}{
		{nil, good, []agent.Handler{echo("a")}, "has no connection"},
		{g.nc, good, nil, "has no handler"},
		{g.nc, good, []agent.Handler{nil}, "handler 1 is nil"},
		{g.nc, good, []agent.Handler{echo("a"), echo("a")}, `handler "a" is given twice`},
		{g.nc, good, []agent.Handler{echo("a.b")}, `handler name "a.b"`},
		{g.nc, bad(func(c *agent.Config) { c.Fleet = "" }), []agent.Handler{echo("a")}, "fleet name"},
		{g.nc, bad(func(c *agent.Config) { c.Environment.Tier = "moon" }), []agent.Handler{echo("a")}, "environment.tier"},
		{g.nc, bad(func(c *agent.Config) { c.DrainTimeout = -1 }), []agent.Handler{echo("a")}, "drain timeout"},
	} {
		err := agent.New(c.nc, c.cfg, c.handlers...).Run(t.Context())
		if messages.CodeOf(err) != messages.CodeBadRequest || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v does not say %q", err, c.text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := agent.New(g.nc, good, echo("a"))
	if err := a.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := a.Run(ctx); messages.CodeOf(err) != messages.CodeConflict {
		t.Errorf("a second Run: %v", err)
	}
}

func TestClosedConnectionEndsRun(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.run("edge", nil, echo("a"))
	g.place("edge", inference("a"))
	p.nc.Close()
	if err := p.wait(); messages.CodeOf(err) != messages.CodeUnavailable || !strings.Contains(err.Error(), "MaxReconnects(-1)") {
		t.Error(err)
	}
}

func TestOnServeTellsBeginAndEnd(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	events := make(chan agent.ServeEvent, 10)
	g.run("arm", func(c *agent.Config) { c.OnServe = func(e agent.ServeEvent) { events <- e } }, agent.Func("grasp", func(context.Context, *agent.Request) ([]byte, error) {
		return nil, errors.New("slipped")
	}))
	inc := g.alive("arm")
	g.place("arm", action("grasp"))
	c := g.caller("desk")
	req := c.command(inc, "e", 4)
	c.do("arm", req, "body")
	c.result()
	begin, end := <-events, <-events
	if !begin.Begin || begin.ID != req.ID || begin.Task != "grasp" || begin.Class != messages.Action || begin.Agent != "arm" || begin.Inc != inc ||
		begin.Origin != "desk" || begin.Episode != "e" || begin.Seq != 4 || begin.Attempt != 1 || begin.Replica != "grasp/0" || string(begin.Body) != "body" || begin.Code != "" {
		t.Errorf("%+v", begin)
	}
	if end.Begin || end.ID != req.ID || end.Code != messages.CodeBackendFailed {
		t.Errorf("%+v", end)
	}
}
