package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/internal/artifact"
	"github.com/fleetbus/fleetbus/internal/bodyfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// The directory of the cache has a file for each artifact, called by its digest, and this
// directory with what is no artifact: downloads under way, and what is known of the files.
const (
	ours     = ".fleetbus"
	listFile = "artifacts.json"
)

// fileMode is that of an artifact: it may be a program, and nobody is to change it.
const fileMode = 0o555

// noteEvery is how often it is said how far a download is: what hears it is a heartbeat,
// which goes out once a second.
const noteEvery = 200 * time.Millisecond

// cache keeps artifacts on the disk. Its methods may be called from many goroutines.
type cache struct {
	b    *bus.Bus
	dir  string
	most int64 // bytes
	log  *slog.Logger

	turn  chan struct{} // capacity 1: held by who fetches, and so has files
	files *bodyfile.Dir // nil before the first fetch

	opened func(*bodyfile.Dir) // tests look at the disk, and change it

	mu     sync.Mutex
	held   map[string]entry
	wanted map[string]bool // by tasks that are placed
	used   map[string]int  // by replicas that are open, or are being opened
}

func newCache(b *bus.Bus, dir string, most int64, log *slog.Logger) *cache {
	return &cache{b: b, dir: dir, most: most, log: log, turn: make(chan struct{}, 1), held: make(map[string]entry), wanted: make(map[string]bool), used: make(map[string]int)}
}

// want is told which artifacts the placed tasks need.
func (c *cache) want(digests map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = digests
}

func (c *cache) neededLocked(digest string) bool { return c.wanted[digest] || c.used[digest] > 0 }

func (c *cache) needed(digest string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.neededLocked(digest)
}

func (c *cache) file(digest string) string { return filepath.Join(c.dir, digest) }

// get returns the path of an artifact, verified. It stays until release is called, and for
// as long as a task that is placed needs it.
func (c *cache) get(ctx context.Context, digest string, note func(string), fetched func(float64)) (path string, release func(), err error) {
	c.mu.Lock()
	c.used[digest]++
	c.mu.Unlock()
	giveBack := sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.used[digest]--; c.used[digest] <= 0 {
			delete(c.used, digest)
		}
	})
	release = giveBack
	defer func() {
		if err != nil {
			giveBack()
		}
	}()
	if c.known(digest) {
		return c.file(digest), release, nil
	}
	note("waits until other artifacts are fetched")
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
	defer func() { <-c.turn }()
	if err := c.open(ctx, note); err != nil {
		return "", nil, err
	}
	if c.known(digest) { // fetched while we waited, or known since the directory was opened
		return c.file(digest), release, nil
	}
	if stamp, _ := bodyfile.Look(c.file(digest)); stamp != "" {
		note("reads artifact " + artifact.Short(digest) + ", which was changed or is not known")
		ok, err := c.verify(ctx, digest)
		if ok || err != nil {
			return c.file(digest), release, c.explain(digest, 0, err)
		}
	}
	if err := c.fetch(ctx, digest, note, fetched); err != nil {
		return "", nil, err
	}
	return c.file(digest), release, nil
}

// known reports whether an artifact is there as it was when it was verified.
func (c *cache) known(digest string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.held[digest]
	stamp, size := bodyfile.Look(c.file(digest))
	if !ok || stamp != e.Stamp || size != e.Size {
		return false
	}
	e.Used = time.Now()
	c.held[digest] = e
	return true
}

// open takes the directory over; the caller has the turn.
func (c *cache) open(ctx context.Context, note func(string)) error {
	if c.files != nil {
		return nil
	}
	files, err := bodyfile.Open(ctx, filepath.Join(c.dir, ours), func() {
		note("waits until another process has left " + c.dir)
		c.log.Warn("another process has the directory of artifacts; waiting until it ends", "directory", c.dir)
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return messages.Errorf(messages.CodeBadRequest, "directory of artifacts %s: %v; name one that can be written with --artifact-dir", c.dir, err)
	}
	if c.opened != nil {
		c.opened(files)
	}
	var list []entry
	files.Read(listFile, &list) // one that is missing or damaged costs that files are read again
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range list {
		if messages.IsDigest(e.Digest) {
			c.held[e.Digest] = e
		}
	}
	c.files = files
	return nil
}

// verify reads a file that nothing is known of, or that was changed; one that is not the
// artifact goes.
func (c *cache) verify(ctx context.Context, digest string) (bool, error) {
	stamp, ok, err := bodyfile.Verify(ctx, c.file(digest), digest)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil || !ok {
		c.log.Warn("an artifact is not what it was; getting it again", "artifact", digest, "error", err)
		return false, os.Remove(c.file(digest))
	}
	_, size := bodyfile.Look(c.file(digest))
	return true, c.keep(entry{Digest: digest, Size: size, Stamp: stamp, Used: time.Now()})
}

// fetch gets an artifact out of the fleet's store; the caller has the turn.
func (c *cache) fetch(ctx context.Context, digest string, note func(string), fetched func(float64)) error {
	note("looks for artifact " + artifact.Short(digest))
	a, err := artifact.Find(ctx, c.b, digest)
	if err != nil {
		return err
	}
	c.files.Tidy(c.needed)
	if err := c.makeRoom(a); err != nil {
		return err
	}
	p, err := c.files.Part(ctx, a.Body())
	if err != nil {
		return c.explain(digest, a.Size, err)
	}
	defer p.Close()
	if p.Have > 0 {
		c.log.Info("a download goes on", "artifact", digest, "bytes", p.Have, "of", a.Size)
	}
	begun, had, said := time.Now(), p.Have, time.Time{}
	err = bodyfile.Fetch(ctx, c.b, bus.Artifacts, p, func() error {
		if now := time.Now(); now.Sub(said) >= noteEvery {
			note(progress(a, p.Have, p.Have-had, now.Sub(begun)))
			fetched(float64(p.Have) / float64(max(a.Size, 1)))
			said = now
		}
		return nil
	})
	var stamp string
	if err == nil {
		fetched(1)
		stamp, err = p.Commit(c.dir, c.file(digest), fileMode)
	}
	switch {
	case err == nil && stamp == "":
		return messages.Errorf(messages.CodeConflict, "artifact %s: somebody wrote to %s as it came; it is read again", artifact.Short(digest), c.file(digest))
	case err == nil:
		c.log.Info("an artifact is here", "artifact", digest, "bytes", a.Size, "took", time.Since(begun).Round(time.Millisecond))
		return c.explain(digest, a.Size, c.keep(entry{Digest: digest, Size: a.Size, Stamp: stamp, Used: time.Now()}))
	case errors.Is(err, bodyfile.ErrDamaged):
		return messages.Errorf(messages.CodeInternal, "artifact %s: what the store has under this digest is something else; remove it with `fleetbus artifacts rm` and push it again", artifact.Short(digest))
	case errors.Is(err, bodyfile.ErrGone):
		c.files.DropPart(digest) // what is put there again has other chunks
		return messages.Errorf(messages.CodeNotFound, "artifact %s: the store has nothing after %d of %d bytes; if that stays so, remove it with `fleetbus artifacts rm` and push it again", artifact.Short(digest), p.Have, a.Size)
	}
	if serr := p.Save(); serr != nil && !bodyfile.IsFull(serr) {
		err = errors.Join(err, serr)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.explain(digest, a.Size, err)
}

// progress says how far a download is.
func progress(a artifact.Artifact, have, got int64, took time.Duration) string {
	text := fmt.Sprintf("fetches artifact %s: %d %% of %s", artifact.Short(a.Digest), 100*have/max(a.Size, 1), messages.Bytes(a.Size))
	if s := took.Seconds(); s >= 1 && got > 0 {
		text += fmt.Sprintf(", %s/s", messages.Bytes(int64(float64(got)/s)))
	}
	return text
}

// makeRoom removes what nobody needs for an artifact that is to come; the caller has the turn.
func (c *cache) makeRoom(a artifact.Artifact) error {
	have := int64(0)
	if info, err := os.Stat(c.files.File(a.Digest + bodyfile.PartSuffix)); err == nil {
		have = info.Size() // at most: what is not sure is fetched again
	}
	free, known := c.files.Free(c.dir)
	found, err := c.look()
	if err != nil {
		return c.explain(a.Digest, a.Size, err)
	}
	c.mu.Lock()
	c.held = found
	delete(c.held, a.Digest) // it would not be fetched if it were there
	list := slices.Collect(maps.Values(c.held))
	out, fit := evict(list, c.neededLocked, a.Size, c.most, a.Size-have-free, known)
	c.mu.Unlock()
	if !fit {
		return c.noRoom(a, list)
	}
	for _, digest := range out {
		if err := os.Remove(c.file(digest)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return c.explain(a.Digest, a.Size, err)
		}
		c.log.Info("an artifact that no task needs made room", "artifact", digest, "for", a.Digest)
		c.mu.Lock()
		delete(c.held, digest)
		c.mu.Unlock()
	}
	if len(out) == 0 {
		return nil
	}
	return c.explain(a.Digest, a.Size, c.save())
}

// look returns what is on the disk. A file of which nothing is known takes room all the same:
// the agent was killed before it noted it, or the list was lost. It has no stamp, so that it
// is read before it is used, and goes first.
func (c *cache) look() (map[string]entry, error) {
	list, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := make(map[string]entry)
	for _, f := range list {
		digest := f.Name()
		if !messages.IsDigest(digest) {
			continue
		}
		e, ok := c.held[digest]
		stamp, size := bodyfile.Look(c.file(digest))
		switch {
		case stamp == "": // no regular file: not ours
			continue
		case !ok:
			e = entry{Digest: digest}
		}
		e.Size = size // that of a file that was changed counts, too; its stamp says that it was
		found[digest] = e
	}
	return found, nil
}

func (c *cache) noRoom(a artifact.Artifact, list []entry) error {
	kept := int64(0)
	for _, e := range list {
		if c.needed(e.Digest) {
			kept += e.Size
		}
	}
	return messages.Errorf(messages.CodeNoCapacity, "artifact %s has %s and the cache takes %s, of which the tasks that are placed here need %s; raise --artifact-cache", artifact.Short(a.Digest), messages.Bytes(a.Size), messages.Bytes(c.most), messages.Bytes(kept))
}

// keep notes an artifact that is there, verified.
func (c *cache) keep(e entry) error {
	c.mu.Lock()
	c.held[e.Digest] = e
	c.mu.Unlock()
	return c.save()
}

// save writes down what is known; the caller has the turn.
func (c *cache) save() error {
	c.mu.Lock()
	list := slices.SortedFunc(maps.Values(c.held), func(x, y entry) int { return cmp.Compare(x.Digest, y.Digest) })
	c.mu.Unlock()
	return c.files.Replace(listFile, list)
}

// explain turns an error of the disk into one for people. A full disk keeps nothing of the
// download: others need the room, too.
func (c *cache) explain(digest string, size int64, err error) error {
	var known *messages.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	var noRoom *bodyfile.FullError
	if errors.As(err, &noRoom) || bodyfile.IsFull(err) {
		c.files.DropPart(digest)
		free, _ := c.files.Free(c.dir) // 0 where it is not known
		return messages.Errorf(messages.CodeNoCapacity, "the disk is full: artifact %s has %s and %s are free at %s; make room, it is tried again", artifact.Short(digest), messages.Bytes(size), messages.Bytes(free), c.dir)
	}
	return messages.Errorf(messages.CodeInternal, "artifact %s: %v", artifact.Short(digest), err)
}

// close leaves the directory to others.
func (c *cache) close() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.files != nil {
		c.files.Close()
		c.files = nil
	}
}
