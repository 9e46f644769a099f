package data

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// Of three servers the one stops that leads the store of bodies, in the midst of a
// transfer. The download goes on, and so do writers, when another leads.
func TestServerOfThreeStops(t *testing.T) {
	cluster := natstest.StartCluster(t, 3)
	b, err := bus.New(cluster.Connect(t), fleet, 0)
	must(t, err)
	store := NewStore(b)
	want := body(1, large)
	_, err = store.Put(within(t), Body{Name: "map"}, bytes.NewReader(want))
	must(t, err)
	leader := cluster.Leader(t, "OBJ_"+bus.BodiesName(fleet))
	dir := t.TempDir()
	nc := cluster.ConnectTo(t, (leader+1)%3)
	h := NewHolder(nc, HolderConfig{Fleet: fleet, Environment: messages.Environment{ID: "r1", Tier: messages.Robot}, Dir: dir, Logger: silent})
	var once atomic.Bool
	half := make(chan struct{})
	slowly(func(n int64) {
		if n > large/2 && !once.Swap(true) {
			close(half)
		}
	})(h)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	<-half
	cluster.StopServer(leader)
	there := func(want []byte) {
		t.Helper()
		natstest.Eventually(t, patience, "the body", func() bool {
			got, err := os.ReadFile(filepath.Join(dir, "map"))
			return err == nil && bytes.Equal(got, want)
		})
	}
	there(want)
	next := body(2, 1<<20)
	natstest.Eventually(t, patience, "a writer to succeed", func() bool {
		_, err := store.Put(within(t), Body{Name: "map"}, bytes.NewReader(next))
		return err == nil
	})
	there(next)
	if got := int64(nc.Stats().InBytes); got > large+1<<20+slack {
		t.Errorf("%d bytes came", got)
	}
}
