package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/execio"
	"github.com/fleetbus/fleetbus/agent/backend/httpio"
	backend "github.com/fleetbus/fleetbus/agent/backend/openpi"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/router/gateway"
	"github.com/fleetbus/fleetbus/router/gateway/httpgate"
	"github.com/fleetbus/fleetbus/router/gateway/openpi"
	"github.com/fleetbus/fleetbus/testing/oip"
	"github.com/fleetbus/fleetbus/testing/policy"
)

// handler is what an agent serves its task with.
func (p part) handler(log *slog.Logger) (agent.Handler, error) {
	switch p.Kind {
	case "":
		w := &worker{service: p.Service, fault: p.Fault}
		return agent.Func(benchTask, func(ctx context.Context, r *agent.Request) ([]byte, error) {
			return w.serve(ctx, r.Body)
		}), nil
	case "openpi":
		return backend.New(backend.Options{Name: benchTask, URL: p.Target, Logger: log}), nil
	case "oip":
		return httpio.New(httpio.Options{Name: benchTask, URL: p.Target, OIP: true, Logger: log}), nil
	case "exec":
		return execio.New(execio.Options{Name: benchTask, Command: strings.Fields(p.Target), Logger: log}), nil
	case "echo":
		return agent.Func(benchTask, func(_ context.Context, r *agent.Request) ([]byte, error) { return r.Body, nil }), nil
	}
	return nil, fmt.Errorf("there is no backend %q", p.Kind)
}

// listenAs serves a handler on the part's port until ctx ends, and says where.
func (p part) listenAs(ctx context.Context, h http.Handler) error {
	var l net.Listener
	for begun := time.Now(); ; { // the port of a process that was killed a moment ago
		var err error
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(p.Port)); err == nil {
			break
		}
		if time.Since(begun) > 5*time.Second {
			return err
		}
		<-time.After(10 * time.Millisecond)
	}
	fmt.Println(l.Addr())
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }() // it ends with the process
	<-ctx.Done()
	return nil
}

// policyServer answers every observation with its id, or as its fault says.
func (p part) policyServer(ctx context.Context) error {
	return p.listenAs(ctx, &policy.Server{Metadata: policy.Metadata(), Parallel: true, Infer: func(ctx context.Context, o []byte) ([]byte, error) {
		id := policy.IDOf(o)
		wait := p.Service
		if id%faultyEvery == faultyEvery-1 {
			switch p.Fault {
			case faultWrong:
				id--
			case faultDrop:
				wait = time.Hour
			}
		}
		if wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return policy.Answer(id), nil
	}})
}

// oipServer is a model server of the Open Inference Protocol.
func (p part) oipServer(ctx context.Context) error {
	return p.listenAs(ctx, &oip.Server{Service: p.Service, Fault: p.Fault})
}

// gateway is a front door, as `fleetbus gateway` runs one.
func (p part) gateway(ctx context.Context, log *slog.Logger) error {
	nc, err := bus.Connect(p.URL, p.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	client := router.NewClient(nc, router.Config{Fleet: benchFleet, Origin: p.Name, Logger: log})
	l, err := gateway.Listen(ctx, "127.0.0.1:0", gateway.Keys{}, 1024)
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.Run(run) // what is wrong with it Ready says
	}()
	defer func() {
		stop()
		<-ended
	}()
	if err := client.Ready(ctx); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	if p.Kind == "http" {
		return httpgate.New(client, nc.MaxPayload(), httpgate.Config{Logger: log}).Run(ctx, l, gateway.TLS{})
	}
	return openpi.New(client, nc.MaxPayload(), openpi.Config{Task: benchTask, Logger: log}).Run(ctx, l, gateway.TLS{})
}

// findUp finds a file of the module from the working directory upwards.
func findUp(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("%s is nowhere above the working directory; run the benchmark inside the module", name)
		}
		dir = parent
	}
}
