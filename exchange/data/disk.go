package data

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// ours is the directory below the holder's own in which it keeps what is no body: what it
// knows of the bodies, and downloads that are under way. Names of data begin with a letter
// or a digit, so none is called that.
const ours = ".fleetbus"

// saveEvery is how many bytes of a download may be lost to a crash: they are fetched again.
const saveEvery = 8 << 20

// lockEvery is how often it is tried whether another holder has left the directory.
const lockEvery = 200 * time.Millisecond

// disk is the directory of a holder. Only the goroutine of its Run uses it.
type disk struct {
	dir    string
	unlock func()
	held   map[string]drift.Held

	// Tests put others in their place.
	free  func(dir string) (bytes int64, known bool)
	write func(f *os.File, p []byte) error
}

// openDisk takes the directory over, and makes it where it is missing. Where another holder
// has it, on this machine, it waits until that has ended: an agent that is superseded takes
// a moment.
func openDisk(ctx context.Context, dir string, waits func()) (*disk, error) {
	if err := os.MkdirAll(filepath.Join(dir, ours), 0o755); err != nil {
		return nil, messages.Errorf(messages.CodeBadRequest, "data directory: %v; name one that can be written", err)
	}
	d := &disk{dir: dir, held: make(map[string]drift.Held), free: freeBytes}
	d.write = func(f *os.File, p []byte) error {
		_, err := f.Write(p)
		return err
	}
	for said := false; ; said = true {
		unlock, err := lock(d.path("lock"))
		if err == nil {
			d.unlock = unlock
			break
		}
		if !errors.Is(err, errLocked) {
			return nil, messages.Errorf(messages.CodeBadRequest, "data directory %s: %v", dir, err)
		}
		if !said {
			waits()
		}
		t := time.NewTimer(lockEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
	// A list that is missing or damaged costs that all files are read again.
	if data, err := os.ReadFile(d.path("held.json")); err == nil {
		var list []drift.Held
		if json.Unmarshal(data, &list) == nil {
			for _, h := range list {
				d.held[h.Name] = h
			}
		}
	}
	return d, nil
}

var errLocked = errors.New("another holder has it")

func (d *disk) path(name string) string { return filepath.Join(d.dir, ours, name) }
func (d *disk) file(name string) string { return filepath.Join(d.dir, name) }

// look says what the file system says of a body.
func (d *disk) look(name string) drift.Look {
	info, err := os.Lstat(d.file(name))
	if err != nil || !info.Mode().IsRegular() {
		return drift.Look{}
	}
	return drift.Look{Stamp: stamp(info), Size: info.Size()}
}

// keep notes what is held of a name, or nothing, and saves the list.
func (d *disk) keep(name string, h *drift.Held) error {
	if h == nil {
		delete(d.held, name)
	} else {
		d.held[name] = *h
	}
	list := make([]drift.Held, 0, len(d.held))
	for _, h := range d.held {
		list = append(list, h)
	}
	return d.replace("held.json", list)
}

// replace writes a file of ours: whole, or not at all, and on the disk when it returns.
func (d *disk) replace(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Join(d.dir, ours), "tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // fails where it was renamed
	err = d.write(tmp, data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), d.path(name))
	}
	if err == nil {
		err = syncDir(filepath.Join(d.dir, ours))
	}
	return err
}

// syncDir makes a rename durable. Windows knows no such thing.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// mark gives a file a time of modification that is no other's, so that whoever writes to it
// from now on changes its stamp: the clock of a file system stands still for milliseconds,
// and two writes within them would look like one.
func mark(path string) error {
	at := time.Now().Add(-2 * time.Second).Truncate(time.Second)
	return os.Chtimes(path, at, at)
}

// verify reads a file and notes it as held where it is the body of the record.
func (d *disk) verify(ctx context.Context, r Record) (bool, error) {
	if err := mark(d.file(r.Name)); err != nil {
		return false, err
	}
	before := d.look(r.Name)
	f, err := os.Open(d.file(r.Name))
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := sha256.New()
	if err := digest(ctx, sum, f); err != nil {
		return false, err
	}
	if hex.EncodeToString(sum.Sum(nil)) != r.Digest || d.look(r.Name) != before {
		return false, nil
	}
	return true, d.hold(r, before.Stamp)
}

func (d *disk) hold(r Record, stamp string) error {
	return d.keep(r.Name, &drift.Held{Name: r.Name, Fence: r.Fence, Rev: r.Rev, Digest: r.Digest, Size: r.Size, Stamp: stamp})
}

// digest reads r to its end.
func digest(ctx context.Context, sum hash.Hash, r io.Reader) error {
	buf := make([]byte, bus.Chunk)
	for ctx.Err() == nil {
		n, err := r.Read(buf)
		sum.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// remove deletes a body and what was downloaded of it.
func (d *disk) remove(name string) error {
	d.dropPart(name)
	if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return d.keep(name, nil)
}

// tidy removes downloads of bodies that nobody wants here any more.
func (d *disk) tidy(wanted map[string]bool) {
	list, err := os.ReadDir(filepath.Join(d.dir, ours))
	if err != nil {
		return // it is tried with every round
	}
	for _, e := range list {
		name, isPart := strings.CutSuffix(e.Name(), partSuffix)
		switch {
		case isPart && !wanted[name]:
			d.dropPart(name)
		case strings.HasPrefix(e.Name(), "tmp-"): // of a holder that was killed
			_ = os.Remove(d.path(e.Name()))
		}
	}
}
