package data

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

var robots = messages.Audience{Tiers: []messages.Tier{messages.Robot}}

// A body reaches its audience and nobody else, in every revision, and leaves it again.
func TestDataReachTheirAudience(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, map[string]string{"hall": "1"})
	r.env("r2", messages.Robot, map[string]string{"hall": "2"})
	r.env("c1", messages.Cloud, nil)
	dirs := map[string]string{"r1": t.TempDir(), "r2": t.TempDir(), "c1": t.TempDir()}
	var changes atomic.Int32
	for id, dir := range dirs {
		r.hold(id, dir, func(h *Holder) { h.cfg.OnChange = func(Record, string) { changes.Add(1) } })
	}
	one := body(1, 3*bus.Chunk+17)
	rec := r.put("policy", one, robots)
	if rec.Rev != 1 || rec.Size != int64(len(one)) || rec.Digest != sum(one) {
		t.Errorf("record %+v", rec)
	}
	r.synced("policy", one, dirs["r1"], dirs["r2"])
	r.status("policy", map[string]string{"r1": "synced", "r2": "synced"})
	if !gone(dirs["c1"], "policy") {
		t.Error("the cloud holds what is for robots")
	}
	two := body(2, bus.Chunk)
	if rec = r.put("policy", two, robots); rec.Rev != 2 {
		t.Errorf("record %+v", rec)
	}
	r.synced("policy", two, dirs["r1"], dirs["r2"])
	r.put("empty", nil, messages.Audience{})
	r.synced("empty", nil, dirs["r1"], dirs["r2"], dirs["c1"])

	// Only for one of them from now on; the body is not sent again.
	before, err := r.store.Record(within(t), "policy")
	must(t, err)
	rec = r.put("policy", two, messages.Audience{Labels: map[string]string{"hall": "2"}})
	if rec.Object != before.Object || rec.Rev != 3 {
		t.Errorf("the same body was stored again: %+v after %+v", rec, before)
	}
	r.status("policy", map[string]string{"r2": "synced"})
	natstest.Eventually(t, patience, "r1 to remove it", func() bool { return gone(dirs["r1"], "policy") })

	var got bytes.Buffer
	if rec, err = r.store.Get(within(t), "policy", &got); err != nil || !bytes.Equal(got.Bytes(), two) {
		t.Errorf("read %d bytes of %+v: %v", got.Len(), rec, err)
	}
	_, err = r.store.Remove(within(t), "policy", nil, "test")
	must(t, err)
	natstest.Eventually(t, patience, "r2 to remove it", func() bool { return gone(dirs["r2"], "policy") })
	r.status("policy", map[string]string{})
	for _, f := range []func() error{
		func() error { _, err := r.store.Remove(within(t), "policy", nil, ""); return err },
		func() error { _, err := r.store.Get(within(t), "policy", &got); return err },
		func() error { _, _, err := r.store.Status(within(t), "nothing"); return err },
	} {
		if err := f(); messages.CodeOf(err) != messages.CodeNotFound {
			t.Errorf("of what is not there: %v", err)
		}
	}
	if rec = r.put("policy", one, robots); rec.Rev != 5 {
		t.Errorf("after its removal: %+v", rec)
	}
	r.synced("policy", one, dirs["r1"], dirs["r2"])
	// Nothing is left of bodies that no record names.
	store, err := r.b.Bodies(within(t))
	must(t, err)
	list, err := store.List(within(t))
	must(t, err)
	if len(list) != 2 {
		t.Errorf("%d objects are kept, want policy and empty", len(list))
	}
	if changes.Load() == 0 {
		t.Error("OnChange was never called")
	}
}

// Of writers that began with the same revision one wins; nothing of the others is left.
func TestTwoWriters(t *testing.T) {
	r := newBench(t)
	r.put("map", body(0, 100), robots)
	one := uint64(1)
	const writers = 8
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			_, errs[i] = r.store.Put(within(t), Body{Name: "map", For: robots, Expect: &one, By: "w"}, oneByOne{bytes.NewReader(body(uint64(i+1), 2*bus.Chunk))})
		})
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Errorf("writers %d and %d both won", won, i)
		case messages.CodeOf(err) != messages.CodeConflict || !strings.Contains(err.Error(), "nothing was changed"):
			t.Errorf("writer %d: %v", i, err)
		}
	}
	if won < 0 {
		t.Fatal("nobody won")
	}
	rec, err := r.store.Record(within(t), "map")
	must(t, err)
	if rec.Rev != 2 || rec.Digest != sum(body(uint64(won+1), 2*bus.Chunk)) {
		t.Errorf("record %+v", rec)
	}
	store, err := r.b.Bodies(within(t))
	must(t, err)
	if list, err := store.List(within(t)); err != nil || len(list) != 1 {
		t.Errorf("%d objects are kept (%v), want that of the winner", len(list), err)
	}
	// To make what there is, and to replace what there is not.
	zero := uint64(0)
	for _, tt := range []struct {
		name   string
		expect *uint64
	}{{"map", &zero}, {"map", &one}, {"other", &one}} {
		if _, err := r.store.Put(within(t), Body{Name: tt.name, Expect: tt.expect}, strings.NewReader("x")); messages.CodeOf(err) != messages.CodeConflict {
			t.Errorf("%s in the place of revision %d: %v", tt.name, *tt.expect, err)
		}
	}
	if _, err := r.store.Remove(within(t), "map", &one, ""); messages.CodeOf(err) != messages.CodeConflict {
		t.Errorf("remove an older revision: %v", err)
	}
	if _, err := r.store.Put(within(t), Body{Name: "other", Expect: &zero}, strings.NewReader("x")); err != nil {
		t.Error(err)
	}
}

func TestBadInput(t *testing.T) {
	r := newBench(t)
	failing := errors.New("the tape broke")
	for _, tt := range []struct {
		what, want string
		do         func() error
	}{
		{"a name", "data name", func() error { _, err := r.store.Put(within(t), Body{Name: "a.b"}, nil); return err }},
		{"a tier", "tier", func() error {
			_, err := r.store.Put(within(t), Body{Name: "a", For: messages.Audience{Tiers: []messages.Tier{"moon"}}}, nil)
			return err
		}},
		{"a reader that fails", "the tape broke", func() error { _, err := r.store.Put(within(t), Body{Name: "a"}, broken{failing}); return err }},
		{"no directory", "name one", func() error {
			return NewHolder(nil, HolderConfig{Fleet: fleet, Environment: messages.Environment{ID: "r1", Tier: messages.Robot}}).Run(within(t))
		}},
		{"no environment", "name", func() error { return NewHolder(nil, HolderConfig{Fleet: fleet, Dir: "x"}).Run(within(t)) }},
		{"a directory that is a file", "data directory", func() error {
			file := filepath.Join(t.TempDir(), "f")
			must(t, os.WriteFile(file, nil, 0o600))
			return NewHolder(r.s.Connect(t), HolderConfig{Fleet: fleet, Environment: messages.Environment{ID: "r1", Tier: messages.Robot}, Dir: file}).Run(within(t))
		}},
	} {
		if err := tt.do(); messages.CodeOf(err) != messages.CodeBadRequest || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
	if all, err := r.store.List(within(t)); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
}

type broken struct{ err error }

func (b broken) Read(p []byte) (int, error) { return 0, b.err }

// What happens to a file on the disk is found and mended; what is not ours to remove stays.
func TestDriftIsMended(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, nil)
	dir := t.TempDir()
	r.hold("r1", dir, nil)
	want := body(1, 2*bus.Chunk)
	r.put("map", want, robots)
	r.synced("map", want, dir)
	file := filepath.Join(dir, "map")
	damaged := bytes.Clone(want)
	damaged[len(damaged)/2] ^= 1
	for what, do := range map[string]func() error{
		"deleted":  func() error { return os.Remove(file) },
		"damaged":  func() error { return os.WriteFile(file, damaged, 0o600) },
		"cut":      func() error { return os.Truncate(file, 5) },
		"replaced": func() error { _ = os.Remove(file); return os.WriteFile(file, []byte("mine"), 0o600) },
	} {
		must(t, do())
		r.synced("map", want, dir)
		t.Log(what, "and mended")
	}
	// A file that only was touched is read, and not fetched.
	must(t, os.Chmod(file, 0o600))
	r.status("map", map[string]string{"r1": "synced"})
	// The loss of all records removes nothing.
	must(t, r.b.JS.DeleteKeyValue(within(t), bus.BucketName(fleet, bus.DataKV)))
	must(t, r.b.Conn.Publish("fb."+fleet+"._fleet.data", nil))
	other := body(2, 10)
	r.put("other", other, robots) // makes the bucket again
	r.synced("other", other, dir)
	r.synced("map", want, dir)
}

// A store that has other bytes than its record says harms no file, and is told of.
func TestWrongBytesAreRefused(t *testing.T) {
	r := newBench(t)
	r.env("r1", messages.Robot, nil)
	dir := t.TempDir()
	good := body(1, 1000)
	r.put("map", good, robots)
	r.hold("r1", dir, nil)
	r.synced("map", good, dir)
	rec := r.put("other", body(2, 1000), messages.Audience{Tiers: []messages.Tier{messages.Cloud}})
	kv, err := r.b.KV(within(t), bus.DataKV)
	must(t, err)
	wrong := rec.Data
	wrong.Name, wrong.Rev, wrong.For, wrong.Digest = "map", 2, robots, sum(body(3, 1000))
	data, err := messages.Encode(&wrong)
	must(t, err)
	_, err = kv.Put(within(t), "map", data)
	must(t, err)
	r.status("map", map[string]string{"r1": "failed"})
	if _, lines, err := r.store.Status(within(t), "map"); err != nil || len(lines) != 1 || !strings.Contains(lines[0].Reason, "not that of the record") || lines[0].Held != 1 {
		t.Errorf("%+v %v", lines, err)
	}
	r.synced("map", good, dir)
	if _, err := r.store.Get(within(t), "map", new(bytes.Buffer)); err == nil {
		t.Error("Get returned another body than the record's")
	}
	// Nonsense in the bucket is nobody's order.
	_, err = kv.Put(within(t), "junk", []byte("junk"))
	must(t, err)
	r.put("map", good, robots)
	r.status("map", map[string]string{"r1": "synced"})
}

// The upload of a writer that gives up leaves nothing behind.
func TestPutGivenUp(t *testing.T) {
	r := newBench(t)
	ctx, cancel := context.WithCancel(within(t))
	n := 0
	_, err := r.store.Put(ctx, Body{Name: "map"}, readFunc(func(p []byte) (int, error) {
		if n++; n == 20 {
			cancel()
		}
		return len(p), nil
	}))
	if messages.CodeOf(err) != messages.CodeCanceled {
		t.Errorf("%v", err)
	}
	s, err := r.b.JS.Stream(within(t), "OBJ_"+bus.BodiesName(fleet))
	must(t, err)
	natstest.Eventually(t, patience, "the chunks to be gone", func() bool {
		info, err := s.Info(within(t), jetstream.WithSubjectFilter(">"))
		must(t, err)
		return info.State.Msgs == 0
	})
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
