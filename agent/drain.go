package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// giveUpTime is the last part of the time to drain: the handlers' contexts have ended
// and they have this long to return. It is at most a quarter of the whole, so that a
// short drain still serves.
const giveUpTime = time.Second

// leave waits for the end of ctx or for a reason to stop at once, and then ends
// everything that the agent serves.
func (a *Agent) leave(ctx context.Context) error {
	var reason error
	select {
	case <-ctx.Done():
	case reason = <-a.fatal:
	}
	whole := a.cfg.DrainTimeout
	over := time.NewTimer(whole - min(giveUpTime, whole/4))
	defer over.Stop()
	begun := time.Now()

	a.draining.Store(true)
	a.beatNow()
	if reason == nil {
		reason = a.handOver()
	}

	a.closed.Store(true)
	a.mu.Lock()
	a.closing = true
	for _, r := range a.replicas {
		r.stop()
	}
	a.mu.Unlock()
	if reason != nil {
		// Another process has the id, or nobody can be answered any more: what runs here
		// may run a second time there, and must end.
		a.endWork()
	}
	hung := a.finish(over.C, begun.Add(whole))
	if reason == nil {
		// A beat after the goodbye would bring the agent back to life: so the beats end
		// first, and have reached the server before it.
		a.silence()
		a.flush(a.beatConn)
		a.goodbye(hung)
	}
	a.flush(a.nc)
	if reason != nil {
		return reason
	}
	if hung != "" {
		return messages.Errorf(messages.CodeBackendFailed, "drain of agent %q: after %v %s", a.id, whole, hung)
	}
	return nil
}

// handOver goes on serving until the coordinator has moved everything away, or
// HandoverWait is over.
func (a *Agent) handOver() error {
	if a.cfg.HandoverWait < 0 {
		return nil
	}
	wait := time.NewTimer(min(a.cfg.HandoverWait, a.cfg.DrainTimeout/2))
	defer wait.Stop()
	for {
		a.mu.Lock()
		empty := handedOver(a.doc)
		a.mu.Unlock()
		if empty {
			return nil
		}
		select {
		case <-a.placed:
		case <-wait.C:
			return nil
		case err := <-a.fatal:
			return err
		}
	}
}

// finish waits until nothing runs any more. When over fires, the handlers' contexts
// end; at last it stops waiting and returns who still runs.
func (a *Agent) finish(over <-chan time.Time, last time.Time) (hung string) {
	done := a.lives.none()
	select {
	case <-done:
		return ""
	case <-over:
	}
	a.endWork()
	t := time.NewTimer(time.Until(last))
	defer t.Stop()
	select {
	case <-done:
		return ""
	case <-t.C:
	}
	hung = a.hung()
	close(a.abandoned)
	// Everything of ours ends now at once; only user code can still be running.
	select {
	case <-done:
	case <-time.After(giveUpTime):
	}
	return hung
}

// hung names what has not ended.
func (a *Agent) hung() string {
	if running, handlers := a.flight.names(); len(running) > 0 {
		text := fmt.Sprintf("%d still ran: %s", len(running), strings.Join(running, ", "))
		if handlers {
			text += "; a handler that ignores the end of its context is left behind, so this program should exit"
		}
		return text
	}
	var names []string
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, r := range a.replicas {
		if !r.held().ended {
			names = append(names, fmt.Sprintf("replica %s (%s)", id, r.status(time.Now()).State))
		}
	}
	if len(names) == 0 {
		return "a goroutine still ran"
	}
	return "not stopped: " + strings.Join(names, ", ")
}

// goodbye is the agent's last word.
func (a *Agent) goodbye(hung string) {
	reason := "drained"
	if hung != "" {
		reason = "did not finish in time: " + hung
	}
	data, err := messages.Encode(&messages.Goodbye{Agent: a.id, Inc: a.incarnation(), Reason: reason})
	if err == nil && a.nc.IsConnected() {
		err = a.nc.Publish(a.subject(messages.KindGoodbye).String(), data)
	}
	if err != nil {
		a.cfg.Logger.Warn("goodbye not sent", "error", err)
	}
}

// flush returns when everything that was published on nc has reached the server.
func (a *Agent) flush(nc *nats.Conn) {
	if !nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		a.cfg.Logger.Warn("the server has not confirmed the last messages", "error", err)
	}
}
