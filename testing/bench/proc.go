package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// The benchmarks of the data path run in processes of their own, which are this program
// again: a server, agents, a router. The client is the process that measures. Unlike a
// child, an actor takes no orders: it is killed, or frozen.

// childEnv has the part that a process plays, as JSON; it is what makes it a child.
const childEnv = "FB_BENCH_CHILD"

// part is what a child is to be.
type part struct {
	Role    string        `json:"role"` // server, agent, deployer, holder, router, policy, oip, gateway
	Name    string        `json:"name"`
	URL     string        `json:"url,omitempty"`
	Port    int           `json:"port,omitempty"` // server: of clients; 0: any
	Cluster int           `json:"cluster,omitempty"`
	Routes  []string      `json:"routes,omitempty"`
	Store   string        `json:"store,omitempty"`   // server, deployer, holder: a directory
	Service time.Duration `json:"service,omitempty"` // agent: that a request takes
	Bare    bool          `json:"bare,omitempty"`    // agent: the hand-written loops run beside it
	Sync    bool          `json:"sync,omitempty"`    // server: sync_interval: always
	Jobs    bool          `json:"jobs,omitempty"`    // agent: the hand-written loop of jobs runs beside it
	Fault   string        `json:"fault,omitempty"`   // agent: planted, see worker
	Profile string        `json:"profile,omitempty"` // directory for a CPU profile
	Kind    string        `json:"kind,omitempty"`    // agent: its backend, see handler; gateway: openpi or http
	Target  string        `json:"target,omitempty"`  // agent: the URL or the command of its backend
}

// What the benchmarks call their task and the client.
const (
	bareFleet  = "bare" // the streams of the hand-written loop: the same settings, another name
	benchSite  = messages.DefaultSite
	benchTask  = "see"
	benchOwner = "client"
)

// startWithin bounds the start of anything: processes start in some 100 ms, three servers
// elect in 0.2 to 5 s.
const startWithin = 30 * time.Second

// actor is a process that plays a part.
type actor struct {
	part
	cmd   *exec.Cmd
	stdin io.Closer // closing it tells the child to end; so does our own death
	gone  chan struct{}
}

// stage is the processes of one benchmark, and their bus.
type stage struct {
	dir      string
	url      string
	profile  string // directory for CPU profiles of the children; "" for none
	nc       *nats.Conn
	bus      *bus.Bus
	beats    *nats.Subscription
	children []*actor
	rev      uint64

	mu   sync.Mutex
	said strings.Builder // what they wrote to stderr
}

// Write collects what the processes say, for an error.
func (s *stage) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(p)
}

// newStage starts n servers, one alone or a cluster, and connects to them.
func newStage(ctx context.Context, n int, profile string) (_ *stage, err error) {
	s := &stage{profile: profile}
	if s.dir, err = os.MkdirTemp("", "fleetbus-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = s.close(err)
		}
	}()
	parts := make([]part, n)
	for i := range parts {
		parts[i] = part{Role: "server", Name: "server-" + strconv.Itoa(i), Store: filepath.Join(s.dir, strconv.Itoa(i))}
	}
	if n > 1 {
		ports, err := ports(2 * n)
		if err != nil {
			return nil, err
		}
		var routes []string
		for _, p := range ports[:n] {
			routes = append(routes, "127.0.0.1:"+strconv.Itoa(p))
		}
		for i := range parts {
			parts[i].Cluster, parts[i].Port, parts[i].Routes = ports[i], ports[n+i], routes
		}
	}
	var urls []string
	for _, p := range parts {
		_, url, err := s.start(ctx, p)
		if err != nil {
			return nil, err
		}
		urls = append(urls, url)
	}
	s.url = strings.Join(urls, ",")
	if s.nc, err = bus.Connect(s.url, "bench"); err != nil {
		return nil, err
	}
	if s.beats, err = s.nc.SubscribeSync("fb." + benchFleet + ".*.hb.*"); err != nil {
		return nil, err
	}
	if s.bus, err = bus.New(s.nc, benchFleet, 0); err != nil {
		return nil, err
	}
	return s, s.until(ctx, "JetStream to answer", func(ctx context.Context) error {
		_, err := s.bus.KV(ctx, bus.RoutesKV)
		return err
	})
}

// start starts a child and returns when it says that it runs, with what it says.
func (s *stage) start(ctx context.Context, p part) (*actor, string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	p.Profile = s.profile
	text, err := json.Marshal(p)
	if err != nil {
		return nil, "", err
	}
	c := &actor{part: p, cmd: exec.Command(exe), gone: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	c.cmd.Stderr = s
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, "", err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", p.Name, err)
	}
	s.children = append(s.children, c)
	line := make(chan string, 1)
	go func() {
		defer close(c.gone)
		text, _ := bufio.NewReader(out).ReadString('\n') // an empty line says that it ended before
		line <- strings.TrimSpace(text)
		_ = c.cmd.Wait() // it is killed at the end, which Wait calls an error
	}()
	limit, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	select {
	case said := <-line:
		if said == "" {
			return nil, "", fmt.Errorf("%s ended at once", p.Name)
		}
		return c, said, nil
	case <-limit.Done():
		return nil, "", fmt.Errorf("%s did not start: %w", p.Name, limit.Err())
	}
}

func (c *actor) signal(sig syscall.Signal) error { return c.cmd.Process.Signal(sig) }

// kill ends a child, whatever state it is in, and returns when it is gone.
func (c *actor) kill() {
	_ = c.cmd.Process.Kill() // fails where it has ended
	<-c.gone
	_ = c.stdin.Close() // its reader is gone
}

// close ends all and adds to err what the processes said.
func (s *stage) close(err error) error {
	if s.nc != nil {
		s.nc.Close()
	}
	for _, c := range s.children {
		if s.profile == "" {
			_ = c.cmd.Process.Kill()
			continue
		}
		_ = c.stdin.Close() // it writes its profile and ends
		<-c.gone
	}
	for _, c := range s.children {
		c.kill()
	}
	err = errors.Join(err, os.RemoveAll(s.dir))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.said.Len() > 0 {
		err = fmt.Errorf("%w\nthe processes said:\n%s", err, s.said.String())
	}
	return err
}

// until asks until there is no error.
func (s *stage) until(ctx context.Context, what string, ask func(context.Context) error) error {
	return s.untilWithin(ctx, startWithin, what, ask)
}

// untilWithin is until with a time of its own.
func (s *stage) untilWithin(ctx context.Context, within time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		try, done := context.WithTimeout(ctx, askWithin) // a cluster that elects answers nothing
		err := ask(try)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}

// agent starts an agent that has the task and returns when it is ready to serve.
func (s *stage) agent(ctx context.Context, t messages.Task, rank int, p part) (*actor, error) {
	p.Role, p.URL = "agent", s.url
	s.rev++
	doc := &messages.Placement{Agent: p.Name, Term: messages.Term{Epoch: 1, Revision: 1}, Rev: s.rev,
		Replicas: []messages.PlacedReplica{{ID: messages.ReplicaID(t.Name, p.Name), Task: t, Rank: rank}}}
	if err := s.put(ctx, bus.Placements, p.Name, doc); err != nil {
		return nil, err
	}
	c, _, err := s.start(ctx, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		m, err := s.beats.NextMsgWithContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("waiting for %s to be ready: %w", p.Name, err)
		}
		var h messages.Heartbeat
		if messages.Decode(m.Data, &h) != nil || h.Agent != p.Name {
			continue
		}
		for _, r := range h.Replicas {
			if r.State == messages.ReplicaReady {
				return c, nil
			}
		}
	}
}

// routes makes the agents the replicas of the task, in this order.
func (s *stage) routes(ctx context.Context, t messages.Task, agents ...string) error {
	return s.save(ctx, taskRoute(t, agents...))
}

// routesOf makes each agent the replica of the task that has its place.
func (s *stage) routesOf(ctx context.Context, tasks []messages.Task, agents []string) error {
	var list []messages.TaskRoute
	for i, t := range tasks {
		list = append(list, taskRoute(t, agents[i]))
	}
	return s.save(ctx, list...)
}

func taskRoute(t messages.Task, agents ...string) messages.TaskRoute {
	route := messages.TaskRoute{Task: t}
	for i, a := range agents {
		route.Replicas = append(route.Replicas, messages.Route{ID: messages.ReplicaID(t.Name, a), Agent: a, Tier: messages.Edge, Site: benchSite, State: messages.ReplicaReady, Rank: i})
	}
	return route
}

// save saves the routes, and tells whoever runs.
func (s *stage) save(ctx context.Context, tasks ...messages.TaskRoute) error {
	s.rev++
	routes := &messages.Routes{Term: messages.Term{Epoch: 1, Revision: 1}, Rev: s.rev, Tasks: tasks}
	if err := s.put(ctx, bus.RoutesKV, bus.KeyRoutes, routes); err != nil {
		return err
	}
	data, err := messages.Encode(routes)
	if err != nil {
		return err
	}
	return s.nc.Publish(s.bus.Subject(messages.KindRoutes, messages.FleetSite).String(), data)
}

func (s *stage) put(ctx context.Context, b bus.Bucket, key string, m messages.Message) error {
	data, err := messages.Encode(m)
	if err != nil {
		return err
	}
	return s.until(ctx, "bucket "+string(b), func(ctx context.Context) error {
		kv, err := s.bus.KV(ctx, b)
		if err != nil {
			return err
		}
		_, err = kv.Put(ctx, key, data)
		return err
	})
}
