package bodyfile

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

	"github.com/fleetbus/fleetbus/messages/bus"
)

// LockEvery is how often it is tried whether another process has left a directory.
const LockEvery = 200 * time.Millisecond

// ErrLocked says that another process has a directory.
var ErrLocked = errors.New("another process has it")

// Dir is a directory in which one process keeps downloads and its notes. Its methods may be
// called by one goroutine at a time.
type Dir struct {
	Path string

	// Tests put others in their place.
	Free  func(dir string) (bytes int64, known bool)
	Write func(f *os.File, p []byte) error

	unlock func()
}

// Open takes a directory over, and makes it where it is missing. Where another process has
// it, on this machine, it calls waits and waits until that has ended: a process that is
// superseded takes a moment.
func Open(ctx context.Context, path string, waits func()) (*Dir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	d := &Dir{Path: path, Free: Free, Write: func(f *os.File, p []byte) error {
		_, err := f.Write(p)
		return err
	}}
	for said := false; ; said = true {
		unlock, err := lock(d.File("lock"))
		if err == nil {
			d.unlock = unlock
			return d, nil
		}
		if !errors.Is(err, ErrLocked) {
			return nil, err
		}
		if !said {
			waits()
		}
		t := time.NewTimer(LockEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}

// Close leaves the directory to others.
func (d *Dir) Close() { d.unlock() }

// File is the path of a file in the directory.
func (d *Dir) File(name string) string { return filepath.Join(d.Path, name) }

// Read reads a note that Replace wrote; false where there is none that can be read.
func (d *Dir) Read(name string, v any) bool {
	data, err := os.ReadFile(d.File(name))
	return err == nil && json.Unmarshal(data, v) == nil
}

// Replace writes a note: whole, or not at all, and on the disk when it returns.
func (d *Dir) Replace(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(d.Path, tmpPrefix+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // fails where it was renamed
	err = d.Write(tmp, data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), d.File(name))
	}
	if err == nil {
		err = syncDir(d.Path)
	}
	return err
}

const tmpPrefix = "tmp-"

// Tidy removes downloads that are not wanted, and what a process left that was killed.
func (d *Dir) Tidy(wanted func(name string) bool) {
	list, err := os.ReadDir(d.Path)
	if err != nil {
		return // it is tried again
	}
	for _, e := range list {
		name, isPart := strings.CutSuffix(e.Name(), PartSuffix)
		switch {
		case isPart && !wanted(name):
			d.DropPart(name)
		case strings.HasPrefix(e.Name(), tmpPrefix):
			_ = os.Remove(d.File(e.Name()))
		}
	}
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

// Look says what the file system says of a file without reading it: a stamp that changes
// with whatever rewrites it, and its size; "" where there is no regular file.
func Look(path string) (stamp string, size int64) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return "", 0
	}
	return Stamp(info), info.Size()
}

// Verify reads a file and reports whether it has the digest (SHA-256 in hex), with its
// stamp. A file that is changed meanwhile has not.
func Verify(ctx context.Context, path, want string) (stamp string, ok bool, err error) {
	if err := mark(path); err != nil {
		return "", false, err
	}
	stamp, _ = Look(path)
	f, err := os.Open(path)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	sum := sha256.New()
	if err := digest(ctx, sum, f); err != nil {
		return "", false, err
	}
	now, _ := Look(path)
	return stamp, hex.EncodeToString(sum.Sum(nil)) == want && now == stamp, nil
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
