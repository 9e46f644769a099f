package bus_test

import (
	"testing"

	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go/jetstream"
)

// Newest says what is there, and not what was written.
func TestNewest(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b, err := bus.New(s.Connect(t), "test", 1)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := b.KV(t.Context(), bus.Agents)
	if err != nil {
		t.Fatal(err)
	}
	want := func(rev uint64) {
		t.Helper()
		got, err := b.Newest(t.Context(), bus.Agents)
		if err != nil || got != rev {
			t.Errorf("newest is %d (%v), want %d", got, err, rev)
		}
	}
	want(0)
	for _, key := range []string{"one", "two"} {
		if _, err := kv.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	want(2)
	if err := kv.Delete(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	want(3) // the mark
	stream, err := b.JS.Stream(t.Context(), "KV_"+bus.BucketName("test", bus.Agents))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(bus.BucketSubject("test", bus.Agents, "one"))); err != nil {
		t.Fatal(err)
	}
	want(2)
	if err := b.JS.DeleteKeyValue(t.Context(), bus.BucketName("test", bus.Agents)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Newest(t.Context(), bus.Agents); err == nil {
		t.Error("a bucket that is not there has a newest entry")
	}
}
