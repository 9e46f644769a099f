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

// keepSaved saves what nobody waits for, until ctx ends.
func (s *safety) keepSaved(ctx context.Context) {
	for {
		select {
		case <-s.unsaved:
			_ = s.save() // logged there, and tried again with the next reading
		case <-ctx.Done():
			_ = s.save()
			return
		}
	}
}

// follow reads what was ordered, at the start, after every reconnection and every
// rereadEvery, and keeps the latch in the bucket for others to see.
func (s *safety) follow(ctx context.Context) {
	wait := backoff{least: 50 * time.Millisecond, most: 2 * time.Second}
	said := "" // why it failed, the last time
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
			err = s.readOrders(ctx, s.barrier)
			_ = s.save() // logged there; what cannot be saved is shown all the same
		}
		if err == nil {
			err = s.show(ctx)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			if why := err.Error(); why != said {
				said = why
				s.a.cfg.Logger.Warn("what was ordered is not read, or the latch not shown, yet; trying on", "error", err)
			}
			next.Reset(wait.step())
		case read:
			wait.reset()
			said = ""
			next.Reset(rereadEvery)
		}
	}
}

// found is what the bucket says.
type found struct {
	epoch      int64
	own, all   *messages.StopOrder
	latch      messages.Latch // that an earlier life has shown; read the first time only
	unreadable error          // why that is not known
}

// readOrders reads the newest orders. The first time it also reads the latch that an
// earlier life has shown, which may know of what began there and never reached its file.
//
// barrier is called before a release that was only read is carried out, as with one that
// is heard: what was sent to the robot before must not run after it.
func (s *safety) readOrders(ctx context.Context, barrier func() error) error {
	s.mu.Lock()
	life := s.changes
	s.mu.Unlock()
	var f found
	err := s.bus.Ask(ctx, apiTime, func(ctx context.Context) (err error) {
		f, err = s.find(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if s.epoch != f.epoch {
		s.epoch, s.shown = f.epoch, messages.Latch{} // a bucket that was made again has lost it
	}
	s.mu.Lock()
	releases := s.m.Releases(f.own, f.all)
	s.mu.Unlock()
	if releases {
		if err := barrier(); err != nil {
			return bus.Explain(err, "wait for the data connection before a release that was read is carried out")
		}
	}
	s.step(func(m *latch.Machine) latch.Effects {
		all := m.Bucket(f.epoch)
		if !s.wasRead {
			if f.unreadable != nil && s.store == nil {
				all = merge(all, m.Distrust("the latch of its former life cannot be read: "+f.unreadable.Error()))
			}
			if f.latch.Agent == s.a.id {
				all = merge(all, m.Recover(f.latch))
			}
		}
		all = merge(all, m.Read(f.own, f.all))
		if s.changes != life {
			all = merge(all, m.Unknown()) // orders may have been missed since it was asked
		}
		return all
	})
	if !s.wasRead {
		s.wasRead, s.shown = true, f.latch
	}
	return nil
}

// merge is what follows from both.
func merge(a, b latch.Effects) latch.Effects {
	return latch.Effects{Cancel: max(a.Cancel, b.Cancel), Hooks: a.Hooks || b.Hooks, Save: a.Save || b.Save, Read: a.Read || b.Read}
}

// find asks the bucket.
func (s *safety) find(ctx context.Context) (f found, err error) {
	kv, err := s.bus.KV(ctx, bus.Safety)
	if err != nil {
		return f, err
	}
	f.epoch = kv.Epoch
	if f.own, err = readOrder(ctx, kv, bus.KeyRobot+s.a.id, s.a.id); err != nil {
		return f, err
	}
	if f.all, err = readOrder(ctx, kv, bus.KeyAll, ""); err != nil || s.wasRead {
		return f, err
	}
	err = read(ctx, kv, bus.KeyLatch+s.a.id, &f.latch, nil)
	if messages.CodeOf(err) == messages.CodeBadRequest {
		f.latch, f.unreadable, err = messages.Latch{}, err, nil // it is written anew
	}
	return f, err
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
	data, err := messages.Encode(&held)
	if err != nil {
		return err
	}
	err = s.bus.Ask(ctx, apiTime, func(ctx context.Context) error {
		kv, err := s.bus.KV(ctx, bus.Safety)
		if err != nil {
			return err
		}
		_, err = kv.Put(ctx, bus.KeyLatch+s.a.id, data)
		return bus.Explain(err, "show the latch of robot "+s.a.id)
	})
	if err == nil {
		s.shown = held
	}
	return err
}
