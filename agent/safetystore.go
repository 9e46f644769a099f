package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/fleetbus/fleetbus/agent/latch"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// rereadEvery bounds how long an order can be missed that was saved and never heard: a
// read after a reconnection may come from a server that is behind. Three reads each time
// are little beside thirty heartbeats.
const rereadEvery = 30 * time.Second

// maxLatchFile bounds a state file, bytes: a latch with reasons of a kilobyte each.
const maxLatchFile = 64 << 10

// latchFile keeps the latch of a robot on its own disk: what it decides while its link
// is lost can be nowhere else.
type latchFile struct{ path string }

// openLatchFile makes the directory where it is missing.
func openLatchFile(dir, fleet, robot string) (*latchFile, error) {
	dir = filepath.Join(dir, fleet)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, messages.Errorf(messages.CodeBadRequest, "state directory of robot %q: %v; its stops must survive a restart, so name one that can be written", robot, err)
	}
	return &latchFile{filepath.Join(dir, robot+".latch.json")}, nil
}

// load returns what was saved; ok is false where nothing was.
func (f *latchFile) load() (l messages.Latch, ok bool, err error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return l, false, nil
	}
	if err == nil && info.Size() > maxLatchFile {
		err = fmt.Errorf("it has %d bytes", info.Size())
	}
	if err != nil {
		return l, false, err
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return l, false, err
	}
	return l, true, json.Unmarshal(data, &l)
}

// save replaces the file by one with l: whole, or not at all, and on the disk when it
// returns.
func (f *latchFile) save(l messages.Latch) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.path), ".latch-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // fails where it has been renamed
	_, err = tmp.Write(append(data, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), f.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(f.path))
	}
	return err
}

// syncDir makes a rename in a directory durable. Windows knows no such thing; a rename
// there is as durable as its file system makes it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// recall takes over what the file says. One that cannot be read may have said that the
// robot is stopped: so it is.
func (s *safety) recall() {
	l, ok, err := s.store.load()
	switch {
	case err == nil && ok && l.Agent != s.a.id:
		err = fmt.Errorf("it is of robot %q", l.Agent)
	case err == nil && !ok:
		return
	}
	s.step(func(m *latch.Machine) latch.Effects {
		if err != nil {
			return m.Distrust(fmt.Sprintf("its state file %s cannot be read (%v), and may have said so", s.store.path, err))
		}
		return m.Restore(l)
	})
	if err == nil {
		l.V = messages.Version // the file does not have it
		s.saved = l
	}
	nudge(s.dirty)
}

// save writes the latch to the file where it has changed, and has it written to the
// bucket. It may be called from many goroutines; when it returns nil the file has a latch
// that is at least as new as the one at the call.
func (s *safety) save() error {
	s.saveMu.Lock()
	defer s.saveMu.Unlock()
	s.mu.Lock()
	held := s.m.Held()
	s.mu.Unlock()
	if held == s.saved {
		return nil
	}
	nudge(s.dirty)
	if s.store == nil {
		return nil
	}
	if err := s.store.save(held); err != nil {
		s.a.faults.add("latch")
		s.a.cfg.Logger.Error("the latch is not saved on disk; it holds as long as the agent runs", "file", s.store.path, "error", err)
		return err
	}
	s.saved = held
	return nil
}

// follow reads what was ordered, at the start, after every reconnection and every
// rereadEvery, and keeps the latch in the bucket for others to see.
func (s *safety) follow(ctx context.Context) {
	wait := backoff{least: 50 * time.Millisecond, most: 2 * time.Second}
	failing := false
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		read := true
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-s.read:
			wait.reset()
		case <-s.dirty:
			read = false
		}
		var err error
		if read {
			err = s.readOrders(ctx)
		}
		if err == nil {
			err = s.show(ctx)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			if !failing {
				s.a.cfg.Logger.Warn("what was ordered is not read, or the latch not shown, yet; trying on", "error", err)
			}
			failing = true
			next.Reset(wait.step())
		case read:
			wait.reset()
			failing = false
			next.Reset(rereadEvery)
		}
	}
}

// readOrders reads the newest orders. The first time it also reads the latch that an
// earlier life has shown, which knows of a lost link where there is no state file.
func (s *safety) readOrders(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTime)
	defer cancel()
	kv, err := s.bus.KV(ctx, bus.Safety)
	if err != nil {
		return err
	}
	if s.epoch != kv.Epoch {
		s.epoch, s.shown = kv.Epoch, messages.Latch{} // a bucket that was made again has lost it
	}
	own, err := readOrder(ctx, kv, bus.KeyRobot+s.a.id, s.a.id)
	if err != nil {
		return err
	}
	all, err := readOrder(ctx, kv, bus.KeyAll, "")
	if err != nil {
		return err
	}
	unreadable := error(nil)
	if !s.wasRead {
		err := read(ctx, kv, bus.KeyLatch+s.a.id, &s.shown, nil)
		if messages.CodeOf(err) == messages.CodeBadRequest {
			unreadable, err = err, nil // it is written anew below
			s.shown = messages.Latch{}
		}
		if err != nil {
			return err
		}
	}
	s.step(func(m *latch.Machine) latch.Effects {
		fx := latch.Effects{}
		switch {
		case s.wasRead || s.store != nil: // the file is nearer to the truth: where there is one, it counts
		case unreadable != nil:
			fx = m.Distrust("the latch of its former life cannot be read: " + unreadable.Error())
		case s.shown.Agent == s.a.id:
			fx = m.Restore(s.shown)
		}
		after := m.Read(own, all)
		after.Cancel, after.Save = max(fx.Cancel, after.Cancel), fx.Save || after.Save
		return after
	})
	s.wasRead = true
	return s.save()
}

// readOrder returns the order under a key, nil where there is none.
func readOrder(ctx context.Context, kv bus.KV, key, robot string) (*messages.StopOrder, error) {
	var o messages.StopOrder
	var rev uint64
	if err := read(ctx, kv, key, &o, &rev); err != nil || rev == 0 {
		return nil, err
	}
	if o.Agent != robot {
		return nil, messages.Errorf(messages.CodeBadRequest, "key %q holds an order for robot %q", key, o.Agent)
	}
	o.Fence = messages.Fence{Epoch: kv.Epoch, Revision: rev}
	return &o, nil
}

// read decodes the entry of a key into m and stores its revision; a missing key changes
// nothing.
func read(ctx context.Context, kv bus.KV, key string, m messages.Message, rev *uint64) error {
	e, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return bus.Explain(err, "read "+key)
	}
	if err := messages.Decode(e.Value(), m); err != nil {
		return err
	}
	if rev != nil {
		*rev = e.Revision()
	}
	return nil
}

// show writes the latch to the bucket where it differs from what is there.
func (s *safety) show(ctx context.Context) error {
	s.mu.Lock()
	held := s.m.Held()
	s.mu.Unlock()
	if held == s.shown || s.shown.Agent == "" && held == (messages.Latch{V: messages.Version, Agent: s.a.id}) {
		return nil // also: a robot that nothing ever stopped needs no entry
	}
	ctx, cancel := context.WithTimeout(ctx, apiTime)
	defer cancel()
	kv, err := s.bus.KV(ctx, bus.Safety)
	if err != nil {
		return err
	}
	data, err := messages.Encode(&held)
	if err != nil {
		return err
	}
	if _, err := kv.Put(ctx, bus.KeyLatch+s.a.id, data); err != nil {
		return bus.Explain(err, "show the latch of robot "+s.a.id)
	}
	s.shown = held
	return nil
}
