package natstest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/nats-io/nats.go"
)

// Cluster is several NATS servers with JetStream in the test's own process, connected
// with one another over loopback. Its methods may be called from many goroutines, but
// those that take a testing.TB only from the test's.
type Cluster struct {
	nodes []*embed.Server
	names []string
	token string
	links links

	mu sync.Mutex
	on []bool // which nodes are meant to run
}

// StartCluster starts n servers (3 or 5, usually), each on ports and a directory of
// its own, and returns when they have elected a leader and all of them can hold
// streams: 0.2 to 0.6 s for three, rarely 5 s where the first election is a draw. They
// stop with the test. A failure ends the test.
//
// It needs the network and so cannot run in virtual time. Stopping a server of it is
// graceful (see [Cluster.StopServer]): what happens when one is killed takes a process
// to kill.
func StartCluster(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	if inBubble.Load() {
		t.Fatalf("natstest: a cluster needs the network, which stands still in virtual time; use Start, or no Bubble")
	}
	ports := freePorts(t, 2*n)
	var routes []string
	for _, p := range ports[:n] {
		routes = append(routes, net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
	}
	c := &Cluster{on: make([]bool, n)}
	c.links.dial = dialTCP
	for i := range n {
		o := baseOptions()
		for _, opt := range opts {
			opt.apply(&o)
		}
		o.Name = "natstest-" + strconv.Itoa(i)
		o.Port, o.StoreDir = ports[n+i], t.TempDir()
		// Every server has the full list of routes: a first one without routes takes
		// itself for a server outside of any cluster and refuses to join one.
		o.Cluster = embed.Cluster{Name: "natstest", Port: ports[i], Routes: routes}
		c.token = o.Token
		srv, err := embed.New(o)
		if err != nil {
			t.Fatalf("natstest: %v", err)
		}
		c.nodes, c.names = append(c.nodes, srv), append(c.names, o.Name)
	}
	t.Cleanup(c.stop)
	for i := range n {
		c.startNode(t, i)
	}
	c.wait(t)
	return c
}

// stop stops all servers at once: one after the other would have each elect new
// leaders first.
func (c *Cluster) stop() {
	c.links.close()
	var all sync.WaitGroup
	for _, s := range c.nodes {
		all.Go(s.Stop)
	}
	all.Wait()
}

func (c *Cluster) startNode(t testing.TB, i int) {
	t.Helper()
	if err := c.nodes[i].Start(); err != nil {
		t.Fatalf("natstest: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on[i] = true
}

// clusterWithin bounds the wait for a cluster. An election takes 4 to 9 s when a
// leader was lost, and two in a row can fail.
const clusterWithin = 30 * time.Second

// wait waits until the servers that are meant to run are one cluster. With a majority
// missing there is nothing to wait for.
func (c *Cluster) wait(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	on := slices.Clone(c.on)
	c.mu.Unlock()
	running := 0
	for _, up := range on {
		if up {
			running++
		}
	}
	if running <= len(c.nodes)/2 {
		return
	}
	Eventually(t, clusterWithin, fmt.Sprintf("a leader that sees %d servers, all up to date", running), func() bool {
		for i, up := range on {
			if up && !c.current(i) {
				return false
			}
		}
		return slices.ContainsFunc(c.nodes, func(s *embed.Server) bool {
			peers, leader := s.MetaLeader()
			return leader && peers >= running
		})
	})
}

// current reports whether a server is up to date now.
func (c *Cluster) current(i int) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // do not wait: look once
	return c.nodes[i].Ready(ctx) == nil
}

// Size returns the number of servers, running or not.
func (c *Cluster) Size() int { return len(c.nodes) }

// URL returns the URL of one server; i counts from 0.
func (c *Cluster) URL(i int) string { return c.nodes[i].ClientURL() }

// URLs returns the URLs of all servers, separated by commas as nats.Connect wants
// them.
func (c *Cluster) URLs() string {
	var urls []string
	for i := range c.nodes {
		urls = append(urls, c.URL(i))
	}
	return strings.Join(urls, ",")
}

// Dial returns the option that presents the cluster's token, if it has one.
func (c *Cluster) Dial() nats.Option { return nats.Token(c.token) }

// Connect connects to any of the servers, like [Server.Connect].
func (c *Cluster) Connect(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return connect(t, c.URLs(), append([]nats.Option{c.Dial()}, opts...))
}

// ConnectTo connects to server i, and to no other as long as that one runs.
func (c *Cluster) ConnectTo(t testing.TB, i int, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return connect(t, c.URL(i), append([]nats.Option{c.Dial()}, opts...))
}

// Link returns the link of that name to all servers of the cluster, see [Server.Link].
func (c *Cluster) Link(name string) *Link { return c.links.get(name, false, c.token) }

// StopServer stops one server gracefully, as an update of the machine would: it hands
// over what it leads, and its clients go to the others.
func (c *Cluster) StopServer(i int) {
	c.mu.Lock()
	c.on[i] = false
	c.mu.Unlock()
	c.nodes[i].Stop()
}

// StartServer starts a stopped server on the same ports and the same directory, and
// returns when it has caught up with the others.
func (c *Cluster) StartServer(t testing.TB, i int) {
	t.Helper()
	c.startNode(t, i)
	c.wait(t)
}

// Leader returns the server that leads a stream, and waits for one when an election is
// under way. Buckets are streams too, named "KV_" and the bucket's name. Only streams
// of more than one replica have elections, but a server leads each of them.
func (c *Cluster) Leader(t testing.TB, stream string) int {
	t.Helper()
	leader := -1
	Eventually(t, clusterWithin, "a leader of stream "+stream, func() bool {
		leader = slices.IndexFunc(c.nodes, func(s *embed.Server) bool { return s.LeadsStream(stream) })
		return leader >= 0
	})
	return leader
}

// LeaderOfAll returns the server that leads the cluster itself: it decides which
// servers hold a new stream.
func (c *Cluster) LeaderOfAll(t testing.TB) int {
	t.Helper()
	leader := -1
	Eventually(t, clusterWithin, "a leader of the cluster", func() bool {
		leader = slices.IndexFunc(c.nodes, func(s *embed.Server) bool {
			_, leads := s.MetaLeader()
			return leads
		})
		return leader >= 0
	})
	return leader
}
