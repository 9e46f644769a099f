package main

import (
	"context"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// A process with a coordinator makes what agents with scoped permissions may not make, for
// every site that has one, and again where a server lost it.
func TestProvide(t *testing.T) {
	s := natstest.Start(t)
	b, err := bus.New(s.Connect(t), "fleet", 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	seen := uint64(0)
	provided := func(site string) {
		t.Helper()
		if seen, err = provide(ctx, b, seen); err != nil {
			t.Fatal(err)
		}
		if site == "" {
			return
		}
		for _, name := range []string{bus.MailStreamName("fleet", site), bus.MailedStreamName("fleet", site)} {
			if _, err := b.JS.Stream(ctx, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	provided("")
	for _, name := range []string{"KV_" + bus.BucketName("fleet", bus.DataKV), "KV_" + bus.BucketName("fleet", bus.Acks), "OBJ_" + bus.BodiesName("fleet")} {
		if _, err := b.JS.Stream(ctx, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	register := func(id, site string) {
		t.Helper()
		kv, err := b.KV(ctx, bus.Agents)
		if err != nil {
			t.Fatal(err)
		}
		data, err := messages.Encode(&messages.Registration{Environment: messages.Environment{ID: id, Tier: messages.Robot, Site: site}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(ctx, id, data); err != nil {
			t.Fatal(err)
		}
	}
	register("r1", "")
	provided(messages.DefaultSite)
	register("r2", "hall-2")
	provided("hall-2")
	if err := b.JS.DeleteStream(ctx, bus.MailStreamName("fleet", "hall-2")); err != nil {
		t.Fatal(err)
	}
	register("r2", "hall-2") // it has begun anew
	provided("hall-2")
}
