package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/exchange/mail"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/chaos/check"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// The messages of an agent: to each of its two neighbours in the list of agents one every
// mailEvery; one in mailExpiring expires.
const (
	mailEvery    = 250 * time.Millisecond
	mailExpiring = 4
	mailExpiry   = 5 * time.Second
)

// The bodies that clients put. All agents are to hold bodyName.
const (
	bodyName = "map"
	putEvery = 3 * time.Second
	putTime  = 20 * time.Second // an election, and a body
	bodySize = 100_000
)

// heldIn is where an agent keeps its bodies, over its lives.
func heldIn(dir, agent string) string { return filepath.Join(dir, "data-"+agent) }

// Orders to an agent, lines on its standard input. quiet is answered by a line of the same
// when everything that was being sent has an end.
const (
	orderSend  = "send"
	orderQuiet = "quiet"
)

// post is an agent's mail.
type post struct {
	part
	hist    *history.Writer
	peer    *mail.Peer
	flights sync.WaitGroup
}

// newPost makes the mail of an agent on a connection of its own.
func (p part) newPost(nc *nats.Conn, hist *history.Writer, log *slog.Logger) *post {
	o := &post{part: p, hist: hist}
	o.peer = mail.New(nc, mail.Config{Fleet: fleetName, Name: p.Name, Handler: o.take, Logger: log})
	return o
}

// obey sends from the order to send on until the order to be quiet, or the end of ctx. A
// later life sends at once.
func (o *post) obey(ctx context.Context, orders <-chan string) {
	load, stop := context.WithCancel(ctx)
	defer func() { stop(); o.flights.Wait() }()
	if o.Life > 1 {
		o.send(ctx, load)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case order := <-orders:
			switch {
			case order == orderSend && o.Life == 1:
				o.send(ctx, load)
			case order == orderQuiet:
				stop()
				o.flights.Wait()
				fmt.Println(orderQuiet)
			}
		}
	}
}

// send starts sending to the neighbours.
func (o *post) send(ctx, load context.Context) {
	stream := nuid.Next()
	for _, to := range o.Peers {
		o.flights.Go(func() {
			tick := time.NewTicker(mailEvery)
			defer tick.Stop()
			for n := uint64(1); ; n++ {
				select {
				case <-load.Done():
					return
				case <-tick.C:
				}
				l := mail.Letter{To: to, ID: nuid.Next(), Body: fmt.Appendf(nil, "%s %d %s", stream, n, body())}
				if n%mailExpiring == 0 {
					l.Expires = mailExpiry
				}
				o.letter(ctx, l, stream, n)
			}
		})
	}
}

// letter sends one, again under its name where it is not known whether it was stored.
func (o *post) letter(ctx context.Context, l mail.Letter, stream string, n uint64) {
	r := history.Record{Kind: history.Sent, ID: l.ID, Class: check.Message, Origin: o.Name, Agent: l.To, Episode: stream, Seq: n,
		Millis: float64(l.Expires.Milliseconds()), Sum: crc32.ChecksumIEEE(l.Body), Life: o.Life}
	begun := time.Now()
	o.hist.Write(r)
	all := l.Expires
	for {
		_, err := o.peer.Send(ctx, l)
		if err == nil {
			r.Kind = history.Stored
			break
		}
		e := messages.AsError(err, messages.CodeInternal)
		l.Expires = all - time.Since(begun)
		if e.Code == messages.CodeUnavailable && (all == 0 || l.Expires >= mail.LeastExpiry) && pause(ctx, 100*time.Millisecond) == nil {
			if all == 0 {
				l.Expires = 0
			}
			continue
		}
		r.Kind, r.Code, r.Text = history.Refused, e.Code, e.Message
		break
	}
	o.hist.Write(r)
}

// take handles a message: it writes down that it came.
func (o *post) take(_ context.Context, m *mail.Message) error {
	r := history.Record{Kind: history.Begin, ID: m.ID, Class: check.Message, Origin: m.From, Sum: crc32.ChecksumIEEE(m.Body), Life: o.Life, Exec: nuid.Next()}
	if _, err := fmt.Fscanf(bytes.NewReader(m.Body), "%s %d", &r.Episode, &r.Seq); err != nil {
		return messages.Errorf(messages.CodeBadRequest, "a message that is not ours: %v", err)
	}
	switch {
	case o.hit(plantMailLost, check.Message, m.ID):
		return nil
	case o.hit(plantMailTwice, check.Message, m.ID):
		o.hist.Write(r)
	case o.hit(plantMailOrder, check.Message, m.ID):
		r.Seq += 1000
	}
	o.hist.Write(r)
	return nil
}

// writer puts bodies, and goes by the revision that it has seen last.
type writer struct {
	*asker
	store *data.Store
	rev   uint64
}

func newWriter(a *asker, nc *nats.Conn) (*writer, error) {
	b, err := bus.New(nc, fleetName, 0)
	if err != nil {
		return nil, err
	}
	return &writer{asker: a, store: data.NewStore(b)}, nil
}

// put puts a body in place of the revision that it knows. Who lost against another writer
// reads, and tries once more.
func (w *writer) put(uint64) {
	if messages.CodeOf(w.once()) == messages.CodeConflict {
		_ = w.once() // its end is in the history
	}
}

func (w *writer) once() error {
	ctx, cancel := context.WithTimeout(w.answer, putTime)
	defer cancel()
	b := bytes.Repeat(body(), 1+bodySize/8192)
	r := w.sent(history.Record{Class: check.Sync, Task: bodyName, Seq: w.rev}, b)
	record, err := w.store.Put(ctx, data.Body{Name: bodyName, By: w.Name, Expect: &w.rev}, bytes.NewReader(b))
	if err == nil {
		w.rev = record.Rev
		stored(w.hist, r, b, record.Rev)
		if w.hit(plantWriters, check.Sync, r.ID) {
			stored(w.hist, w.sent(history.Record{Class: check.Sync, Task: bodyName}, b), b, record.Rev)
		}
		return nil
	}
	if records, _, err := w.store.Status(ctx, bodyName); err == nil && len(records) == 1 {
		w.rev = records[0].Rev
	}
	w.end(r, nil, "", 0, err)
	return err
}

// stored writes that a body is stored.
func stored(hist *history.Writer, r history.Record, body []byte, rev uint64) {
	sum := sha256.Sum256(body)
	r.Kind, r.At, r.Seq, r.Text = history.Stored, time.Time{}, rev, hex.EncodeToString(sum[:])
	hist.Write(r)
}
