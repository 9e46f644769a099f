package coordinator

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/placement"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// stateTimeout is how long a leader has for each part of its answer. It answers from
// memory, in a millisecond; before the first part it puts all of them together, which for
// 50,000 agents is a second's work on a busy machine.
const stateTimeout = 3 * time.Second

// statePart is how many agents, replicas and tasks together one part of an answer has
// about: a fraction of what a message may have, unless their names and reasons are long.
// stateParts bounds the parts: it is the state of millions of agents.
const (
	statePart  = 1000
	stateParts = 1 << 12
)

// StateSubject is where the leader answers with its State.
func StateSubject(fleet string) string {
	return messages.Subject{Kind: messages.KindControl, Fleet: fleet, Site: messages.FleetSite, ID: "state"}.String()
}

// ReadState asks the leading coordinator for its picture of the fleet. The error has code
// unavailable where none leads.
func ReadState(ctx context.Context, b *bus.Bus) (messages.State, error) {
	s, err := readState(ctx, b)
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) {
		return messages.State{}, messages.Errorf(messages.CodeUnavailable, "ask for the state of fleet %s: no coordinator leads (%v); start one with `fleetbus coordinator`, or wait until a new leader is elected", b.Fleet, err)
	}
	return s, bus.Explain(err, "ask for the state of fleet "+b.Fleet)
}

// readState puts the parts of the answer together. They come in order, from one leader.
func readState(ctx context.Context, b *bus.Bus) (messages.State, error) {
	inbox := b.Conn.NewInbox()
	sub, err := b.Conn.SubscribeSync(inbox)
	if err != nil {
		return messages.State{}, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only for a closed connection
	if err := b.Conn.PublishRequest(StateSubject(b.Fleet), inbox, nil); err != nil {
		return messages.State{}, err
	}
	var whole messages.State
	for got, parts := 0, 1; got < parts; got++ {
		try, cancel := context.WithTimeout(ctx, stateTimeout)
		m, err := sub.NextMsgWithContext(try)
		cancel()
		if err != nil {
			return messages.State{}, err
		}
		var s messages.State
		if err := messages.Decode(m.Data, &s); err != nil {
			return messages.State{}, err
		}
		if got == 0 {
			whole = s
			if n, err := strconv.Atoi(m.Header.Get(messages.HeaderParts)); err == nil && n > 0 && n <= stateParts {
				parts = n
			}
			continue
		}
		if s.Term != whole.Term {
			return messages.State{}, messages.Errorf(messages.CodeConflict, "the leader changed in the middle of its answer; ask again")
		}
		whole.Agents = append(whole.Agents, s.Agents...)
		whole.Replicas = append(whole.Replicas, s.Replicas...)
		whole.Tasks = append(whole.Tasks, s.Tasks...)
		whole.Measured = append(whole.Measured, s.Measured...)
	}
	return whole, nil
}

// answerState answers ReadState while this coordinator leads.
func (c *Coordinator) answerState(ctx context.Context) (stop func(), err error) {
	sub, err := c.nc.Subscribe(StateSubject(c.cfg.Fleet), func(m *nats.Msg) {
		var s messages.State
		if !c.look(ctx, func(m *placement.Machine) { s = m.State() }) {
			leadsNoMore(m)
			return
		}
		s.Leader, s.Bad = c.cfg.ID, c.garbage.Counts()
		c.sendState(m.Reply, s)
	})
	if err != nil {
		return nil, bus.Explain(err, "answer for the state")
	}
	return func() { _ = sub.Drain() }, nil // what was asked already is answered
}

// leadsNoMore answers, as the server would, that nobody is there: who asks one that is just
// leaving is to ask again at once, and not to wait for an answer that does not come.
func leadsNoMore(question *nats.Msg) {
	_ = question.RespondMsg(&nats.Msg{Header: nats.Header{"Status": []string{"503"}}}) // whoever asked may be gone
}

func (c *Coordinator) sendState(reply string, s messages.State) {
	parts, err := inParts(s)
	if err != nil {
		c.log.Warn("the state cannot be sent", "error", err)
		return
	}
	for _, data := range parts {
		m := &nats.Msg{Subject: reply, Data: data}
		if len(parts) > 1 {
			m.Header = nats.Header{messages.HeaderParts: []string{strconv.Itoa(len(parts))}}
		}
		_ = c.nc.PublishMsg(m) // whoever asked may be gone
	}
}

// inParts encodes a state in messages of equal numbers of agents, replicas and tasks.
func inParts(s messages.State) ([][]byte, error) {
	for n := min(1+(len(s.Agents)+len(s.Replicas)+len(s.Tasks)+len(s.Measured))/statePart, stateParts); ; n = min(2*n, stateParts) {
		out := make([][]byte, 0, n)
		var err error
		for i := 0; i < n && err == nil; i++ {
			p := s
			p.Agents, p.Replicas, p.Tasks = part(s.Agents, i, n), part(s.Replicas, i, n), part(s.Tasks, i, n)
			p.Measured = part(s.Measured, i, n)
			if i > 0 {
				p.Bad = nil
			}
			var data []byte
			data, err = messages.Encode(&p)
			out = append(out, data)
		}
		if err == nil {
			return out, nil
		}
		if messages.CodeOf(err) != messages.CodePayloadTooLarge || n == stateParts {
			return nil, err
		}
	}
}

// part is the i-th of n parts of a list, nil where it has nothing.
func part[T any](list []T, i, n int) []T {
	from, to := len(list)*i/n, len(list)*(i+1)/n
	if from == to {
		return nil
	}
	return list[from:to]
}
