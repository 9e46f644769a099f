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

	"github.com/fleetbus/fleetbus/messages"
)

const (
	partSuffix = ".part"
	noteSuffix = ".part.json"
)

// partNote says how far a download has come, as far as that is surely on the disk.
type partNote struct {
	Digest string `json:"sha256"`
	Object string `json:"object"`
	Have   int64  `json:"bytes"`
	Next   uint64 `json:"next"` // sequence from which the next chunk is asked for
}

// part is a download under way.
type part struct {
	d     *disk
	r     Record
	f     *os.File
	sum   hash.Hash
	have  int64
	next  uint64
	saved int64 // of have
}

// part opens the download of a body: a new one, or where the last one stopped. What is
// there is read, since the digest goes over all of it.
func (d *disk) part(ctx context.Context, r Record) (*part, error) {
	p := &part{d: d, r: r, sum: sha256.New(), next: r.First}
	note, ok := d.note(r)
	if !ok {
		d.dropPart(r.Name)
	}
	if free, known := d.free(d.dir); known && free < r.Size-note.Have {
		d.dropPart(r.Name)
		return nil, full(r, free)
	}
	f, err := os.OpenFile(d.path(r.Name+partSuffix), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	p.f = f
	if ok {
		p.have, p.saved, p.next = note.Have, note.Have, note.Next
		if err = f.Truncate(p.have); err == nil { // what came after the note is not sure
			err = digest(ctx, p.sum, f)
		}
	} else if err = f.Truncate(0); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// note reads how far a download of this body has come.
func (d *disk) note(r Record) (n partNote, ok bool) {
	data, err := os.ReadFile(d.path(r.Name + noteSuffix))
	if err != nil || json.Unmarshal(data, &n) != nil {
		return partNote{}, false
	}
	info, err := os.Stat(d.path(r.Name + partSuffix))
	if err != nil || n.Digest != r.Digest || n.Object != r.Object || n.Have < 0 || n.Have > r.Size || info.Size() < n.Have {
		return partNote{}, false
	}
	return n, true
}

func (d *disk) dropPart(name string) {
	// What cannot be removed is written over by the next download.
	_ = os.Remove(d.path(name + noteSuffix))
	_ = os.Remove(d.path(name + partSuffix))
}

// add appends a chunk.
func (p *part) add(seq uint64, data []byte) error {
	if p.have+int64(len(data)) > p.r.Size {
		return errDamaged
	}
	if err := p.d.write(p.f, data); err != nil {
		return err
	}
	p.sum.Write(data)
	p.have += int64(len(data))
	p.next = seq + 1
	if p.have-p.saved >= saveEvery {
		return p.save()
	}
	return nil
}

// save makes what is there survive a crash: first the bytes, then the note of them.
func (p *part) save() error {
	if p.have == p.saved {
		return nil
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	if err := p.d.replace(p.r.Name+noteSuffix, partNote{Digest: p.r.Digest, Object: p.r.Object, Have: p.have, Next: p.next}); err != nil {
		return err
	}
	p.saved = p.have
	return nil
}

// close leaves the download as it is, to go on with another time.
func (p *part) close() { _ = p.f.Close() } // what it had to say was said by save

var errDamaged = errors.New("the body that arrived is not that of the record")

// commit puts the body in its place, if it is the right one: on the disk first, then under
// its name, then noted as held.
func (p *part) commit() error {
	if hex.EncodeToString(p.sum.Sum(nil)) != p.r.Digest {
		p.d.dropPart(p.r.Name)
		return errDamaged
	}
	err := mark(p.d.path(p.r.Name + partSuffix))
	if err == nil {
		err = p.f.Sync()
	}
	var before os.FileInfo
	if err == nil {
		before, err = p.f.Stat()
	}
	if err == nil {
		err = os.Rename(p.d.path(p.r.Name+partSuffix), p.d.file(p.r.Name))
	}
	if err == nil {
		err = syncDir(p.d.dir)
	}
	if err != nil {
		return err
	}
	_ = os.Remove(p.d.path(p.r.Name + noteSuffix)) // a note without a part counts for nothing
	info, err := p.f.Stat()
	if err != nil {
		return err
	}
	if !info.ModTime().Equal(before.ModTime()) {
		return nil // somebody wrote to it already: it is read with the next round
	}
	return p.d.hold(p.r, stamp(info)) // the stamp changes with the rename, too
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
	if isFull(err) {
		d.dropPart(r.Name)
		free, _ := d.free(d.dir) // 0 where it is not known
		return full(r, free)
	}
	return messages.Errorf(messages.CodeInternal, "data %q: %v", r.Name, err)
}
