package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// The load of one client, at most: of what waits for its answer before it goes on, less
// comes while the fleet is busy with itself.
const (
	cameraEvery  = 66 * time.Millisecond  // inference with a key: the newest counts
	seeEvery     = 250 * time.Millisecond // inference without
	lookEvery    = 100 * time.Millisecond // straight
	moveEvery    = 150 * time.Millisecond // to each robot
	beepEvery    = 250 * time.Millisecond // to each robot; it waits where the robot is away
	learnEvery   = 3 * time.Second
	doorSeeEvery = 100 * time.Millisecond
	doorActEvery = 200 * time.Millisecond // to each robot
)

// The deadlines of a client's actions. beepDeadline leaves a robot the time to come back.
const (
	moveDeadline = time.Second
	beepDeadline = 4 * time.Second
)

// finishWithin bounds what a client that is told to end still waits for: its jobs, of
// which an executor that died last may have held some until the lease was over.
const finishWithin = 90 * time.Second

// asker asks, and writes down what it asked and how that ended.
type asker struct {
	part
	hist    *history.Writer
	log     *slog.Logger
	origin  string
	load    context.Context // ends when no more is to be asked
	answer  context.Context // ends when nothing is waited for any more
	flights sync.WaitGroup
}

// client asks until it is told to end, then waits for what is under way.
func (p part) client(ctx context.Context, nc *nats.Conn, log *slog.Logger) (err error) {
	before, err := p.unfinished()
	if err != nil {
		return err
	}
	w, err := history.Open(p.historyPath(p.Life), p.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	answer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(finishWithin, cancel) })()
	a := &asker{part: p, hist: w, log: log, origin: p.Name, load: ctx, answer: answer}
	if p.Role == roleDoor {
		fmt.Println("runs")
		newDoor(a, nc).ask()
		a.flights.Wait()
		return nil
	}
	c := router.NewClient(nc, router.Config{Fleet: fleetName, Origin: p.Name, Logger: log})
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running) }()
	defer func() {
		end()
		err = errors.Join(err, <-ended)
	}()
	if err := c.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	fmt.Println("runs")
	bodies, err := p.connect(ctx, p.Name+" data")
	if err != nil {
		if ctx.Err() != nil {
			return nil // it was told to end before it had begun
		}
		return err
	}
	defer bodies.Close()
	puts, err := newWriter(a, bodies)
	if err != nil {
		return err
	}
	a.inTurn(putEvery, puts.put)
	l := &library{asker: a, c: c}
	l.ask(before)
	a.flights.Wait()
	return nil
}

// every calls f at a pace, beside one another, until no more is to be asked.
func (a *asker) every(pace time.Duration, f func(n uint64)) {
	a.loop(pace, func(n uint64) { a.flights.Go(func() { f(n) }) })
}

// inTurn calls f at a pace, one after the other.
func (a *asker) inTurn(pace time.Duration, f func(n uint64)) {
	a.loop(pace, f)
}

func (a *asker) loop(pace time.Duration, f func(n uint64)) {
	a.flights.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for n := uint64(1); ; n++ {
			select {
			case <-a.load.Done():
				return
			case <-tick.C:
				f(n)
			}
		}
	})
}

// body makes the body of a request, of 64 bytes to 8 kB.
func body() []byte {
	b := make([]byte, 64<<rand.IntN(8))
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// sent writes that a request is about to be asked.
func (a *asker) sent(r history.Record, body []byte) history.Record {
	r.Kind, r.Origin, r.Sum, r.Life = history.Sent, a.origin, crc32.ChecksumIEEE(body), a.Life
	if r.ID == "" {
		r.ID = nuid.Next()
	}
	a.hist.Write(r)
	return r
}

// end writes how a request ended: in an answer that names its execution, or in an error.
func (a *asker) end(r history.Record, exec []byte, agent string, attempt int, err error) {
	r.Millis, r.Sum = 0, 0
	switch e := messages.AsError(err, messages.CodeInternal); {
	case a.hit(plantError, r.Class, r.ID):
		r.Kind, r.Code = history.Refused, messages.CodeInternal
	case e != nil:
		r.Kind, r.Code, r.Text = history.Refused, e.Code, e.Message
	case a.hit(plantRefused, r.Class, r.ID):
		r.Kind, r.Code = history.Refused, messages.CodeDeadline
	default:
		r.Kind, r.Exec, r.Agent, r.Attempt = history.Answered, string(exec), agent, attempt
	}
	switch {
	case a.hit(plantForged, r.Class, r.ID) && r.Kind == history.Answered:
		r.Exec = nuid.Next()
	case a.hit(plantSilent, r.Class, r.ID):
		return
	case a.hit(plantDouble, r.Class, r.ID):
		a.hist.Write(r)
	}
	a.hist.Write(r)
}

// unfinished returns what earlier lives of this client submitted as jobs, and of which
// they did not see the end, by id.
func (p part) unfinished() (map[string]history.Record, error) {
	open := make(map[string]history.Record)
	for life := 1; life < p.Life; life++ {
		list, err := history.Read(p.historyPath(life))
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			switch {
			case r.Class != messages.Training:
			case r.Kind == history.Sent:
				open[r.ID] = r
			case r.Kind != history.Stored:
				delete(open, r.ID)
			}
		}
	}
	return open, nil
}
