package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/proc"
	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/internal/heap"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
)

// playChild plays the part of a child until its parent closes its standard input, or
// dies. ok is false where this process is no child.
func playChild() (code int, ok bool) {
	if len(os.Args) > 1 && os.Args[1] == guardWord {
		return proc.Guard(os.Args[2:]), true
	}
	if code, ok := playModel(); ok {
		return code, true
	}
	text, ok := os.LookupEnv(childEnv)
	if !ok {
		return 0, false
	}
	var p part
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // its end is the news, whatever it is
			cancel()
		}()
		if err = profiled(p.Profile, p.Name, func() error { return p.play(ctx) }); ctx.Err() != nil && p.Profile == "" {
			err = nil // its servers end before it does
		}
		cancel()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, p.Name+":", err)
		return 1, true
	}
	return 0, true
}

// quiet logs errors alone: that servers are away is what is measured.
func quiet(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelError}))
}

func (p part) play(ctx context.Context) error {
	log := quiet(os.Stderr).With("process", p.Name)
	switch p.Role {
	case "policy", "oip": // model servers, which are not ours
	default:
		// The others stand for `fleetbus agent`, router, server and gateway, which do so too.
		// What one writes by hand runs in the same process, so no comparison is favoured.
		heap.Floor()
	}
	switch p.Role {
	case "server":
		return p.server(ctx)
	case "agent":
		return p.agent(ctx, log)
	case "deployer":
		return p.deployer(ctx, log)
	case "holder":
		return p.holder(ctx, log)
	case "router":
		nc, err := bus.Connect(p.URL, p.Name)
		if err != nil {
			return err
		}
		defer nc.Close()
		fmt.Println("runs")
		return router.NewService(nc, router.Config{Fleet: benchFleet, Origin: p.Name, Logger: log}).Run(ctx)
	case "policy":
		return p.policyServer(ctx)
	case "oip":
		return p.oipServer(ctx)
	case "gateway":
		return p.gateway(ctx, log)
	}
	return fmt.Errorf("there is no part %q", p.Role)
}

func (p part) server(ctx context.Context) error {
	// What it logs is that another server is away; what is wrong with it Start returns.
	o := embed.Options{Name: p.Name, Port: p.Port, StoreDir: p.Store, SyncAlways: p.Sync, Logger: slog.New(slog.DiscardHandler)}
	if p.Port == 0 {
		o.Port = embed.RandomPort
	}
	if p.Cluster > 0 {
		o.Cluster = embed.Cluster{Name: "bench", Port: p.Cluster, Routes: p.Routes}
	}
	s, err := embed.New(o)
	if err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	defer s.Stop()
	fmt.Println(s.ClientURL())
	<-ctx.Done()
	return nil
}

// agent runs an agent, and on a connection of their own the loops that one would write
// by hand.
func (p part) agent(ctx context.Context, log *slog.Logger) error {
	nc, err := bus.Connect(p.URL, p.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	handler, err := p.handler(log)
	if err != nil {
		return err
	}
	env := messages.Environment{ID: p.Name, Tier: messages.Edge, Capacity: messages.Resources{Compute: 100, Storage: 1000, Network: 100}, Latency: 1}
	a := agent.New(nc, agent.Config{Fleet: benchFleet, Environment: env, HandoverWait: -1, Logger: log}, handler)
	var parts sync.WaitGroup
	defer parts.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.Bare {
		bare, err := bus.Connect(p.URL, p.Name+" by hand")
		if err != nil {
			return err
		}
		defer bare.Close()
		if err := bareResponder(bare, &worker{service: p.Service}); err != nil {
			return err
		}
		parts.Go(func() { barePuller(ctx, bare, &worker{service: p.Service}) })
	}
	if p.Jobs {
		bare, err := bus.Connect(p.URL, p.Name+" by hand")
		if err != nil {
			return err
		}
		defer bare.Close()
		parts.Go(func() {
			if err := loopWorker(ctx, bare, &worker{service: p.Service}); err != nil {
				log.Error("the loop by hand", "error", err)
			}
		})
	}
	fmt.Println("runs")
	return a.Run(ctx)
}

// The faults that can be planted in an executor, to see that the benchmarks notice: one
// request in faultyEvery is answered with what another one asked for, or never.
const (
	faultWrong  = "wrong"
	faultDrop   = "drop"
	faultyEvery = 20
)

// worker is the model: it takes its time and answers with the number that a body begins
// with.
type worker struct {
	service time.Duration
	fault   string
}

const numberBytes = 8

func (w *worker) serve(ctx context.Context, body []byte) ([]byte, error) {
	if len(body) < numberBytes {
		return nil, messages.Errorf(messages.CodeBadRequest, "a body of %d bytes; it begins with a number of %d", len(body), numberBytes)
	}
	n := binary.BigEndian.Uint64(body)
	wait := w.service
	if n%faultyEvery == faultyEvery-1 {
		switch w.fault {
		case faultWrong:
			n--
		case faultDrop:
			wait = time.Hour
		}
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return binary.BigEndian.AppendUint64(nil, n), nil
}

// profiled runs f, with a CPU profile of it in dir unless that is "".
func profiled(dir, name string, f func() error) (err error) {
	if dir == "" {
		return f()
	}
	file, err := os.Create(filepath.Join(dir, name+".pprof"))
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return errors.Join(err, file.Close())
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, file.Close())
}

// ports returns n ports of loopback that are free now.
func ports(n int) (list []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // only when all are known, so that they differ
		list = append(list, l.Addr().(*net.TCPAddr).Port)
	}
	return list, nil
}

// bareSubject is where the hand-written responder listens.
const bareSubject = "by.hand"

// bareResponder is core request-reply as one writes it by hand.
func bareResponder(nc *nats.Conn, w *worker) error {
	if _, err := nc.Subscribe(bareSubject, func(m *nats.Msg) {
		if answer, err := w.serve(context.Background(), m.Data); err == nil {
			_ = m.Respond(answer) // without a connection nobody waits
		}
	}); err != nil {
		return err
	}
	return nc.Flush()
}
