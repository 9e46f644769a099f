package data

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/internal/bodyfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// large is a body of many questions, so that a fault finds a download in its midst.
const large = 32 << 20

// slowly makes every write to the disk call at, with the bytes written so far.
func slowly(at func(written int64)) func(*Holder) {
	return func(h *Holder) {
		h.opened = func(d *disk) {
			write, n := d.Write, int64(0)
			d.Write = func(f *os.File, p []byte) error {
				if n += int64(len(p)); at != nil {
					at(n)
				}
				return write(f, p)
			}
		}
	}
}

// atMost fails the test where a connection got much more than n bytes: what was saved is
// not fetched again.
func (r *bench) atMost(h *running, n int64, what string) {
	r.t.Helper()
	if got := int64(h.nc.Stats().InBytes); got > n {
		r.t.Errorf("%s: %d bytes came, want at most %d", what, got, n)
	}
}

// slack is what may come twice, and what comes beside a body: a question of 2 MiB that was
// cut, 8 MiB that were not saved, and the headers of chunks.
const slack = bodyfile.SaveEvery + 4<<20

// A link that breaks in the midst of a transfer costs what was under way.
func TestLinkBreaksInTransfer(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, nil)
	link := r.s.Link("r1")
	var once atomic.Bool
	cut := make(chan struct{})
	h := r.hold("r1", t.TempDir(), slowly(func(n int64) {
		if n > large/2 && !once.Swap(true) {
			link.Break()
			close(cut)
		}
	}), link.Dial())
	want := body(1, large)
	r.put("map", want, robots)
	<-cut
	link.Mend()
	r.synced("map", want, h.dir)
	r.status("map", map[string]string{"r1": "synced"})
	r.atMost(h, large+slack, "after a break")
}

// A holder that is ended and begun anew goes on where it was; so does one whose server was
// restarted. While it is away it is shown as waiting, and how much it lacks.
func TestHolderAndServerRestart(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, nil)
	dir := t.TempDir()
	half := make(chan struct{})
	var once atomic.Bool
	stop := make(chan struct{})
	h := r.hold("r1", dir, slowly(func(n int64) {
		if n > large/2 && !once.Swap(true) {
			close(half)
			<-stop
		}
	}))
	want := body(1, large)
	r.put("map", want, robots)
	<-half
	go func() { <-time.After(10 * time.Millisecond); close(stop) }() // while it is told to end
	h.end()
	_, lines, err := r.store.Status(within(t), "map")
	must(t, err)
	if len(lines) != 1 || lines[0].State != "fetching" || lines[0].Revisions != 1 || lines[0].Bytes == 0 || lines[0].Behind <= 0 {
		t.Errorf("while it is away: %+v", lines)
	}
	h.nc.Close()

	once.Store(false)
	restarted := make(chan struct{})
	second := r.hold("r1", dir, slowly(func(n int64) {
		if n > large/4 && !once.Swap(true) {
			close(restarted)
		}
	}))
	<-restarted
	r.s.Restart(t)
	r.synced("map", want, dir)
	r.status("map", map[string]string{"r1": "synced"})
	r.atMost(second, large/2+slack, "after a restart of both")
	if !gone(filepath.Join(dir, ours), "map"+bodyfile.PartSuffix) || !gone(filepath.Join(dir, ours), "map"+bodyfile.NoteSuffix) {
		t.Error("something of the download is left")
	}
}

// A part that the power took bytes from is not believed.
func TestDamagedPart(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, nil)
	dir := t.TempDir()
	want := body(1, large)
	rec := r.put("map", want, robots)
	d, err := openDisk(within(t), dir, nil)
	must(t, err)
	p, err := d.part(within(t), rec)
	must(t, err)
	must(t, r.b.Chunks(within(t), bus.Bodies, rec.Object, rec.First, 64, p.Add))
	must(t, p.Save())
	p.Close()
	d.Close()
	f, err := os.OpenFile(d.File("map"+bodyfile.PartSuffix), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{^want[1000]}, 1000)
	must(t, err)
	f.Close()
	r.hold("r1", dir, nil)
	r.synced("map", want, dir)
	r.status("map", map[string]string{"r1": "synced"})
}

// A full disk is a state with a reason; it keeps nothing of the download, does not stop the
// holder, and ends when there is room.
func TestFullDisk(t *testing.T) {
	for _, known := range []bool{true, false} {
		r := newBench(t)
		r.env("r1", messages.Robot, nil)
		dir := t.TempDir()
		var room atomic.Int64
		room.Store(1 << 20)
		h := r.hold("r1", dir, func(h *Holder) {
			h.opened = func(d *disk) {
				d.Free = func(string) (int64, bool) { return room.Load(), known }
				write, n := d.Write, int64(0)
				d.Write = func(f *os.File, p []byte) error {
					if !strings.HasSuffix(f.Name(), bodyfile.PartSuffix) {
						return write(f, p)
					}
					if n += int64(len(p)); n > room.Load() {
						n = 0
						return &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
					}
					return write(f, p)
				}
			}
		})
		want := body(1, 3<<20)
		r.put("map", want, robots)
		natstest.Eventually(t, patience, "the status to name the reason", func() bool { // between two tries it fetches
			_, lines, err := r.store.Status(within(t), "map")
			must(t, err)
			return len(lines) == 1 && lines[0].State == drift.Failed && strings.Contains(lines[0].Reason, "the disk is full")
		})
		small := body(2, 1000)
		r.put("small", small, robots) // the rest goes on
		r.synced("small", small, dir)
		// It may be trying again just now.
		natstest.Eventually(t, patience, "what there is no room for to be gone", func() bool { return gone(filepath.Join(dir, ours), "map"+bodyfile.PartSuffix) })
		room.Store(1 << 40)
		r.synced("map", want, dir)
		r.status("map", map[string]string{"r1": "synced"})
		h.end()
	}
}

// A second holder on the same directory waits until the first one has ended.
func TestSecondHolder(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, nil)
	dir := t.TempDir()
	first := r.hold("r1", dir, nil)
	r.put("a", []byte("a"), robots)
	r.synced("a", []byte("a"), dir)
	opened := make(chan struct{})
	r.hold("r1", dir, func(h *Holder) { h.opened = func(*disk) { close(opened) } })
	select {
	case <-opened:
		t.Fatal("two holders have one directory")
	case <-time.After(3 * bodyfile.LockEvery):
	}
	first.end()
	select {
	case <-opened:
	case <-time.After(patience):
		t.Fatal("the second one did not begin")
	}
	r.put("a", []byte("b"), robots)
	r.synced("a", []byte("b"), dir)
}

// What is small and new does not wait for what is large and under way, and what is
// replaced meanwhile is not fetched to its end.
func TestNewsInTransfer(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, nil)
	dir := t.TempDir()
	begun, news := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	h := r.hold("r1", dir, slowly(func(n int64) {
		if n > 4<<20 && !once.Swap(true) {
			close(begun)
			<-news
			<-time.After(newsEvery) // from then on it looks
		}
	}))
	r.put("map", body(1, large), robots)
	<-begun
	small, next := body(2, 100), body(3, large)
	r.put("small", small, robots)
	go func() { close(news) }()
	natstest.Eventually(t, patience, "the small one", func() bool { return !gone(dir, "small") })
	if !gone(dir, "map") {
		t.Error("the small one came after the large one")
	}
	r.put("map", next, robots)
	r.synced("map", next, dir)
	r.status("map", map[string]string{"r1": "synced"})
	r.atMost(h, 2*large+slack, "with a revision in the midst")
}

// An environment that was away while things changed, and one that comes with other labels,
// hold what they are to hold now.
func TestAwayAndRelabelled(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, map[string]string{"hall": "1"})
	dir := t.TempDir()
	h := r.hold("r1", dir, nil)
	hall := func(n string) messages.Audience { return messages.Audience{Labels: map[string]string{"hall": n}} }
	r.put("one", []byte("1"), hall("1"))
	r.put("gone", []byte("g"), hall("1"))
	r.synced("one", []byte("1"), dir)
	r.synced("gone", []byte("g"), dir)
	h.end()
	r.put("one", []byte("1b"), hall("1"))
	_, err := r.store.Remove(within(t), "gone", nil, "")
	must(t, err)
	r.put("two", []byte("2"), hall("2"))
	r.status("one", map[string]string{"r1": "waiting"})
	r.hold("r1", dir, nil).end()
	h = r.hold("r1", dir, nil)
	r.synced("one", []byte("1b"), dir)
	natstest.Eventually(t, patience, "what was removed to go", func() bool { return gone(dir, "gone") })
	h.end()
	r.env("r1", messages.Robot, map[string]string{"hall": "2"})
	r.hold("r1", dir, nil)
	r.synced("two", []byte("2"), dir)
	natstest.Eventually(t, patience, "what is of another hall to go", func() bool { return gone(dir, "one") })
	r.status("one", map[string]string{})
	r.status("two", map[string]string{"r1": "synced"})
}

// Run ends where its connection is closed, and when it is told to before it has begun.
func TestRunEnds(t *testing.T) {
	r := newBench(t)
	e := r.env("r1", messages.Robot, nil)
	nc := r.s.Connect(t)
	h := NewHolder(nc, HolderConfig{Fleet: fleet, Environment: e, Dir: t.TempDir(), Logger: silent})
	ended := make(chan error, 1)
	go func() { ended <- h.Run(context.Background()) }()
	nc.Close()
	if err := <-ended; messages.CodeOf(err) != messages.CodeUnavailable {
		t.Errorf("on a closed connection: %v", err)
	}
	if err := h.Run(within(t)); messages.CodeOf(err) != messages.CodeConflict {
		t.Errorf("run twice: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := NewHolder(r.s.Connect(t), HolderConfig{Fleet: fleet, Environment: e, Dir: t.TempDir(), Logger: silent}).Run(ctx); err != nil {
		t.Errorf("told to stop at once: %v", err)
	}
}

// The chunks of a question never are more than asked for, and begin where asked.
func TestChunks(t *testing.T) {
	r := newBench(t)
	want := body(1, 10*bus.Chunk+5)
	rec := r.put("map", want, robots)
	var got []byte
	next := rec.First
	for n := 1; n > 0; {
		n = 0
		must(t, r.b.Chunks(within(t), bus.Bodies, rec.Object, next, 3, func(seq uint64, data []byte) error {
			n, next = n+1, seq+1
			got = append(got, data...)
			return nil
		}))
		if n > 3 {
			t.Errorf("%d chunks in one answer", n)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}
