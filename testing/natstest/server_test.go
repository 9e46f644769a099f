package natstest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

// patience bounds what a test waits for that should come at once.
const patience = 10 * time.Second

// noLeaks checks, after everything that is registered later has ended, that the test
// left no goroutine.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return c
}

func js(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestStartTwiceShareNothing(t *testing.T) {
	noLeaks(t)
	a, b := natstest.Start(t), natstest.Start(t)
	if a.URL() == "" || a.URL() == b.URL() {
		t.Fatalf("URLs %q and %q, want two different ones", a.URL(), b.URL())
	}
	stream := must[jetstream.Stream](t)
	stream(js(t, a.Connect(t)).CreateStream(ctx(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}))
	if _, err := js(t, b.Connect(t)).Stream(ctx(t), "S"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Fatalf("stream of the other server: error %v, want not found", err)
	}
}

func TestRestartKeepsFilesAndPort(t *testing.T) {
	for name, opts := range map[string][]natstest.Option{"tcp": nil, "in process": {natstest.InProcess()}} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			s := natstest.Start(t, opts...)
			url := s.URL()
			back := make(chan struct{}, 1)
			nc := s.Connect(t, nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
			j := js(t, nc)
			for name, storage := range map[string]jetstream.StorageType{"file": jetstream.FileStorage, "memory": jetstream.MemoryStorage} {
				must[jetstream.Stream](t)(j.CreateStream(ctx(t), jetstream.StreamConfig{Name: name, Subjects: []string{name}, Storage: storage}))
				must[*jetstream.PubAck](t)(j.Publish(ctx(t), name, []byte("kept?")))
			}

			s.Stop()
			s.Stop() // does nothing
			if _, err := nats.Connect(url, s.Dial()); err == nil {
				t.Fatal("connected to a stopped server")
			}
			s.Restart(t)
			<-back
			if s.URL() != url {
				t.Errorf("URL %q, was %q before the restart", s.URL(), url)
			}
			file := must[jetstream.Stream](t)(j.Stream(ctx(t), "file"))
			if info := must[*jetstream.StreamInfo](t)(file.Info(ctx(t))); info.State.Msgs != 1 {
				t.Errorf("file stream has %d messages, want 1", info.State.Msgs)
			}
			if _, err := j.Stream(ctx(t), "memory"); !errors.Is(err, jetstream.ErrStreamNotFound) {
				t.Errorf("memory stream: error %v, want not found", err)
			}
			s.Restart(t)
			<-back
		})
	}
}

func TestTokenAndPayload(t *testing.T) {
	noLeaks(t)
	s := natstest.Start(t, natstest.Token("secret"), natstest.MaxPayload(1000))
	if _, err := nats.Connect(s.URL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without the token: error %v, want an authorization violation", err)
	}
	nc := s.Connect(t)
	if err := nc.Publish("x", make([]byte, 1001)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("1001 bytes: error %v, want %v", err, nats.ErrMaxPayload)
	}
	s.Connect(t, s.Link("wifi").Dial())
}

// A fleet has more watchers of a bucket than the server's own default allows.
func TestManyConsumers(t *testing.T) {
	noLeaks(t)
	s := natstest.Start(t, natstest.InProcess())
	j := js(t, s.Connect(t))
	must[jetstream.Stream](t)(j.CreateStream(ctx(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: jetstream.MemoryStorage}))
	for range 1_001 {
		must[jetstream.Consumer](t)(j.CreateConsumer(ctx(t), "S", jetstream.ConsumerConfig{MemoryStorage: true}))
	}
}
