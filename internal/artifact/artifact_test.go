package artifact

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newBus(t *testing.T) *bus.Bus {
	t.Helper()
	b, err := bus.New(natstest.Start(t).Connect(t), "demo", 1)
	must(t, err)
	return b
}

// stored is how many messages the store has: nothing is left of what is not there.
func stored(t *testing.T, b *bus.Bus) uint64 {
	t.Helper()
	s, err := b.JS.Stream(within(t), bus.ObjectStream("demo", bus.Artifacts))
	must(t, err)
	info, err := s.Info(within(t))
	must(t, err)
	return info.State.Msgs
}

// onlyReader cannot be read twice.
type onlyReader struct{ io.Reader }

func TestPushAndRemove(t *testing.T) {
	b := newBus(t)
	data := bytes.Repeat([]byte("weights "), 100_000) // 7 chunks
	var told []int64
	a, there, err := Push(within(t), b, "policy", "me", bytes.NewReader(data), func(n int64) { told = append(told, n) })
	must(t, err)
	if there || a.Size != int64(len(data)) || !messages.IsDigest(a.Digest) || told[len(told)-1] != a.Size {
		t.Errorf("%+v, %v, told %v", a, there, told)
	}
	// The same again, from a file and from a pipe, is not stored twice.
	for _, r := range []io.Reader{bytes.NewReader(data), onlyReader{bytes.NewReader(data)}} {
		again, there, err := Push(within(t), b, "other", "you", r, nil)
		must(t, err)
		if !there || again.Name != "policy" || again.Digest != a.Digest {
			t.Errorf("%+v, %v", again, there)
		}
	}
	if n := stored(t, b); n != 8 {
		t.Errorf("%d messages are stored, want 7 chunks and what they are", n)
	}
	var got bytes.Buffer
	if _, err := Get(within(t), b, a.Digest, &got); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("read %d bytes: %v", got.Len(), err)
	}
	// Anybody's client of the Object Store sees it.
	store, err := b.JS.ObjectStore(within(t), bus.ObjectsName("demo", bus.Artifacts))
	must(t, err)
	if other, err := store.GetBytes(within(t), a.Digest); err != nil || !bytes.Equal(other, data) {
		t.Errorf("%d bytes, %v", len(other), err)
	}
	// And may put one there.
	theirs, _, err := Push(within(t), b, "x", "", strings.NewReader("x"), nil)
	must(t, err)
	must(t, Remove(within(t), b, theirs))
	_, err = store.Put(within(t), jetstream.ObjectMeta{Name: theirs.Digest}, strings.NewReader("x"))
	must(t, err)
	got.Reset()
	if _, err := Get(within(t), b, theirs.Digest, &got); err != nil || got.String() != "x" {
		t.Errorf("%q, %v", got.String(), err)
	}

	// And delete it: that leaves a mark, over which it can be pushed again.
	must(t, store.Delete(within(t), theirs.Digest))
	theirs, there, err = Push(within(t), b, "", "", strings.NewReader("x"), nil)
	if err != nil || there {
		t.Fatalf("over what another client has deleted: %+v, %v, %v", theirs, there, err)
	}

	list, err := List(within(t), b)
	must(t, err)
	if len(list) != 2 || list[0].Digest != theirs.Digest || list[1].Name != "policy" || list[1].By != "me" || list[1].Pushed.IsZero() {
		t.Errorf("%+v", list)
	}
	for _, tt := range []struct {
		what string
		code messages.Code
	}{{"policy", ""}, {a.Digest, ""}, {a.Digest[:6], ""}, {a.Digest[:3], messages.CodeNotFound}, {"none", messages.CodeNotFound}, {"", messages.CodeBadRequest}} {
		found := append(list, Artifact{Digest: strings.Repeat("0", 64)})
		if x, err := Match(found, tt.what); messages.CodeOf(err) != tt.code || err == nil && x.Digest != a.Digest {
			t.Errorf("%q: %+v, %v", tt.what, x, err)
		}
	}
	for _, x := range list {
		must(t, Remove(within(t), b, x))
	}
	if n := stored(t, b); n != 0 {
		t.Errorf("%d messages are left", n)
	}
	if _, err := Find(within(t), b, a.Digest); messages.CodeOf(err) != messages.CodeNotFound {
		t.Error(err)
	}
}

// Of many who push the same at once all succeed, and it is there once.
func TestPushedAtOnce(t *testing.T) {
	b := newBus(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, _, err := Push(within(t), b, "same", "", onlyReader{strings.NewReader(strings.Repeat("x", 300_000))}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := stored(t, b); n != 4 {
		t.Errorf("%d messages are stored, want 3 chunks and what they are", n)
	}
}

// changing is a file that is written to while it is read.
type changing struct {
	*strings.Reader
	reads int
}

func (c *changing) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.reads++; c.reads > 2 && n > 0 {
		p[0] = 'y'
	}
	return n, err
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// After a push that failed nothing is there.
func TestPushFails(t *testing.T) {
	b := newBus(t)
	ctx, cancel := context.WithCancel(within(t))
	for _, tt := range []struct {
		name string
		r    io.Reader
		sent func(int64)
		code messages.Code
		want string
	}{
		{"changed", &changing{Reader: strings.NewReader(strings.Repeat("x", 200_000))}, nil, messages.CodeConflict, "the file was changed while it was read"},
		{"unreadable", io.MultiReader(strings.NewReader(strings.Repeat("x", 500_000)), failing{}), nil, messages.CodeBadRequest, "read the artifact: io: read/write on closed pipe"},
		{"canceled", onlyReader{strings.NewReader(strings.Repeat("x", 5_000_000))}, func(int64) { cancel() }, messages.CodeCanceled, "canceled"},
	} {
		if _, _, err := Push(ctx, b, "x", "", tt.r, tt.sent); messages.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if n := stored(t, b); n != 0 {
			t.Errorf("%s: %d messages are left", tt.name, n)
		}
	}
}

// What a push leaves that is killed is found, once it has been idle for long, and removed;
// artifacts stay, and so does a push that is under way.
func TestUnfinished(t *testing.T) {
	b := newBus(t)
	kept, _, err := Push(within(t), b, "kept", "", strings.NewReader(strings.Repeat("x", 300_000)), nil)
	must(t, err)
	dead, err := b.NewUpload(bus.Artifacts)
	must(t, err)
	for range 20 { // more than are on their way at once
		must(t, dead.Write(within(t), make([]byte, bus.Chunk)))
	}
	list, bytes, err := Unfinished(within(t), b, 0)
	if err != nil || len(list) != 1 || list[0].Object != dead.Object || bytes < 4*bus.Chunk {
		t.Fatalf("%+v, %d bytes, %v", list, bytes, err)
	}
	if n, _, err := RemoveUnfinished(within(t), b, UnfinishedAfter); n != 0 || err != nil {
		t.Errorf("one that may be under way: removed %d, %v", n, err)
	}
	must(t, dead.Drop(within(t))) // all that was on its way is there, and goes
	again, err := b.NewUpload(bus.Artifacts)
	must(t, err)
	must(t, again.Write(within(t), []byte("x")))
	for range 20 { // as above
		must(t, again.Write(within(t), make([]byte, bus.Chunk)))
	}
	if n, bytes, err := RemoveUnfinished(within(t), b, 0); n != 1 || bytes == 0 || err != nil {
		t.Errorf("removed %d, %d bytes, %v", n, bytes, err)
	}
	if _, err := Get(within(t), b, kept.Digest, io.Discard); err != nil {
		t.Error(err)
	}
}
