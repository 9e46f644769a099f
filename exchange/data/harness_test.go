package data

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

// TestMain fails on goroutines that are left. Of a server that stopped a moment ago these two
// may be, on a busy machine.
func TestMain(m *testing.M) {
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"))
}

const (
	fleet = "demo"
	// patience bounds every wait: far above what anything takes, so that only a defect
	// reaches it, on a busy machine too.
	patience = 30 * time.Second
)

var silent = slog.New(slog.DiscardHandler)

// bench is a server, a writer, and the environments of a fleet.
type bench struct {
	t     *testing.T
	s     *natstest.Server
	b     *bus.Bus
	store *Store
	envs  map[string]messages.Environment
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s := natstest.Start(t)
	b, err := bus.New(s.Connect(t), fleet, 1)
	must(t, err)
	return &bench{t: t, s: s, b: b, store: NewStore(b), envs: make(map[string]messages.Environment)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// body is n bytes that differ from those of another seed.
func body(seed uint64, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data
}

func sum(data []byte) string {
	d := sha256.Sum256(data)
	return hex.EncodeToString(d[:])
}

// env registers an environment.
func (r *bench) env(id string, tier messages.Tier, labels map[string]string) messages.Environment {
	r.t.Helper()
	e := messages.Environment{ID: id, Tier: tier, Labels: labels}.Normal()
	data, err := messages.Encode(&messages.Registration{Environment: e})
	must(r.t, err)
	kv, err := r.b.KV(within(r.t), bus.Agents)
	must(r.t, err)
	_, err = kv.Put(within(r.t), id, data)
	must(r.t, err)
	r.envs[id] = e
	return e
}

// running is a holder that runs.
type running struct {
	*Holder
	nc  *nats.Conn
	dir string
	end func()
}

// hold runs a holder of an environment in a directory, until end is called or the test ends.
func (r *bench) hold(id, dir string, change func(*Holder), opts ...nats.Option) *running {
	r.t.Helper()
	nc := r.s.Connect(r.t, opts...)
	h := NewHolder(nc, HolderConfig{Fleet: fleet, Environment: r.envs[id], Dir: dir, Every: 100 * time.Millisecond, Replicas: 1, Logger: silent})
	if change != nil {
		change(h)
	}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { gone <- h.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-gone; err != nil {
			r.t.Errorf("holder %s: %v", id, err)
		}
	})
	r.t.Cleanup(end)
	return &running{h, nc, dir, end}
}

func (r *bench) put(name string, data []byte, to messages.Audience) Record {
	r.t.Helper()
	rec, err := r.store.Put(within(r.t), Body{Name: name, For: to}, bytes.NewReader(data))
	must(r.t, err)
	return rec
}

// synced waits until the files of these directories are data.
func (r *bench) synced(name string, data []byte, dirs ...string) {
	r.t.Helper()
	natstest.Eventually(r.t, patience, name+" to be there", func() bool {
		for _, dir := range dirs {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, data) {
				return false
			}
		}
		return true
	})
}

// status waits until a body has these states, by environment.
func (r *bench) status(name string, want map[string]string) {
	r.t.Helper()
	got := map[string]string{}
	natstest.Eventually(r.t, patience, "the status of "+name, func() bool {
		_, lines, err := r.store.Status(within(r.t), name)
		must(r.t, err)
		clear(got)
		for _, l := range lines {
			got[l.Agent] = string(l.State)
		}
		if len(got) != len(want) {
			return false
		}
		for k, v := range want {
			if got[k] != v {
				return false
			}
		}
		return true
	})
}

func gone(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return os.IsNotExist(err)
}

// oneByOne is a reader that cannot be read twice.
type oneByOne struct{ io.Reader }
