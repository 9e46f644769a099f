package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// member is one environment of the fleet that is synced: a process, or two, one after the
// other.
type member struct {
	name, dir string
	fault     string
	run       *actor
	bytes     uint64 // that came to its processes before the one that runs
	now       uint64 // that came to the one that runs, when it was asked last
	first     int64  // memory of the process when it had begun
	grown     int64  // at most, of all its processes
}

type syncFleet struct {
	s       *stage
	store   *data.Store
	members []*member
}

// newSyncFleet registers the environments, as their agents would.
func (s *stage) newSyncFleet(ctx context.Context, f syncFlags) (*syncFleet, error) {
	fleet := &syncFleet{s: s, store: data.NewStore(s.bus)}
	for i := range f.environments {
		m := &member{name: "env-" + strconv.Itoa(i), dir: filepath.Join(s.dir, "env-"+strconv.Itoa(i))}
		if i == 0 {
			m.fault = f.fault
		}
		fleet.members = append(fleet.members, m)
		if err := s.put(ctx, bus.Agents, m.name, &messages.Registration{Environment: m.environment()}); err != nil {
			return nil, err
		}
	}
	return fleet, nil
}

func (m *member) environment() messages.Environment {
	return messages.Environment{ID: m.name, Tier: messages.Robot}.Normal()
}

func (f *syncFleet) begin(ctx context.Context, m *member) (err error) {
	if m.run, _, err = f.s.start(ctx, part{Role: "holder", Name: m.name, URL: f.s.url, Store: m.dir, Fault: m.fault}); err != nil {
		return err
	}
	m.first = m.run.memory("VmRSS")
	return nil
}

// ask asks the running processes how many bytes came to them.
func (f *syncFleet) ask() {
	for _, m := range f.members {
		if m.run == nil {
			continue
		}
		answer, err := f.s.nc.Request(statsSubject(m.name), nil, askWithin)
		if err == nil && len(answer.Data) == 8 {
			m.now = binary.BigEndian.Uint64(answer.Data)
		}
		m.grown = max(m.grown, m.run.peak()-m.first)
	}
}

func statsSubject(name string) string { return "bench.stats." + name }

// killInTransfer kills a process that has a part of the body, and not all.
func (f *syncFleet) killInTransfer(ctx context.Context, m *member) error {
	part := filepath.Join(m.dir, ".fleetbus", syncName+".part.json")
	err := f.s.until(ctx, m.name+" to be in the midst of the body", func(context.Context) error {
		_, err := os.Stat(part)
		if _, done := os.Stat(filepath.Join(m.dir, syncName)); done == nil {
			err = nil // it was too fast: it is away all the same, and has it
		}
		return err
	})
	if err != nil {
		return err
	}
	f.ask()
	m.run.kill()
	m.bytes, m.now, m.run = m.bytes+m.now, 0, nil
	return nil
}

// until waits until so many environments are shown as synced.
func (f *syncFleet) until(ctx context.Context, n int) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, lines, err := f.store.Status(ctx, syncName)
		if err != nil {
			return err
		}
		done := 0
		for _, l := range lines {
			if l.State == "synced" {
				done++
			}
		}
		f.ask()
		if done >= n {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d of %d environments: %w; they are %+v", n, len(f.members), ctx.Err(), lines)
		}
	}
}

// behind checks that those who are away are shown so, with all that they lack.
func (f *syncFleet) behind(ctx context.Context, away int) error {
	_, lines, err := f.store.Status(ctx, syncName)
	if err != nil {
		return err
	}
	n := 0
	for _, l := range lines {
		if l.State == "synced" {
			continue
		}
		if n++; l.Bytes <= 0 || l.Revisions != 1 || l.Behind <= 0 {
			return fmt.Errorf("%s is away and shown as %+v", l.Agent, l)
		}
	}
	if n > away {
		return fmt.Errorf("%d environments are shown as behind, %d are away", n, away)
	}
	return nil
}

// check reads what is on the disks, apart from what anybody says of it.
func (f *syncFleet) check(want string) error {
	for _, m := range f.members {
		got, err := fileDigest(filepath.Join(m.dir, syncName))
		if err != nil {
			return fmt.Errorf("%s is said to hold the body: %w", m.name, err)
		}
		if got != want {
			return fmt.Errorf("%s is said to hold the body, and has %s, not %s", m.name, got, want)
		}
	}
	return nil
}

func fileDigest(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func (f *syncFleet) received() (n uint64) {
	f.ask()
	for _, m := range f.members {
		n += m.bytes + m.now
	}
	return n
}

func (f *syncFleet) growth() (n int64) {
	for _, m := range f.members {
		n = max(n, m.grown)
	}
	return n
}

// trips measures round trips to the server, on a connection that carries nothing else,
// for d, or until ctx ends.
func (f *syncFleet) trips(ctx context.Context, d time.Duration) (times []time.Duration) {
	nc, err := bus.Connect(f.s.url, "bench trips")
	if err != nil {
		return nil
	}
	defer nc.Close()
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return times
		}
		begun := time.Now()
		if nc.FlushTimeout(startWithin) == nil {
			times = append(times, time.Since(begun))
		}
	}
}

// memory reads what a process takes, bytes; 0 where the system does not tell.
func (c *actor) memory(field string) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) == 3 && string(words[0]) == field+":" {
			n, _ := strconv.ParseInt(string(words[1]), 10, 64)
			return n << 10
		}
	}
	return 0
}

// peak is the most that a process ever took.
func (c *actor) peak() int64 { return c.memory("VmHWM") }

// holder is the process of one environment.
func (p part) holder(ctx context.Context, log *slog.Logger) error {
	nc, err := bus.Connect(p.URL, p.Name+" data")
	if err != nil {
		return err
	}
	defer nc.Close()
	side, err := bus.Connect(p.URL, p.Name)
	if err != nil {
		return err
	}
	defer side.Close()
	answers, err := side.SubscribeSync(statsSubject(p.Name))
	if err != nil {
		return err
	}
	go func() { // it ends with the connection
		for {
			m, err := answers.NextMsg(time.Hour)
			if err != nil {
				return
			}
			_ = m.Respond(binary.BigEndian.AppendUint64(nil, nc.Stats().InBytes)) // who asks asks again
		}
	}()
	cfg := data.HolderConfig{Fleet: benchFleet, Environment: messages.Environment{ID: p.Name, Tier: messages.Robot}, Dir: p.Store, Logger: log}
	switch p.Fault {
	case "lazy":
		return p.lazy(ctx, side)
	case "rot":
		cfg.Every = time.Hour
		cfg.OnChange = func(_ data.Record, path string) {
			_ = os.Truncate(path, 1) // it is shown by the check, or there is no fault
		}
	}
	fmt.Println("runs")
	return data.NewHolder(nc, cfg).Run(ctx)
}

// lazy is a planted fault: an environment that acknowledges what it was told to hold.
func (p part) lazy(ctx context.Context, nc *nats.Conn) error {
	b, err := bus.New(nc, benchFleet, 1)
	if err != nil {
		return err
	}
	store := data.NewStore(b)
	fmt.Println("runs")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		r, err := store.Record(ctx, syncName)
		if err != nil {
			continue // there is none yet
		}
		ack, err := messages.Encode(&messages.DataAck{Name: syncName, Agent: p.Name, State: messages.DataSynced, Held: r.Rev, Digest: r.Digest, Want: r.Rev, Have: r.Size})
		if err != nil {
			return err
		}
		kv, err := b.KV(ctx, bus.Acks)
		if err == nil {
			_, err = kv.Put(ctx, p.Name+"."+syncName, ack)
		}
		if err != nil {
			return err
		}
	}
}
