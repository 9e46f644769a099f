package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// The cast of a run.
var (
	serverNames      = []string{"server-1", "server-2", "server-3"}
	coordinatorNames = []string{"coordinator-1", "coordinator-2"}
	routerNames      = []string{"router-1", "router-2"}
	robotNames       = []string{"robot-1", "robot-2", "robot-3"}
	agentNames       = append([]string{"cloud-1", "edge-1", "edge-2"}, robotNames...)
	clientNames      = []string{"client-1", "client-2", "door-1"}
)

// cast is who may be befallen by what.
func cast() []target {
	all := []kind{killIt, restartIt, freezeIt, stallIt, severIt}
	return []target{
		{serverLane, serverNames, []kind{killIt, killIt, restartIt}},
		{agentLane, agentNames, all},
		{otherLane, coordinatorNames, []kind{killIt, freezeIt, stallIt, severIt}},
		{otherLane, routerNames, []kind{killIt, restartIt, freezeIt, severIt}},
		{otherLane, clientNames, []kind{killIt, freezeIt, severIt}},
	}
}

// stage is the fleet of a run.
type stage struct {
	options
	dir   string
	out   io.Writer
	began time.Time
	hist  *history.Writer // who was killed when
	nc    *nats.Conn      // of the run itself; its way is never cut
	bus   *bus.Bus
	links map[string]*link
	held  holdings

	mu       sync.Mutex
	procs    map[string]*proc
	monitors map[string]string // of servers: where they tell their health
	crashes  []error
}

// say prints a line of the story.
func (s *stage) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%6.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func newStage(o options, out io.Writer) (*stage, error) {
	s := &stage{options: o, out: out, began: time.Now(), links: make(map[string]*link), procs: make(map[string]*proc), monitors: make(map[string]string)}
	var err error
	if s.dir = o.keep; s.dir == "" {
		s.dir, err = os.MkdirTemp("", "fleetbus-chaos-")
	} else {
		err = os.MkdirAll(s.dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	if old, err := filepath.Glob(filepath.Join(s.dir, "history-*")); err != nil || len(old) > 0 {
		return nil, errors.Join(err, fmt.Errorf("--keep %s: it holds %d histories of another run, which would be judged with this one's; name an empty directory", s.dir, len(old)))
	}
	s.hist, err = history.Open(filepath.Join(s.dir, "history-faults-1.jsonl"), "faults")
	return s, err
}

// raise starts the whole fleet and returns when everything is placed and the clients ask.
func (s *stage) raise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startWithin)
	defer cancel()
	urls, err := s.startServers(ctx)
	if err != nil {
		return err
	}
	if s.nc, err = bus.Connect(strings.Join(urls, ","), "chaos"); err != nil {
		return err
	}
	if s.bus, err = bus.New(s.nc, fleetName, 0); err != nil {
		return err
	}
	var others []part
	for _, n := range coordinatorNames {
		others = append(others, part{Role: roleCoordinator, Name: n})
	}
	for _, n := range agentNames {
		tier, _, _ := strings.Cut(n, "-")
		others = append(others, part{Role: roleAgent, Name: n, Tier: messages.Tier(tier), Peers: neighbours(n)})
	}
	for _, n := range routerNames {
		others = append(others, part{Role: roleRouter, Name: n})
	}
	if err := s.startAll(others, urls); err != nil {
		return err
	}
	if err := s.until(ctx, "the tasks to be applied", func(ctx context.Context) error {
		_, err := coordinator.Apply(ctx, s.bus, tasks(), nil)
		return err
	}); err != nil {
		return err
	}
	if err := s.until(ctx, "everything to be placed", s.placed); err != nil {
		return err
	}
	var clients []part
	for _, n := range clientNames {
		role, _, _ := strings.Cut(n, "-")
		clients = append(clients, part{Role: role, Name: n, Robots: robotNames})
	}
	if err := s.startAll(clients, urls); err != nil {
		return err
	}
	for _, p := range s.list(func(role string) bool { return role == roleAgent }) {
		p.order(orderSend) // now everybody is known
	}
	s.say("%d processes run: %d servers, %d coordinators, %d routers, %d agents, %d clients", len(s.procs), len(serverNames), len(coordinatorNames), len(routerNames), len(agentNames), len(clientNames))
	return nil
}

// startServers starts the cluster and returns the URLs for clients when it answers.
func (s *stage) startServers(ctx context.Context) (urls []string, err error) {
	free, err := ports(2 * len(serverNames))
	if err != nil {
		return nil, err
	}
	clients, cluster := free[:len(serverNames)], free[len(serverNames):]
	var routes []string
	for i, p := range cluster {
		routes = append(routes, fmt.Sprint("127.0.0.1:", p))
		urls = append(urls, fmt.Sprint("nats://127.0.0.1:", clients[i]))
	}
	for i, n := range serverNames {
		if err := s.start(part{Role: roleServer, Name: n, Port: clients[i], Cluster: cluster[i], Routes: routes}); err != nil {
			return nil, err
		}
	}
	return urls, s.until(ctx, "the servers to be well", s.healthy)
}

// startAll starts processes, each with a link of its own.
func (s *stage) startAll(parts []part, urls []string) error {
	var all errgroup.Group
	for _, p := range parts {
		l, err := newLink(urls)
		if err != nil {
			return err
		}
		s.links[p.Name], p.URL = l, l.url()
		all.Go(func() error { return s.start(p) })
	}
	return all.Wait()
}

// start starts the next life of a process.
func (s *stage) start(p part) error {
	p.Life, p.Dir, p.Sample, p.Plants = p.Life+1, s.dir, s.sample, plantsOf(p.Role, s.plants)
	c, err := start(p, s.held.take)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs[p.Name] = c
	if p.Role == roleServer {
		_, s.monitors[p.Name], _ = strings.Cut(c.said, " ")
	}
	return nil
}

// get returns the newest life of a process.
func (s *stage) get(name string) *proc {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.procs[name]
}

// list returns the newest lives of those that a name fits.
func (s *stage) list(role func(string) bool) (list []*proc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.procs {
		if role(p.Role) {
			list = append(list, p)
		}
	}
	return list
}

// found notes what is wrong with a process.
func (s *stage) found(err error) {
	if err == nil {
		return
	}
	s.say("FOUND: %v", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashes = append(s.crashes, err)
}

// placed returns nil when all agents are ready and every replica serves.
func (s *stage) placed(ctx context.Context) error {
	state, err := coordinator.ReadState(ctx, s.bus)
	if err != nil {
		return err
	}
	if len(state.Agents) < len(agentNames) {
		return fmt.Errorf("%d of %d agents are there", len(state.Agents), len(agentNames))
	}
	want := 0
	for _, t := range tasks() {
		if want += t.Normal().Replicas; t.Per == messages.PerRobot {
			want += len(robotNames)
		}
	}
	if len(state.Replicas) < want {
		return fmt.Errorf("%d of %d replicas are planned", len(state.Replicas), want)
	}
	for _, r := range state.Replicas {
		if r.State != messages.ReplicaReady {
			return fmt.Errorf("replica %s is %s: %s", r.ID, r.State, r.Reason)
		}
	}
	return nil
}

// askWithin bounds one question: an answer that was lost in an election never comes.
const askWithin = 3 * time.Second

// until asks until there is no error; what it said last is in the error when ctx ends.
func (s *stage) until(ctx context.Context, what string, ask func(context.Context) error) error {
	tick := time.NewTicker(200 * time.Millisecond) // every look at a server that is not well is a line in its log
	defer tick.Stop()
	for {
		try, done := context.WithTimeout(ctx, askWithin)
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

// lower ends everything in order: who asks first, and then who serves.
func (s *stage) lower(ctx context.Context) error {
	s.end(finishWithin+15*time.Second, roleClient, roleDoor)
	if err := s.settle(ctx); err != nil {
		return err
	}
	s.end(30*time.Second, roleRouter, roleAgent)
	s.end(10*time.Second, roleCoordinator)
	s.end(30*time.Second, roleServer)
	return nil
}

// end ends all processes of these roles.
func (s *stage) end(limit time.Duration, roles ...string) {
	var all sync.WaitGroup
	for _, p := range s.list(func(role string) bool { return slices.Contains(roles, role) }) {
		all.Go(func() {
			if err := p.crashed(); err != nil {
				s.found(err)
				return
			}
			s.found(p.end(limit))
		})
	}
	all.Wait()
}

// close ends whatever still runs.
func (s *stage) close() error {
	if s.nc != nil {
		s.nc.Close()
	}
	for _, p := range s.list(func(string) bool { return true }) {
		p.kill()
	}
	for _, l := range s.links {
		l.close()
	}
	return s.hist.Close()
}

// ports returns n ports of loopback that are free now.
func ports(n int) (list []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // only when all are known, so that they differ
		list = append(list, l.Addr().(*net.TCPAddr).Port)
	}
	return list, nil
}
