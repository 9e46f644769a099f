package data

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/internal/bodyfile"
	"github.com/fleetbus/fleetbus/messages"
)

// ours is the directory below the holder's own in which it keeps what is no body: what it
// knows of the bodies, and downloads that are under way. Names of data begin with a letter
// or a digit, so none is called that.
const ours = ".fleetbus"

// disk is the directory of a holder. Only the goroutine of its Run uses it.
type disk struct {
	*bodyfile.Dir // ours

	dir  string
	held map[string]drift.Held
}

// openDisk takes the directory over, and makes it where it is missing. Where another holder
// has it, on this machine, it waits until that has ended: an agent that is superseded takes
// a moment.
func openDisk(ctx context.Context, dir string, waits func()) (*disk, error) {
	own, err := bodyfile.Open(ctx, filepath.Join(dir, ours), waits)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, messages.Errorf(messages.CodeBadRequest, "data directory %s: %v; name one that can be written", dir, err)
	}
	d := &disk{Dir: own, dir: dir, held: make(map[string]drift.Held)}
	// A list that is missing or damaged costs that all files are read again.
	var list []drift.Held
	if d.Read("held.json", &list) {
		for _, h := range list {
			d.held[h.Name] = h
		}
	}
	return d, nil
}

func (d *disk) file(name string) string { return filepath.Join(d.dir, name) }

// look says what the file system says of a body.
func (d *disk) look(name string) drift.Look {
	stamp, size := bodyfile.Look(d.file(name))
	return drift.Look{Stamp: stamp, Size: size}
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
	return d.Replace("held.json", list)
}

// part opens the download of a body.
func (d *disk) part(ctx context.Context, r Record) (*bodyfile.Part, error) {
	return d.Part(ctx, bodyfile.Body{Name: r.Name, Object: r.Object, Digest: r.Digest, Size: r.Size, First: r.First})
}

// commit puts a body in its place, if it is the right one, and notes it as held.
func (d *disk) commit(r Record, p *bodyfile.Part) error {
	stamp, err := p.Commit(d.dir, d.file(r.Name), 0)
	if err != nil || stamp == "" { // somebody wrote to it already: it is read with the next round
		return err
	}
	return d.hold(r, stamp)
}

// verify reads a file and notes it as held where it is the body of the record.
func (d *disk) verify(ctx context.Context, r Record) (bool, error) {
	stamp, ok, err := bodyfile.Verify(ctx, d.file(r.Name), r.Digest)
	if err != nil || !ok {
		return false, err
	}
	return true, d.hold(r, stamp)
}

func (d *disk) hold(r Record, stamp string) error {
	return d.keep(r.Name, &drift.Held{Name: r.Name, Fence: r.Fence, Rev: r.Rev, Digest: r.Digest, Size: r.Size, Stamp: stamp})
}

// remove deletes a body and what was downloaded of it.
func (d *disk) remove(name string) error {
	d.DropPart(name)
	if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return d.keep(name, nil)
}

// full is the fault of a disk without room.
func full(r Record, free int64) error {
	return messages.Errorf(messages.CodeNoCapacity, "the disk is full: data %q has %d bytes and %d are free; make room, it is tried again", r.Name, r.Size, free)
}

// explain turns an error of the disk into one for people. A full disk keeps nothing of the
// download: others need the room, too.
func (d *disk) explain(r Record, err error) error {
	var known *messages.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	var noRoom *bodyfile.FullError
	switch {
	case errors.As(err, &noRoom):
		return full(r, noRoom.Free)
	case bodyfile.IsFull(err):
		d.DropPart(r.Name)
		free, _ := d.Free(d.dir) // 0 where it is not known
		return full(r, free)
	}
	return messages.Errorf(messages.CodeInternal, "data %q: %v", r.Name, err)
}
