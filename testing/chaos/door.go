package main

import (
	"errors"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/chaos/check"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// doorPatience is how much longer than a deadline a client of the door waits for the
// router's word about it.
const doorPatience = time.Second

// door asks the routers with plain NATS requests, as docs/protocol.md tells a client in
// any language to.
type door struct {
	*asker
	nc *nats.Conn
}

func newDoor(a *asker, nc *nats.Conn) *door { return &door{a, nc} }

func (d *door) ask() {
	d.every(doorSeeEvery, func(uint64) {
		d.request(history.Record{Class: messages.Inference, Task: seeTask, Millis: 1500}, "inference."+d.origin+"."+seeTask)
	})
	episode := nuid.Next()
	for _, robot := range d.Robots {
		d.inTurn(doorActEvery, func(n uint64) {
			d.request(history.Record{Class: messages.Action, Task: moveTask, Episode: robot + "-" + episode, Seq: n, Millis: float64(moveDeadline.Milliseconds())},
				"action."+d.origin+"."+robot+"."+moveTask)
		})
	}
}

// request asks on fb.<fleet>.<site>.req.<rest>.
func (d *door) request(r history.Record, rest string) {
	b := body()
	r.Via = "door"
	r = d.sent(r, b)
	m := &nats.Msg{Subject: "fb." + fleetName + ".main.req." + rest, Data: b, Header: nats.Header{
		"Fb-Id": {r.ID}, "Fb-Left-Ms": {strconv.FormatFloat(r.Millis, 'f', 0, 64)},
	}}
	if r.Class == messages.Action {
		m.Header["Fb-Episode"], m.Header["Fb-Seq"] = []string{r.Episode}, []string{strconv.FormatUint(r.Seq, 10)}
	}
	answer, err := d.nc.RequestMsg(m, messages.Millis(r.Millis)+doorPatience)
	if err != nil {
		// No router, or one that died with the request. That it was not sent because there is
		// no connection is known; it is no news for the checker.
		d.end(r, nil, "", 0, messages.Errorf(check.NoReply, "%v", err))
		return
	}
	reply, err := messages.ParseReply(messages.Header(answer.Header))
	switch {
	case err != nil:
		d.end(r, nil, "", 0, err)
	case reply.Err != nil:
		d.end(r, nil, "", 0, reply.Err)
	case reply.ID != r.ID:
		d.end(r, nil, "", 0, errors.New("the answer is that of request "+reply.ID))
	default:
		d.end(r, answer.Data, reply.Agent, reply.Attempt, nil)
	}
}
