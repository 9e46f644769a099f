package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// When an inference is said to be accepted. Its caller needs the word to know who holds
// it, and that it was begun, should the holder die; a result that comes before says as
// much, so a quick request costs one message, not two.
//
//   - An execution that is acceptAfter old is accepted with the next round, of which
//     there is one every acceptEvery while something runs. So the word leaves at most 15 ms
//     after the beginning: before the caller looks after everybody who may have pulled
//     the request (20 ms), and before the server delivers it again (300 ms).
//   - An error is never the first word: before it accepted is sent, because an error
//     without it is a refusal, which promises that nothing was begun.
//   - An action is accepted at once.
const (
	acceptAfter = 5 * time.Millisecond
	acceptEvery = 10 * time.Millisecond
)

// word is what the caller of an execution has been told so far.
type word struct {
	subject string      // of accepted; "" where nobody waits
	said    atomic.Bool // accepted, or the result that makes it needless
}

// acceptor wakes the loop that accepts what goes on for longer.
type acceptor struct {
	wake chan struct{}
	busy atomic.Bool // the loop makes its rounds
}

// begun tells the loop that there is an execution to accept.
func (c *acceptor) begun() {
	if !c.busy.Load() {
		nudge(c.wake)
	}
}

// accept makes the rounds until ctx ends. It rests while nothing runs.
func (a *Agent) accept(ctx context.Context) {
	var list []*execution
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.accepts.wake:
		}
		a.accepts.busy.Store(true)
		tick := time.NewTicker(acceptEvery)
		for more := true; more; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case now := <-tick.C:
				list = a.flight.list(list[:0])
				more = false
				for _, e := range list {
					switch {
					case e.word.said.Load():
					case now.Sub(e.begun) >= acceptAfter:
						a.acceptNow(e)
					default:
						more = true
					}
				}
				clear(list) // executions hold bodies
			}
		}
		tick.Stop()
		// What was begun between the list and this is in the table by now.
		a.accepts.busy.Store(false)
		if a.flight.unsaid() {
			nudge(a.accepts.wake)
		}
	}
}

// acceptNow says once that an execution was begun, unless its result has been sent. That
// it may be lost is fine: the caller has its own clock.
func (a *Agent) acceptNow(e *execution) {
	if e.word.said.Swap(true) || e.word.subject == "" {
		return
	}
	header := nats.Header(a.reply(e.req, messages.ReplyAccepted).Header())
	if err := a.nc.PublishMsg(&nats.Msg{Subject: e.word.subject, Header: header}); err != nil {
		a.cfg.Logger.Debug("reply not sent", "kind", messages.ReplyAccepted, "request", e.req.ID, "error", err)
	}
}

// ended is to be called before the result of an execution is sent.
func (a *Agent) ended(e *execution, fault *messages.Error) {
	if fault != nil {
		a.acceptNow(e)
	}
	e.word.said.Store(true)
}

// unsaid reports whether something runs whose caller has heard nothing.
func (f *flight) unsaid() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.ids {
		if !e.word.said.Load() {
			return true
		}
	}
	return false
}
