package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/agent/latch"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// hookTime bounds a hook, which brings a robot into a safe position. It is below the
// time in which an agent that is told to stop must end (30 s), so that a hook which has
// begun can finish.
const hookTime = 10 * time.Second

// LinkLoss is what a [LinkHook] is told.
type LinkLoss struct {
	Robot   string
	Task    messages.Task // that names the hook
	Replica string
	Reason  string
}

// LinkHook is called when the robot has lost its link, once for every task placed on it
// that names the hook, after no new action is begun any more and the contexts of those
// that run have ended; it does not wait for their handlers to return. Its ctx ends
// after 10 s. An error is logged. The robot stays stopped, whatever the hook does.
type LinkHook func(ctx context.Context, loss LinkLoss) error

// watchLink sends pings on the connection for stops and lets the latch judge their
// answers. That connection carries nothing else: what is measured is whether a stop
// could arrive, not how full the link is with bodies.
//
// The loop itself never calls the connection: the client library holds its lock while it
// writes or dials, and that may take seconds just when the link is lost.
func (s *safety) watchLink(ctx context.Context) {
	tick := time.NewTicker(latch.TickEvery)
	defer tick.Stop()
	pongs := make(chan time.Time, 16)
	var pings sync.WaitGroup
	defer pings.Wait()
	var under atomic.Int32 // pings under way
	var sent time.Time
	for {
		var fx latch.Effects
		select {
		case <-ctx.Done():
			return
		case st, ok := <-s.links:
			if !ok || st == nats.CLOSED {
				s.a.fail(messages.Errorf(messages.CodeUnavailable, "robot %q: its connection for stops is closed and will not come back; a robot that cannot be stopped must not run", s.a.id))
				return
			}
			if st == nats.CONNECTED {
				sent = time.Time{} // a ping at once
			}
			// Orders may have been missed; those that come from now on are heard.
			fx, _ = s.step(func(m *latch.Machine) latch.Effects {
				s.changes++
				return m.Unknown()
			})
		case at := <-pongs:
			fx, _ = s.step(func(m *latch.Machine) latch.Effects { return m.Pong(time.Now(), at) })
		case now := <-tick.C:
			if now.Sub(sent) >= latch.PingEvery && under.Load() < mostPings {
				sent = now
				under.Add(1)
				pings.Go(func() {
					defer under.Add(-1)
					s.ping(ctx, pongs)
				})
			}
			armed := s.a.bound()
			fx, _ = s.step(func(m *latch.Machine) latch.Effects { return m.Tick(time.Now(), armed) })
		}
		if fx.Save {
			nudge(s.unsaved) // a slow disk must not hold up the watch; the latch holds either way
		}
	}
}

// mostPings bounds the pings that wait for an answer, or for the lock of the connection:
// as many as are sent in the time that an answer matters.
const mostPings = 2 * latch.Misses

// ping sends one ping and reports when it was sent, once it is answered. It does not
// wait for longer than an answer matters.
func (s *safety) ping(ctx context.Context, pongs chan<- time.Time) {
	ctx, cancel := context.WithTimeout(ctx, 2*latch.Silence)
	defer cancel()
	if !s.nc.IsConnected() {
		return
	}
	sent := time.Now()
	if s.nc.FlushWithContext(ctx) != nil {
		return
	}
	select {
	case pongs <- sent:
	case <-ctx.Done():
	}
}

// bound reports whether a task is placed here that does not go on without a link.
func (a *Agent) bound() bool {
	for _, list := range *a.byTask.Load() {
		if len(list) > 0 && !list[0].task.GoesOn() {
			return true
		}
	}
	return false
}

// runHooks begins the hooks of the tasks that name one. A lost link does not wait for
// them, nor does the end of the agent's other work end them.
func (a *Agent) runHooks(why string) {
	for _, list := range *a.byTask.Load() {
		for _, r := range list {
			name := r.task.LinkHook()
			hook := a.cfg.LinkHooks[name]
			if r.task.Class != messages.Action || hook == nil {
				continue
			}
			loss := LinkLoss{Robot: a.id, Task: r.task, Replica: r.id, Reason: why}
			a.lives.begin(func() {
				begun := time.Now()
				err := a.runHook(hook, loss)
				a.cfg.Logger.Warn("hook for a lost link has ended", "hook", name, "task", loss.Task.Name, "took", time.Since(begun), "error", err)
			})
		}
	}
}

func (a *Agent) runHook(hook LinkHook, loss LinkLoss) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.work), hookTime)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked: %v", p)
		}
	}()
	return hook(ctx, loss)
}

// checkHook refuses to open a replica whose hook is not there: better now than when the
// link is lost.
func (a *Agent) checkHook(t messages.Task) error {
	name := t.LinkHook()
	if name == "" || a.cfg.LinkHooks[name] != nil {
		return nil
	}
	has := "none"
	if names := slices.Sorted(maps.Keys(a.cfg.LinkHooks)); len(names) > 0 {
		has = strings.Join(names, ", ")
	}
	return messages.Errorf(messages.CodeBadRequest, "task %q asks for the hook %q on the loss of the link; this agent has %s: add it with --on-link-loss %s=COMMAND, or let the task say stop or continue", t.Name, name, has, name)
}
