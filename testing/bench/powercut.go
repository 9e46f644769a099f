package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
)

// The settings that are compared: the server's default, which writes to disk every two
// minutes, and sync_interval: always.
const (
	cutDefault = "default"
	cutAlways  = "always"
)

// cutMany is how many jobs are submitted at once.
const cutMany = 16

// powercut measures what a power cut of the only server takes, and what not to lose
// anything costs. The server's store is on a file system of its own, which is shut down under
// it without writing anything more: what was not synced is gone, as it would be.
func powercut(args []string, out io.Writer) error {
	f, help, err := parseData("powercut", args, []string{cutDefault, cutAlways}, 8*time.Second, func(*flag.FlagSet) {})
	if help {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var list []figure
	for _, name := range f.cases {
		figures, err := cutOnce(ctx, name, f)
		if err != nil {
			return fmt.Errorf("powercut: %s: %w", name, err)
		}
		list = append(list, figures...)
	}
	return printFigures(out, list, f.json)
}

// promises is what was said to those who submitted jobs before the cut.
type promises struct {
	mu     sync.Mutex
	cut    atomic.Bool
	stored []string        // acknowledged
	ended  map[string]bool // told that they have succeeded
	took   []time.Duration // of submissions
	failed error
}

// submit submits jobs one after the other until the cut; every other one is waited for.
func (p *promises) submit(ctx context.Context, c *router.Client, wait bool) {
	body := make([]byte, jobBytes)
	for !p.cut.Load() && ctx.Err() == nil {
		job := router.Job{Task: benchTask, Body: body}
		begun := time.Now()
		var id string
		var err error
		if wait {
			var j messages.Job
			job.Priority = messages.High // those of the others would be in its way
			j, err = c.Do(ctx, job, nil)
			id = j.ID
		} else {
			id, err = c.Submit(ctx, job)
		}
		took := time.Since(begun)
		if p.cut.Load() || ctx.Err() != nil {
			return // what comes after the cut nobody has heard
		}
		p.mu.Lock()
		if err != nil {
			p.failed = errors.Join(p.failed, err)
			p.mu.Unlock()
			return
		}
		p.stored = append(p.stored, id)
		if wait {
			p.ended[id] = true
		} else {
			p.took = append(p.took, took)
		}
		p.mu.Unlock()
	}
}

// broken returns how many promises do not hold, where states has what is found of each job:
// jobs that are lost, and results that were told and are gone, with their jobs or without.
func (p *promises) broken(states map[string]messages.GoalState) (lost, undone int) {
	for _, id := range p.stored {
		state, found := states[id]
		if !found {
			lost++
		}
		if p.ended[id] && state != messages.GoalSucceeded {
			undone++
		}
	}
	return lost, undone
}

// cutOnce runs jobs with a setting until the power is cut, and looks what is left.
func cutOnce(ctx context.Context, name string, f dataFlags) (list []figure, err error) {
	dir, err := os.MkdirTemp("", "fleetbus-powercut-")
	if err != nil {
		return nil, err
	}
	d := &disk{image: filepath.Join(dir, "disk"), at: filepath.Join(dir, "store")}
	s := &stage{dir: dir}
	defer func() { err = s.close(errors.Join(err, d.remove())) }()
	if err := d.make(); err != nil {
		return nil, err
	}
	server := func() (*actor, error) {
		a, url, err := s.start(ctx, part{Role: "server", Name: "server", Store: filepath.Join(d.at, "nats"), Sync: name == cutAlways})
		if err != nil {
			return nil, err
		}
		s.url = url
		if s.nc, err = bus.Connect(url, "bench"); err != nil {
			return nil, err
		}
		if s.beats, err = s.nc.SubscribeSync("fb." + benchFleet + ".*.hb.*"); err != nil {
			return nil, err
		}
		if s.bus, err = bus.New(s.nc, benchFleet, 0); err != nil {
			return nil, err
		}
		return a, s.until(ctx, "JetStream to answer", func(ctx context.Context) error {
			_, err := s.bus.KV(ctx, bus.RoutesKV)
			return err
		})
	}
	machine, err := server()
	if err != nil {
		return nil, err
	}
	task := messages.Task{Name: benchTask, Class: messages.Training, Concurrency: 4}
	worker, err := s.agent(ctx, task, 0, part{Name: "edge"})
	if err != nil {
		return nil, err
	}
	if err := s.routes(ctx, task, "edge"); err != nil {
		return nil, err
	}
	client, stop, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	p := &promises{ended: make(map[string]bool)}
	load, end := context.WithCancel(ctx)
	var all sync.WaitGroup
	for k := range cutMany {
		all.Go(func() { p.submit(load, client.c, k%2 == 0) })
	}
	begun := time.Now()
	timer := time.NewTimer(f.time)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	ran := time.Since(begun)
	p.cut.Store(true) // what is acknowledged from now on is not counted
	err = d.cut()
	machine.kill()
	worker.kill()
	end()
	stop()
	all.Wait()
	s.nc.Close()
	if err := errors.Join(err, p.failed, ctx.Err(), d.again()); err != nil {
		return nil, err
	}
	if _, err := server(); err != nil {
		return nil, fmt.Errorf("after the cut: %w", err)
	}
	states, err := s.whatIsLeft(ctx)
	if err != nil {
		return nil, err
	}
	if f.fault == faultDrop && len(p.stored) > 0 {
		delete(states, p.stored[len(p.stored)/2]) // as if it had been lost
	}
	lost, undone := p.broken(states)
	slices.Sort(p.took)
	list = []figure{
		newFigure("powercut", name, "acknowledged", float64(len(p.stored)), "jobs", 0),
		newFigure("powercut", name, "lost", float64(lost), "jobs", 0),
		newFigure("powercut", name, "results_told", float64(len(p.ended)), "jobs", 0),
		newFigure("powercut", name, "results_lost", float64(undone), "jobs", 0),
		newFigure("powercut", name, "rate", float64(len(p.stored))/ran.Seconds(), "1/s", 0),
		newFigure("powercut", name, "submit_p50", micros(percentile(p.took, 0.5)), "us", 0),
	}
	if name == cutAlways && lost+undone > 0 {
		return nil, fmt.Errorf("with sync_interval: always %d of %d acknowledged jobs are lost, and of %d results that were told %d", lost, len(p.stored), len(p.ended), undone)
	}
	return list, nil
}

// whatIsLeft reads the state of every job that the server knows.
func (s *stage) whatIsLeft(ctx context.Context) (map[string]messages.GoalState, error) {
	c := router.NewClient(s.nc, router.Config{Fleet: benchFleet, Origin: benchOwner, Logger: quiet(s)})
	states := make(map[string]messages.GoalState)
	limit, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	err := c.Jobs(limit, func(j messages.Job) bool {
		states[j.ID] = j.State
		return true
	})
	return states, err
}

// disk is a file system in a file.
type disk struct {
	image, at string
	mounted   bool
}

// diskSize is room for the jobs of a minute.
const diskSize = 2 << 30

func (d *disk) make() error {
	file, err := os.Create(d.image)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(diskSize), file.Close(), os.Mkdir(d.at, 0o700)); err != nil {
		return err
	}
	if err := command("mkfs.ext4", "-q", "-F", d.image); err != nil {
		return err
	}
	if err := command("mount", "-o", "loop", d.image, d.at); err != nil {
		return fmt.Errorf("%w; a loop device can be mounted by root alone, and not in every container", err)
	}
	d.mounted = true
	return nil
}

// again mounts the disk after a cut: its journal is replayed, as after a real one.
func (d *disk) again() error {
	return errors.Join(command("umount", d.at), command("mount", "-o", "loop", d.image, d.at))
}

func (d *disk) remove() error {
	if !d.mounted {
		return nil
	}
	return command("umount", "-l", d.at)
}

func command(name string, args ...string) error {
	out, err := runCommand(name, args...)
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
