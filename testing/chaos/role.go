package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/internal/embed"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// fleetName is the fleet of a run.
const fleetName = "chaos"

// The times of processes. The lease is short, so that the death of a leader is dealt with
// before the next fault. An agent that is told to stop may have to wait for an election
// (4 to 9 s, now and then two) before it can store how its jobs ended.
const (
	leaseTTL     = 3 * time.Second
	handoverWait = time.Second
	drainTimeout = 20 * time.Second
	reEngage     = 4 * time.Second // the least: a robot that lost its link acts again after it
	holdEvery    = 5 * time.Second // that a holder looks unasked
)

// playPart plays the part of a child until it is told to end, or its parent dies. ok is
// false where this process is no child.
func playPart() (code int, ok bool) {
	text, ok := os.LookupEnv(partEnv)
	if !ok {
		return 0, false
	}
	var p part
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		orders := make(chan string, 8)
		go func() {
			for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
				orders <- lines.Text()
			}
			os.Exit(1) // the parent is gone, and so is the run
		}()
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err = p.play(ctx, orders)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, p.Name+":", err)
		return 1, true
	}
	return 0, true
}

// play plays the part until ctx ends. Whatever fails is the process's end, and a finding.
func (p part) play(ctx context.Context, orders <-chan string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", p.Name, "life", p.Life)
	if p.Sample > 0 {
		defer p.sampling()()
	}
	switch p.Role {
	case roleServer:
		return p.server(ctx, log)
	case roleCoordinator, roleRouter, roleAgent, roleClient, roleDoor:
	default:
		return fmt.Errorf("there is no role %q", p.Role)
	}
	nc, err := p.connect(ctx, p.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	switch p.Role {
	case roleCoordinator:
		fmt.Println("runs")
		return coordinator.New(nc, coordinator.Config{Fleet: fleetName, ID: p.Name, LeaseTTL: leaseTTL, Logger: log}).Run(ctx)
	case roleRouter:
		fmt.Println("runs")
		return router.NewService(nc, router.Config{Fleet: fleetName, Origin: p.Name, Logger: log}).Run(ctx)
	case roleAgent:
		return p.agent(ctx, nc, orders, log)
	}
	return p.client(ctx, nc, log)
}

// connect connects as the program does, but only to the addresses that it was given:
// those of its link, and not those that the servers advertise. A server may be down or
// the link cut when a process starts, so it tries on.
func (p part) connect(ctx context.Context, name string) (*nats.Conn, error) {
	for {
		nc, err := bus.Connect(p.URL, name, nats.IgnoreDiscoveredServers())
		if err == nil || messages.CodeOf(err) != messages.CodeUnavailable {
			return nc, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p part) server(ctx context.Context, log *slog.Logger) error {
	s, err := embed.New(embed.Options{
		Name: p.Name, Port: p.Port, HTTPPort: embed.RandomPort, StoreDir: p.Dir + "/store-" + p.Name, Logger: log,
		MaxMemory: 1 << 30, MaxStore: 4 << 30,
		Cluster: embed.Cluster{Name: fleetName, Port: p.Cluster, Routes: p.Routes},
	})
	if err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	defer s.Stop()
	fmt.Println(s.ClientURL(), s.MonitorURL())
	<-ctx.Done()
	return nil
}

// agent is an agent with the mail of its environment, and what that is to hold.
func (p part) agent(ctx context.Context, nc *nats.Conn, orders <-chan string, log *slog.Logger) (err error) {
	beats, err := p.connect(ctx, p.Name+" beats")
	if err != nil {
		return err
	}
	defer beats.Close()
	cfg := agent.Config{
		Fleet: fleetName, BeatConn: beats, HandoverWait: handoverWait, DrainTimeout: drainTimeout, Logger: log,
		Environment: messages.Environment{ID: p.Name, Tier: p.Tier, Capacity: messages.Resources{Compute: 100, Storage: 100, Network: 100}, Latency: 1},
	}
	if p.Tier == messages.Robot {
		if cfg.SafetyConn, err = p.connect(ctx, p.Name+" safety"); err != nil {
			return err
		}
		defer cfg.SafetyConn.Close()
		cfg.ReEngage, cfg.StateDir = reEngage, p.Dir
	}
	w, err := history.Open(p.historyPath(p.Life), p.Name)
	if err != nil {
		return err
	}
	defer func() {
		if failed := w.Close(); err == nil {
			err = failed
		}
	}()
	letters, err := p.connect(ctx, p.Name+" mail")
	if err != nil {
		return err
	}
	defer letters.Close()
	bodies, err := p.connect(ctx, p.Name+" data")
	if err != nil {
		return err
	}
	defer bodies.Close()
	o := p.newPost(letters, w, log)
	holder := data.NewHolder(bodies, data.HolderConfig{Fleet: fleetName, Environment: cfg.Environment, Dir: heldIn(p.Dir, p.Name), Every: holdEvery, Logger: log})
	fmt.Println("runs")
	parts, inner := errgroup.WithContext(ctx)
	parts.Go(func() error { return o.peer.Run(inner) })
	parts.Go(func() error { return holder.Run(inner) })
	parts.Go(func() error { o.obey(inner, orders); return nil })
	parts.Go(func() error { return p.serve(inner, nc, cfg, w) })
	return parts.Wait()
}

// serve runs the agent itself.
func (p part) serve(ctx context.Context, nc *nats.Conn, cfg agent.Config, w *history.Writer) error {
	for {
		// As `fleetbus agent` does: what is unavailable, which the store of a cluster may be
		// for long, is tried again.
		err := agent.New(nc, cfg, agent.Func(messages.AnyHandler, (&model{part: p, hist: w}).serve)).Run(ctx)
		if messages.CodeOf(err) != messages.CodeUnavailable || ctx.Err() != nil || pause(ctx, time.Second) != nil {
			return err
		}
	}
}
