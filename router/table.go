package router

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How routes are read. The leader broadcasts them on every change and every 5 s; that
// is core NATS, so a client can miss one. It reads the saved copy when it starts, when
// it reconnects, and every routesEvery, which is twice the broadcast's interval: both
// must fail before a client serves by an old plan for longer than that. While nothing is
// known it asks every routesRetry. One reading is bounded by routesTimeout, so that a
// bucket without a leader (4 to 9 s) is asked again rather than waited for.
const (
	routesEvery   = 10 * time.Second
	routesRetry   = 250 * time.Millisecond
	routesTimeout = 2 * time.Second
)

// maxNames bounds how many task names an error lists.
const maxNames = 8

// table is the plan, with an index.
type table struct {
	routes messages.Routes
	tasks  map[string]*messages.TaskRoute
}

// routeTable holds the newest plan.
type routeTable struct {
	now  atomic.Pointer[table]
	kick chan struct{}

	mu     sync.Mutex
	update chan struct{} // closed and replaced with every change
	err    error         // why the last reading failed
}

func (r *routeTable) init() {
	r.kick, r.update = make(chan struct{}, 1), make(chan struct{})
}

func (r *routeTable) load() *table { return r.now.Load() }

func (r *routeTable) changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.update
}

// refresh asks for a reading soon.
func (r *routeTable) refresh() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// put takes routes that are newer than what is there.
func (r *routeTable) put(routes messages.Routes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.now.Load(); old != nil && !routes.Newer(old.routes.Term, old.routes.Rev) {
		return
	}
	t := &table{routes: routes, tasks: make(map[string]*messages.TaskRoute, len(routes.Tasks))}
	for i := range routes.Tasks {
		t.tasks[routes.Tasks[i].Task.Name] = &routes.Tasks[i]
	}
	r.now.Store(t)
	r.err = nil
	close(r.update)
	r.update = make(chan struct{})
}

func (r *routeTable) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *routeTable) lastError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Routes returns the plan as it is known now; zero before Ready. It shares memory with
// the client and must not be modified.
func (c *Client) Routes() messages.Routes {
	if t := c.table.load(); t != nil {
		return t.routes
	}
	return messages.Routes{}
}

// RoutesChanged returns a channel that is closed when newer routes come than those that
// Routes returns from now on.
func (c *Client) RoutesChanged() <-chan struct{} { return c.table.changed() }

func (c *Client) onRoutes(m *nats.Msg) {
	var r messages.Routes
	if err := messages.Decode(m.Data, &r); err != nil {
		c.note("routes", err)
		return
	}
	c.table.put(r)
}

// followRoutes reads the saved routes until ctx ends.
func (c *Client) followRoutes(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.table.kick:
		}
		err := c.readRoutes(ctx)
		c.table.failed(err)
		if c.table.load() == nil {
			timer.Reset(routesRetry)
		} else {
			timer.Reset(routesEvery)
		}
	}
}

// errNoRoutes says that the server was asked and has none.
var errNoRoutes = errors.New("no coordinator has ever written them")

// readRoutes reads the saved routes once. It does not make the bucket: that is the
// coordinator's, and its absence is the news.
func (c *Client) readRoutes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, routesTimeout)
	defer cancel()
	kv, err := c.bus.JS.KeyValue(ctx, bus.BucketName(c.cfg.Fleet, bus.RoutesKV))
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return errNoRoutes
	}
	if err != nil {
		return bus.Explain(err, "open the routes")
	}
	entry, err := kv.Get(ctx, bus.KeyRoutes)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return errNoRoutes
	}
	if err != nil {
		return bus.Explain(err, "read the routes")
	}
	var r messages.Routes
	if err := messages.Decode(entry.Value(), &r); err != nil {
		c.note("routes", err)
		return err
	}
	c.table.put(r)
	return nil
}

// noRoutes says why no request can be routed.
func (c *Client) noRoutes() *messages.Error {
	err := c.table.lastError()
	switch {
	case err == nil:
		return messages.Errorf(messages.CodeUnavailable, "fleet %s: its routes are not known yet; wait for Client.Ready", c.cfg.Fleet)
	case errors.Is(err, errNoRoutes):
		return messages.Errorf(messages.CodeUnavailable, "fleet %s has no routes: %v; start one with `fleetbus coordinator` or `fleetbus up`, or check the fleet's name", c.cfg.Fleet, err)
	}
	e := messages.AsError(err, messages.CodeUnavailable)
	return messages.Errorf(e.Code, "fleet %s: its routes are not known: %s", c.cfg.Fleet, e.Message)
}

// find returns the route of a task of a class, or why there is none.
func (c *Client) find(task string, class messages.Class) (*messages.TaskRoute, *messages.Error) {
	if err := messages.CheckName("task", task); err != nil {
		return nil, messages.AsError(err, messages.CodeBadRequest)
	}
	select {
	case <-c.running:
	default:
		return nil, messages.Errorf(messages.CodeUnavailable, "router.Client: Run is not running; start it first: go client.Run(ctx)")
	}
	t := c.table.load()
	if t == nil {
		return nil, c.noRoutes()
	}
	r := t.tasks[task]
	if r == nil {
		return nil, messages.Errorf(messages.CodeNotFound, "task %s is not one of fleet %s; %s", task, c.cfg.Fleet, t.list())
	}
	if r.Task.Class != class {
		return nil, messages.Errorf(messages.CodeBadRequest, "task %s is of class %s, asked for as %s; %s", task, r.Task.Class, class, map[messages.Class]string{
			messages.Training: "submit it as a job (Submit, req.training)", messages.Inference: "ask it with Infer (req.inference)",
			messages.Action: "ask it with Act (req.action)"}[r.Task.Class])
	}
	return r, nil
}

// list names the tasks there are.
func (t *table) list() string {
	names := make([]string, 0, len(t.tasks))
	for n := range t.tasks {
		names = append(names, n)
	}
	if len(names) == 0 {
		return "it has none; add some with `fleetbus apply -f`"
	}
	slices.Sort(names)
	if n := len(names) - maxNames; n > 0 {
		return "known are " + strings.Join(names[:maxNames], ", ") + " and " + strconv.Itoa(n) + " more"
	}
	return "known are " + strings.Join(names, ", ")
}

// unplaced says why a task that is known is served by nobody.
func unplaced(r *messages.TaskRoute) *messages.Error {
	if len(r.Replicas) > 0 {
		e := r.Replicas[0]
		return messages.Errorf(messages.CodeNotPlaced, "task %s has no ready replica yet: %s is %s on %s; try again soon", r.Task.Name, e.ID, e.State, e.Agent)
	}
	if r.Waiting != "" {
		return messages.Errorf(messages.CodeNoCapacity, "task %s is placed nowhere: %s", r.Task.Name, r.Waiting)
	}
	return messages.Errorf(messages.CodeNotPlaced, "task %s has no replica yet; `fleetbus placements` says why", r.Task.Name)
}

// candidates returns a function that orders the ready replicas of a task by the plan
// and the load of that moment.
func (c *Client) candidates(task string, until time.Time) func() []route.Candidate {
	return func() []route.Candidate {
		t := c.table.load()
		r := t.tasks[task]
		if r == nil {
			return nil // it was deleted while the request was under way
		}
		now := time.Now()
		return route.Candidates(r, c.cfg.Site, func(e *messages.Route) route.Load {
			l := c.loads.load(now, e.Agent, &r.Task, until.Sub(now))
			l.Down = l.Down || c.prober.down(e.Agent)
			return l
		}, random())
	}
}
