package router

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// service runs a router service until the test ends and waits until it answers.
func (f *fleet) service(mod ...func(*Config)) *Service {
	f.t.Helper()
	cfg := Config{Fleet: "f", Logger: slog.New(slog.DiscardHandler)}
	for _, m := range mod {
		m(&cfg)
	}
	s := NewService(f.s.Connect(f.t), cfg)
	f.run(s.Run)
	f.open(s)
	return s
}

// open waits until a service answers to its name.
func (f *fleet) open(s *Service) {
	f.t.Helper()
	sub, err := f.nc.SubscribeSync(f.nc.NewInbox())
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	natstest.Eventually(f.t, wait, "the service", func() bool {
		if err := f.nc.PublishRequest("$SRV.INFO.fleetbus-router", sub.Subject, nil); err != nil {
			f.t.Fatal(err)
		}
		for {
			m, err := sub.NextMsg(20 * time.Millisecond)
			if err != nil {
				return false
			}
			var info micro.Info
			if err := json.Unmarshal(m.Data, &info); err != nil {
				f.t.Fatal(err)
			}
			if info.Metadata["id"] == s.cfg.Origin && len(info.Endpoints) == 3 {
				return true
			}
		}
	})
}

// request is what any NATS client does.
func (f *fleet) request(subject string, body string, header nats.Header) *nats.Msg {
	f.t.Helper()
	m, err := f.nc.RequestMsg(&nats.Msg{Subject: subject, Header: header, Data: []byte(body)}, wait)
	if err != nil {
		f.t.Fatalf("%s: %v", subject, err)
	}
	return m
}

func TestService(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"), task(messages.Action, "move", "robot"), task(messages.Training, "learn", "cloud"))
	edge := f.agent("edge", echo).pull("see", 0, 4)
	robot := f.agent("robot", echo)
	f.service()

	m := f.request("fb.f.main.req.inference.arm.see", "x", nats.Header{"Content-Type": {"text/plain"}, "Fb-Left-Ms": {"1500"}, "Fb-Id": {"mine"}, "Fb-Key": {"camera"}, "Fb-Seq": {"7"}, "traceparent": {"00-1-2-01"}})
	if string(m.Data) != "re:x" || m.Header.Get("Fb-Agent") != "edge" || m.Header.Get("Fb-Attempt") != "1" || m.Header.Get("Fb-Service-Us") != "1000" ||
		m.Header.Get("Content-Type") != "text/plain" || m.Header.Get("Fb-Error") != "" || m.Header.Get("Fb-Id") != "mine" {
		t.Fatalf("got %q %v", m.Data, m.Header)
	}
	if c := next(t, "the call", edge.began); c.Origin != "arm" || c.ID != "mine" || c.Key != "camera" || c.Seq != 7 || c.Left > 1500*time.Millisecond || c.Traceparent != "00-1-2-01" {
		t.Fatalf("got %+v", c)
	}

	m = f.request("fb.f.main.req.action.arm.robot.move", "left", nats.Header{"Fb-Episode": {"e1"}, "Fb-Seq": {"1"}})
	if string(m.Data) != "re:left" || m.Header.Get("Fb-Agent") != "robot" {
		t.Fatalf("got %q %v", m.Data, m.Header)
	}
	if c := next(t, "the call", robot.began); c.Origin != "arm" || c.Episode != "e1" || c.Seq != 1 {
		t.Fatalf("got %+v", c)
	}

	m = f.request("fb.f.main.req.training.arm.learn", "epochs=1", nats.Header{"Fb-Id": {"run-7"}})
	job := m.Header.Get("Fb-Job")
	if job == "" || string(m.Data) != job {
		t.Fatalf("got %q %v", m.Data, m.Header)
	}
	if m = f.request("fb.f.main.req.training.arm.learn", "epochs=1", nats.Header{"Fb-Id": {"run-7"}}); string(m.Data) != job {
		t.Fatalf("got %q, want the same job %s", m.Data, job)
	}
}

func TestServiceErrors(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"), task(messages.Action, "move", "robot"), task(messages.Inference, "bad", "edge"))
	f.agent("edge", func(c call) ([]byte, *messages.Error) {
		return nil, messages.Errorf(messages.CodeBackendFailed, "no GPU\nat all")
	}).pull("bad", 0, 1)
	s := f.service()
	for name, c := range map[string]struct {
		subject string
		header  nats.Header
		code    messages.Code
		says    string
	}{
		"unknown task":    {"fb.f.main.req.inference.arm.sea", nil, messages.CodeNotFound, "known are bad, move, see"},
		"backend":         {"fb.f.main.req.inference.arm.bad", nil, messages.CodeBackendFailed, "no GPU at all"},
		"time":            {"fb.f.main.req.inference.arm.see", nats.Header{"Fb-Left-Ms": {"50"}}, messages.CodeDeadline, "50ms"},
		"no time":         {"fb.f.main.req.inference.arm.see", nats.Header{"Fb-Left-Ms": {"0"}}, messages.CodeExpired, "no time is left"},
		"bad header":      {"fb.f.main.req.inference.arm.see", nats.Header{"Fb-Left-Ms": {"soon"}}, messages.CodeBadRequest, "Fb-Left-Ms"},
		"bad key":         {"fb.f.main.req.inference.arm.see", nats.Header{"Fb-Key": {"a.b"}}, messages.CodeBadRequest, "Fb-Key"},
		"two values":      {"fb.f.main.req.inference.arm.see", nats.Header{"Fb-Key": {"a", "b"}}, messages.CodeBadRequest, "Fb-Key"},
		"bad subject":     {"fb.f.main.req.inference.a__m.see", nil, messages.CodeBadRequest, "__"},
		"no such robot":   {"fb.f.main.req.action.arm.robot2.move", nats.Header{"Fb-Episode": {"e"}, "Fb-Seq": {"1"}}, messages.CodeNotConnected, "robot2"},
		"no episode":      {"fb.f.main.req.action.arm.robot.move", nil, messages.CodeBadRequest, "Fb-Episode"},
		"class confusion": {"fb.f.main.req.training.arm.see", nil, messages.CodeBadRequest, "req.inference"},
	} {
		t.Run(name, func(t *testing.T) {
			m := f.request(c.subject, "x", c.header)
			if got := messages.Code(m.Header.Get("Fb-Error")); got != c.code || len(m.Data) != 0 {
				t.Fatalf("got %s: %s (%d bytes)", got, m.Header.Get("Fb-Error-Message"), len(m.Data))
			}
			if text := m.Header.Get("Fb-Error-Message"); !strings.Contains(text, c.says) || m.Header.Get(micro.ErrorHeader) != text || m.Header.Get(micro.ErrorCodeHeader) != strconv.Itoa(status(c.code)) {
				t.Fatalf("got %v", m.Header)
			}
		})
	}
	if n := s.Client().Stats().Malformed["req"]; n != 5 {
		t.Fatalf("%d malformed requests were counted", n)
	}
}

// Many routers share the requests, and `nats micro` sees each of them.
func TestManyRouters(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	a := f.agent("edge", echo).pull("see", 0, 8)
	var served [2]func() uint64
	for i := range served {
		s := f.service(func(c *Config) { c.Origin = "router-" + string(rune('1'+i)) })
		served[i] = func() uint64 { return s.nc.Stats().OutMsgs }
	}
	var before [2]uint64
	for i := range served {
		before[i] = served[i]()
	}
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if m := f.request("fb.f.main.req.inference.arm.see", "x", nil); string(m.Data) != "re:x" {
				t.Errorf("got %q %v", m.Data, m.Header)
			}
		})
	}
	all.Wait()
	if a.served() != 40 {
		t.Fatalf("the agent served %d", a.served())
	}
	for i := range served {
		if served[i]() == before[i] {
			t.Errorf("router %d did nothing", i)
		}
	}
	m := f.request("$SRV.INFO.fleetbus-router", "", nil)
	var info micro.Info
	if err := json.Unmarshal(m.Data, &info); err != nil || len(info.Endpoints) != 3 || info.Metadata["fleet"] != "f" {
		t.Fatalf("got %s, %v", m.Data, err)
	}
}

// `nats micro stats` shows what became of requests, not only that they came.
func TestServiceStats(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"), task(messages.Action, "move", "robot"))
	f.agent("edge", echo).pull("see", 0, 4)
	f.service()
	for range 3 {
		f.request("fb.f.main.req.inference.arm.see", "x", nil)
	}
	f.request("fb.f.main.req.inference.arm.sea", "x", nil)
	f.request("fb.f.main.req.action.arm.robot.move", "x", nil)
	type endpoints []struct {
		Name     string
		Requests int `json:"num_requests"`
		Data     DoorStats
	}
	ask := func() endpoints {
		var stats struct{ Endpoints endpoints }
		if err := json.Unmarshal(f.request("$SRV.STATS.fleetbus-router", "", nil).Data, &stats); err != nil {
			t.Fatal(err)
		}
		return stats.Endpoints
	}
	got := ask() // what the door counts itself is there with the answer
	for _, e := range got {
		d := e.Data
		ok := true
		switch e.Name {
		case "inference":
			ok = d.Answered == 3 && d.Errors[messages.CodeNotFound] == 1 && d.AvgMS > 0 && d.MaxMS >= d.AvgMS
		case "action":
			ok = d.Answered == 0 && d.Errors[messages.CodeBadRequest] == 1
		case "training":
			ok = d.Answered == 0
		}
		if !ok || d.InFlight != 0 {
			t.Errorf("%+v", e)
		}
	}
	if len(got) != 3 {
		t.Errorf("%+v", got)
	}
	// Package micro counts a request when its handler has returned: perhaps after the answer.
	want := map[string]int{"inference": 4, "action": 1, "training": 0}
	natstest.Eventually(t, wait, "package micro's counts", func() bool {
		counts := map[string]int{}
		for _, e := range ask() {
			counts[e.Name] = e.Requests
		}
		return maps.Equal(counts, want)
	})
}

func TestServiceFull(t *testing.T) {
	f := newFleet(t)
	f.plan(task(messages.Inference, "see", "edge"))
	g := f.gate()
	a := f.agent("edge", g.serve).pull("see", 0, 4)
	f.service(func(c *Config) { c.MaxInFlight = 1 })
	first := make(chan *nats.Msg, 1)
	go func() { first <- f.request("fb.f.main.req.inference.arm.see", "x", nil) }()
	next(t, "the first", a.began)
	m := f.request("fb.f.main.req.inference.arm.see", "y", nil)
	if m.Header.Get("Fb-Error") != "busy" || m.Header.Get("Fb-Retry-After-Ms") != "50" {
		t.Fatalf("got %v", m.Header)
	}
	g.open()
	if m := next(t, "the first's end", first); string(m.Data) != "re:x" {
		t.Fatalf("got %v", m.Header)
	}
}

// What a service has when it is told to stop is finished, for a while.
func TestServiceDrains(t *testing.T) {
	for name, c := range map[string]struct {
		drain time.Duration
		open  bool
		want  string
	}{"in time": {5 * time.Second, true, ""}, "not in time": {50 * time.Millisecond, false, "unavailable"}} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.plan(task(messages.Inference, "see", "edge"))
			g := f.gate()
			a := f.agent("edge", g.serve).pull("see", 0, 4)
			s := NewService(f.s.Connect(t), Config{Fleet: "f", Logger: slog.New(slog.DiscardHandler), DrainTimeout: c.drain})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			f.open(s)
			got := make(chan *nats.Msg, 1)
			go func() { got <- f.request("fb.f.main.req.inference.arm.see", "x", nil) }()
			next(t, "the request", a.began)
			cancel()
			natstest.Eventually(t, wait, "the door to close", func() bool {
				_, err := f.nc.Request("fb.f.main.req.inference.arm.see", nil, 50*time.Millisecond)
				return err == nats.ErrNoResponders
			})
			if c.open {
				g.open()
			}
			if m := next(t, "the answer", got); m.Header.Get("Fb-Error") != c.want {
				t.Fatalf("got %v", m.Header)
			}
			if err := next(t, "the end", ended); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Without a coordinator a request is answered with the reason.
func TestServiceWithoutRoutes(t *testing.T) {
	f := newFleet(t)
	f.service()
	m := f.request("fb.f.main.req.inference.arm.see", "x", nil)
	if m.Header.Get("Fb-Error") != "unavailable" || !strings.Contains(m.Header.Get("Fb-Error-Message"), "fleetbus coordinator") {
		t.Fatalf("got %v", m.Header)
	}
}

func TestServiceConfig(t *testing.T) {
	f := newFleet(t)
	wantCode(t, NewService(f.nc, Config{Fleet: "a.b"}).Run(ctxFor(t)), messages.CodeBadRequest)
}
