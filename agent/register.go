package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Times of registration. They depend on one another:
//
//   - apiTime bounds one request to JetStream, which answers nothing while a group has
//     no leader.
//   - startTime is how long an agent that starts tries to register before it gives up
//     and says why: longer than an election after a killed server (4 to 9 s), short
//     enough for a person who waits. Once registered it tries for ever.
//   - lookAgain is the pause before a registration that seems lost is read a second
//     time: a read may come from a server that is behind.
const (
	apiTime   = 5 * time.Second
	startTime = 12 * time.Second
	lookAgain = 500 * time.Millisecond
)

// apiContext bounds one request to JetStream. It also ends with a reconnection: what was
// asked on the old connection is lost, and to wait for it would hold up the agent for
// the whole limit after a server's restart.
func (a *Agent) apiContext(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	stop := a.reconnected.call(cancel)
	return ctx, func() { stop(); cancel() }
}

// enrol registers the agent; it keeps trying for startTime where JetStream does not
// answer.
func (a *Agent) enrol(ctx context.Context) error {
	wait := backoff{least: 200 * time.Millisecond, most: 2 * time.Second}
	until := time.Now().Add(startTime)
	for {
		err := a.register(ctx)
		if messages.CodeOf(err) != messages.CodeUnavailable || ctx.Err() != nil {
			return err
		}
		pause := wait.step()
		if time.Now().Add(pause).After(until) {
			return err
		}
		a.cfg.Logger.Warn("not registered yet", "error", err)
		sleep(ctx, pause, nil)
	}
}

// register writes the agent's registration, whose revision is its incarnation.
func (a *Agent) register(ctx context.Context) error {
	ctx, cancel := a.apiContext(ctx, apiTime)
	defer cancel()
	kv, err := a.bus.KV(ctx, bus.Agents)
	if err != nil {
		return err
	}
	data, err := messages.Encode(&messages.Registration{Environment: a.cfg.Environment})
	if err != nil {
		return err
	}
	rev, err := kv.Put(ctx, a.id, data)
	if err != nil {
		return bus.Explain(err, "register agent "+a.id)
	}
	a.inc.Store(&messages.Incarnation{Epoch: kv.Epoch, Revision: rev})
	return nil
}

// claim tells older processes of this id to stop. Nobody answers; one that does not
// hear it finds the newer registration when it reconnects, or is told by the
// coordinator's next document.
func (a *Agent) claim() {
	data, err := messages.Encode(&messages.Claim{Agent: a.id, Inc: a.incarnation(), Host: a.cfg.Host})
	if err == nil {
		err = a.nc.Publish(a.subject(messages.KindClaim).String(), data)
	}
	if err != nil {
		a.cfg.Logger.Warn("claim not sent", "error", err)
	}
}

// claimed handles another process's claim, or its own.
func (a *Agent) claimed(m *nats.Msg) {
	var c messages.Claim
	if err := messages.Decode(m.Data, &c); err != nil {
		a.garbage.Note(a.cfg.Logger, "claim", err)
		return
	}
	if c.Agent == a.id && a.incarnation().Before(c.Inc) {
		a.fail(a.superseded(c.Inc, c.Host))
	}
}

// superseded is the error of an agent that another took the place of.
func (a *Agent) superseded(by messages.Incarnation, host string) *messages.Error {
	where := "elsewhere"
	if host != "" {
		where = "on host " + host
	}
	return messages.Errorf(messages.CodeConflict, "agent %q: incarnation %s on host %s was superseded by incarnation %s %s; two processes must not run with one agent id: stop one, or give it another id",
		a.id, a.incarnation(), a.cfg.Host, by, where)
}

// standing is what the registration in the bucket says about this process.
type standing int

const (
	standingOwn   standing = iota // it is this process's
	standingOther                 // a newer process registered
	standingGone                  // it is missing, or older than this process's: storage was lost
)

// judge compares the incarnation of this process with that in the bucket; found has
// revision 0 where there is none.
func judge(own, found messages.Incarnation) standing {
	switch {
	case found == own:
		return standingOwn
	case found.Revision > 0 && own.Before(found):
		return standingOther
	}
	return standingGone
}

// confirm checks after a reconnection that the agent is still who it was, and
// registers it again where the server has forgotten it.
func (a *Agent) confirm(ctx context.Context) error {
	for look := 1; ; look++ {
		found, err := a.registered(ctx)
		if err != nil {
			return err
		}
		own := a.incarnation()
		switch judge(own, found) {
		case standingOwn:
			return nil
		case standingOther:
			a.fail(a.superseded(found, ""))
			return nil
		}
		// In a bucket that was made again the absence is certain; in the old one it may
		// be a read from a server that is behind.
		if found.Epoch == own.Epoch && look == 1 {
			sleep(ctx, lookAgain, nil)
			continue
		}
		if err := a.register(ctx); err != nil {
			return err
		}
		a.cfg.Logger.Warn("the registration was lost; registered again", "old", own, "new", a.incarnation())
		a.claim()
		return nil
	}
}

// registered returns the incarnation in the bucket: with revision 0 where the agent is
// not registered there.
func (a *Agent) registered(ctx context.Context) (messages.Incarnation, error) {
	ctx, cancel := a.apiContext(ctx, apiTime)
	defer cancel()
	kv, err := a.bus.KV(ctx, bus.Agents)
	if err != nil {
		return messages.Incarnation{}, err
	}
	e, err := kv.Get(ctx, a.id)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return messages.Incarnation{Epoch: kv.Epoch}, nil
	case err != nil:
		return messages.Incarnation{}, bus.Explain(err, "read the registration of agent "+a.id)
	}
	return messages.Incarnation{Epoch: kv.Epoch, Revision: e.Revision()}, nil
}

// watch follows the connection, and tells everybody who waits for it that it is back.
// Nothing in it waits: a connection that comes back twice in a row does so at once for
// all, while the questions of the first time are still without an answer.
func (a *Agent) watch(ctx context.Context, status <-chan nats.Status) {
	if a.nc.IsClosed() {
		a.connectionClosed()
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-status:
			if !ok || s == nats.CLOSED {
				a.connectionClosed()
				return
			}
			a.cfg.Logger.Info("reconnected", "server", a.nc.ConnectedUrlRedacted())
			a.bus.Forget()
			a.jobs.forget()
			a.reconnected.fire() // ends what was asked on the old connection
			nudge(a.back)
			a.beatNow()
		}
	}
}

// reconfirm confirms the registration and reads the agent's document after every
// reconnection, and tries again until that has worked.
func (a *Agent) reconfirm(ctx context.Context) {
	var retry <-chan time.Time
	wait := backoff{least: 200 * time.Millisecond, most: 5 * time.Second}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.back:
			wait.reset()
		case <-retry:
		}
		retry = nil
		err := a.confirm(ctx)
		if err == nil {
			err = a.readOwn(ctx)
		}
		if err != nil && ctx.Err() == nil {
			a.cfg.Logger.Warn("not confirmed yet after a reconnection", "error", err)
			retry = time.After(wait.step())
		}
		a.beatNow()
	}
}

func (a *Agent) connectionClosed() {
	why := "it was closed by this program"
	if err := a.nc.LastError(); err != nil {
		why = err.Error()
	}
	a.fail(messages.Errorf(messages.CodeUnavailable, "agent %q: its connection to NATS is closed (%s) and will not come back; connect with nats.MaxReconnects(-1), and close the connection only after Run has returned", a.id, why))
}

// recall reads the agent's own document when it starts, so that it serves where no
// coordinator lives to send it one.
func (a *Agent) recall(ctx context.Context) {
	wait := backoff{least: 200 * time.Millisecond, most: 5 * time.Second}
	for ctx.Err() == nil {
		err := a.readOwn(ctx)
		if err == nil {
			return
		}
		a.cfg.Logger.Warn("own placement not read yet", "error", fmt.Sprint(err))
		sleep(ctx, wait.step(), a.reconnected.next())
	}
}
