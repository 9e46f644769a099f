package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
)

// pythonEcho is the example that is measured.
const pythonEcho = "examples/exec-python/echo.py"

// execMany is how many requests are under way where a rate is measured.
const execMany = 8

// execBench measures the example of a child process in Python against the same handler in
// Go: called straight, and through client, server and agent. What is left between the two is
// the pipes, the frames and Python.
func execBench(args []string, out io.Writer) error {
	f, help, err := parseData("exec", args, []string{"backend/128", "backend/301436", "fleet/128", "fleet/301436"}, 5*time.Second, nil)
	if help {
		return nil
	}
	if err != nil {
		return err
	}
	return f.run("exec", 1, out, (*stage).exec)
}

func (s *stage) exec(ctx context.Context, f dataFlags) (list []figure, err error) {
	script, err := findUp(pythonEcho)
	if err != nil {
		return nil, err
	}
	if f.fault != "" { // a child that answers something else
		if script, err = findUp("testing/bench/testdata/faulty.py"); err != nil {
			return nil, err
		}
		script += " " + f.fault
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		return nil, fmt.Errorf("the example is in Python: %w", err)
	}
	command := python + " " + script
	var alone, fleet [2]asker
	for i, kind := range []string{"exec", "echo"} {
		h, err := part{Kind: kind, Target: command}.handler(quiet(s))
		if err != nil {
			return nil, err
		}
		server, err := h.Open(ctx, backend.Open{Replica: "x/0", Task: messages.Task{Name: benchTask, Class: messages.Inference, Concurrency: execMany}})
		if err != nil {
			return nil, err
		}
		defer func() { _ = server.Close() }() // the process ends with the benchmark in any case
		alone[i] = func(ctx context.Context, body []byte) ([]byte, error) {
			limit, cancel := context.WithTimeout(ctx, askWithin)
			defer cancel()
			r, err := server.Serve(limit, &agent.Request{Request: messages.Request{ID: "x", Task: benchTask, Class: messages.Inference, Attempt: 1}, Body: body})
			return first(r.Body), err
		}
	}
	tasks := make([]messages.Task, 2)
	var replicas []string
	for i, kind := range []string{"exec", "echo"} {
		tasks[i] = messages.Task{Name: kind, Handler: benchTask, Class: messages.Inference, Delivery: messages.Direct, Concurrency: execMany, Deadline: 2000}
		if _, err := s.agent(ctx, tasks[i], 0, part{Name: kind, Kind: kind, Target: command}); err != nil {
			return nil, err
		}
		replicas = append(replicas, kind)
	}
	if err := s.routesOf(ctx, tasks, replicas); err != nil {
		return nil, err
	}
	c, stop, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	for i := range fleet {
		fleet[i] = func(ctx context.Context, body []byte) ([]byte, error) {
			a, err := c.c.Infer(ctx, router.Inference{Task: tasks[i].Name, Body: body, Deadline: askWithin})
			if err != nil {
				return nil, err
			}
			return first(a.Body), nil
		}
	}
	for _, name := range f.cases {
		askers, size := alone, 128
		if name == "fleet/128" || name == "fleet/301436" {
			askers = fleet
		}
		if name == "backend/301436" || name == "fleet/301436" {
			size = droid
		}
		times, err := serial(ctx, f.time/2, size, 20, askers[0], askers[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, latencies("exec", name, times[0], times[1])...)
		list = append(list, newFigure("exec", name, "added p50", micros(percentile(times[0], 0.5))-micros(percentile(times[1], 0.5)), "us", 0))
		rates, _, err := parallel(ctx, f.time/2, rateWindow, size, execMany, askers[0], askers[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, newFigure("exec", name, "rate", rates[0], "1/s", rates[1]))
	}
	return list, nil
}

// first is the number that a body begins with, which is what the checks compare.
func first(body []byte) []byte { return body[:min(len(body), numberBytes)] }
