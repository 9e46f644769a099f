package bodyfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// The files of a download, behind its name.
const (
	PartSuffix = ".part"
	NoteSuffix = ".part.json"
)

// SaveEvery is how many bytes of a download may be lost to a crash: they are fetched again.
const SaveEvery = 8 << 20

// Body is what is to be fetched.
type Body struct {
	Name   string // of the download in its directory
	Object string // last token of the subject of its chunks
	Digest string // SHA-256 in hex
	Size   int64
	First  uint64 // sequence of its first chunk, or any before
}

// partNote says how far a download has come, as far as that is surely on the disk.
type partNote struct {
	Digest string `json:"sha256"`
	Object string `json:"object"`
	Have   int64  `json:"bytes"`
	Next   uint64 `json:"next"` // sequence from which the next chunk is asked for
}

// Part is a download under way. One goroutine may use it.
type Part struct {
	Body Body
	Have int64  // bytes that are there
	Next uint64 // sequence from which the next chunk is asked for

	d     *Dir
	f     *os.File
	sum   hash.Hash
	saved int64 // of Have
}

// ErrDamaged says that what came is not what was to come.
var ErrDamaged = errors.New("the body that arrived is not that of the record")

// FullError says that a disk has no room for a body.
type FullError struct{ Size, Free int64 }

func (e *FullError) Error() string {
	return fmt.Sprintf("the disk is full: it has %d bytes and %d are free", e.Size, e.Free)
}

// Part opens the download of a body: a new one, or where the last one stopped. What is
// there is read, since the digest goes over all of it. A [*FullError] says that the disk has
// no room for it; nothing of the download is kept then, others need the room too.
func (d *Dir) Part(ctx context.Context, b Body) (*Part, error) {
	p := &Part{Body: b, d: d, sum: sha256.New(), Next: b.First}
	note, ok := d.note(b)
	if !ok {
		d.DropPart(b.Name)
	}
	if free, known := d.Free(d.Path); known && free < b.Size-note.Have {
		d.DropPart(b.Name)
		return nil, &FullError{b.Size, free}
	}
	f, err := os.OpenFile(d.File(b.Name+PartSuffix), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	p.f = f
	if ok {
		p.Have, p.saved, p.Next = note.Have, note.Have, note.Next
		if err = f.Truncate(p.Have); err == nil { // what came after the note is not sure
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
func (d *Dir) note(b Body) (n partNote, ok bool) {
	if !d.Read(b.Name+NoteSuffix, &n) {
		return partNote{}, false
	}
	info, err := os.Stat(d.File(b.Name + PartSuffix))
	if err != nil || n.Digest != b.Digest || n.Object != b.Object || n.Have < 0 || n.Have > b.Size || info.Size() < n.Have {
		return partNote{}, false
	}
	return n, true
}

// DropPart removes what was downloaded under a name.
func (d *Dir) DropPart(name string) {
	// What cannot be removed is written over by the next download.
	_ = os.Remove(d.File(name + NoteSuffix))
	_ = os.Remove(d.File(name + PartSuffix))
}

// Add appends a chunk.
func (p *Part) Add(seq uint64, data []byte) error {
	if p.Have+int64(len(data)) > p.Body.Size {
		return ErrDamaged
	}
	if err := p.d.Write(p.f, data); err != nil {
		return err
	}
	p.sum.Write(data)
	p.Have += int64(len(data))
	p.Next = seq + 1
	if p.Have-p.saved >= SaveEvery {
		return p.Save()
	}
	return nil
}

// Save makes what is there survive a crash: first the bytes, then the note of them.
func (p *Part) Save() error {
	if p.Have == p.saved {
		return nil
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	if err := p.d.Replace(p.Body.Name+NoteSuffix, partNote{Digest: p.Body.Digest, Object: p.Body.Object, Have: p.Have, Next: p.Next}); err != nil {
		return err
	}
	p.saved = p.Have
	return nil
}

// Close leaves the download as it is, to go on with another time.
func (p *Part) Close() { _ = p.f.Close() } // what it had to say was said by Save

// Commit puts the body in its place, dir/name, if it is the right one: on the disk first,
// then under its name. It returns the stamp of the file, "" where somebody wrote to it as it
// came. ErrDamaged says that it is not the right one; then nothing of it is kept.
func (p *Part) Commit(dir, path string, mode os.FileMode) (stamp string, err error) {
	if hex.EncodeToString(p.sum.Sum(nil)) != p.Body.Digest {
		p.d.DropPart(p.Body.Name)
		return "", ErrDamaged
	}
	err = mark(p.d.File(p.Body.Name + PartSuffix))
	if err == nil && mode != 0 {
		err = p.f.Chmod(mode)
	}
	if err == nil {
		err = p.f.Sync()
	}
	var before os.FileInfo
	if err == nil {
		before, err = p.f.Stat()
	}
	if err == nil {
		err = os.Rename(p.d.File(p.Body.Name+PartSuffix), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return "", err
	}
	_ = os.Remove(p.d.File(p.Body.Name + NoteSuffix)) // a note without a part counts for nothing
	info, err := p.f.Stat()
	if err != nil || !info.ModTime().Equal(before.ModTime()) {
		return "", err
	}
	return Stamp(info), nil // it changes with the rename, too
}
