package safety_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/coordinator/safety"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	fleet = "f"
	// patience bounds every wait: far above what anything takes.
	patience = 20 * time.Second
)

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func put(t *testing.T, b *bus.Bus, bucket bus.Bucket, key string, m messages.Message) uint64 {
	t.Helper()
	kv, err := b.KV(within(t, patience), bucket)
	if err != nil {
		t.Fatal(err)
	}
	data, err := messages.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := kv.Put(within(t, patience), key, data)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func register(t *testing.T, b *bus.Bus, id string, tier messages.Tier) {
	t.Helper()
	e := messages.Environment{ID: id, Tier: tier, Handlers: []string{"*"}}.Normal()
	put(t, b, bus.Agents, id, &messages.Registration{Environment: e})
}

// answers makes a robot of nothing but its answers: one of the list for each stop that it
// hears, and that it is released for each release.
func answers(t *testing.T, nc *nats.Conn, robot string, list ...messages.StopAck) <-chan messages.StopOrder {
	t.Helper()
	heard := make(chan messages.StopOrder, 100)
	stops := make(chan messages.StopAck, len(list))
	for _, ack := range list {
		stops <- ack
	}
	for _, to := range []string{"stop", "stop." + robot, "release", "release." + robot} {
		if _, err := nc.Subscribe("fb."+fleet+"._fleet."+to, func(m *nats.Msg) {
			var o messages.StopOrder
			if err := messages.Decode(m.Data, &o); err != nil {
				t.Error(err)
				return
			}
			heard <- o
			ack := messages.StopAck{Agent: robot}
			if o.Stop {
				select {
				case ack = <-stops:
				default:
					return
				}
			}
			ack.Fence = o.Fence
			data, err := messages.Encode(&ack)
			if err == nil {
				err = nc.Publish("fb."+fleet+"._fleet.stopack."+robot+"."+o.ID, data)
			}
			if err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return heard
}

// plainServer is a server without JetStream.
func plainServer(t *testing.T) (*server.Server, *nats.Conn) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server did not start")
	}
	nc, err := bus.Connect(s.ClientURL(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return s, nc
}

// Without JetStream a stop is sent all the same, after the little time that it waits to
// be saved, and the report says that it is not saved; a release is not sent.
func TestWithoutJetStream(t *testing.T) {
	t.Parallel()
	_, nc := plainServer(t)
	heard := answers(t, nc, "r1", messages.StopAck{Agent: "r1", Stopped: "stopped", Saved: true})
	r, err := safety.Stop(within(t, time.Second), nc, fleet, safety.Order{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Done() || r.SaveError == nil || r.Unlisted == nil || len(r.Acks) != 1 || r.Acks[0].Agent != "r1" || !r.Fence.IsZero() {
		t.Fatalf("%+v", r)
	}
	if o := <-heard; !o.Stop || !o.Fence.IsZero() || o.Agent != "" {
		t.Fatalf("%+v", o)
	}
	if _, err := safety.Release(within(t, 300*time.Millisecond), nc, fleet, safety.Order{Robot: "r1"}); messages.CodeOf(err) != messages.CodeUnavailable {
		t.Fatalf("a release that could not be saved: %v", err)
	}
	for len(heard) > 0 {
		if o := <-heard; !o.Stop {
			t.Fatalf("it was sent: %+v", o)
		}
	}
}

// A stop that could not be saved at once is saved as soon as JetStream answers, and sent
// again with its number.
func TestSavedLate(t *testing.T) {
	t.Parallel()
	s, nc := plainServer(t)
	heard := answers(t, nc, "r1", messages.StopAck{Agent: "r1", Stopped: "stopped"}, messages.StopAck{Agent: "r1", Stopped: "stopped"})
	type result struct {
		r   safety.Report
		err error
	}
	ended := make(chan result, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r, err := safety.Stop(ctx, nc, fleet, safety.Order{})
		ended <- result{r, err}
	}()
	if o := <-heard; !o.Fence.IsZero() {
		t.Fatalf("%+v", o)
	}
	if err := s.EnableJetStream(&server.JetStreamConfig{StoreDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	end := <-ended
	if end.err != nil || !end.r.Done() || end.r.Fence.IsZero() || len(end.r.Acks) != 1 {
		t.Fatalf("%+v, %v", end.r, end.err)
	}
	for {
		select {
		case o := <-heard:
			if o.Fence == end.r.Fence {
				return
			}
		case <-time.After(patience):
			t.Fatal("it was not sent with its number")
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	nc := s.Connect(t)
	b, err := bus.New(nc, fleet, 1)
	if err != nil {
		t.Fatal(err)
	}
	register(t, b, "r1", messages.Robot)
	register(t, b, "r2", messages.Robot)
	register(t, b, "edge", messages.Edge)
	answers(t, s.Connect(t), "r1",
		messages.StopAck{Agent: "r2", Stopped: "forged"},               // says that it is another one
		messages.StopAck{Agent: "r1", Error: "not now"},                // did not do it, and is asked again
		messages.StopAck{Agent: "r1", Stopped: "stopped", Canceled: 1}) // did
	r, err := safety.Stop(within(t, 2*time.Second), nc, fleet, safety.Order{Reason: "why"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Done() || len(r.Acks) != 1 || r.Acks[0].Canceled != 1 || len(r.Missing) != 1 || r.Missing[0] != "r2" || len(r.Undone()) != 0 {
		t.Fatalf("%+v", r)
	}
	// One alone is not held up by the other.
	if r, err := safety.Release(within(t, patience), nc, fleet, safety.Order{Robot: "r1"}); err != nil || !r.Done() {
		t.Fatalf("%+v, %v", r, err)
	}

	// Who is no robot, and who is nobody.
	for robot, code := range map[string]messages.Code{"edge": messages.CodeBadRequest, "nobody": messages.CodeNotFound} {
		r, err := safety.Stop(within(t, patience), nc, fleet, safety.Order{Robot: robot})
		if err != nil || messages.CodeOf(r.Unlisted) != code || r.Done() || len(r.Missing) != 1 {
			t.Errorf("%s: %+v, %v", robot, r, err)
		}
	}
	if _, err := safety.Stop(within(t, patience), nc, fleet, safety.Order{Robot: "a b"}); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Error(err)
	}
	if _, err := safety.Stop(context.Background(), nc, fleet, safety.Order{}); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Error(err)
	}

	state, err := safety.Read(within(t, patience), b)
	if err != nil {
		t.Fatal(err)
	}
	for robot, want := range map[string]string{"r1": "", "r2": "stopped with all robots by an operator: why", "nobody": "stopped by an operator"} {
		if why, confirmed := state.Why(robot); why != want || confirmed != (want == "") {
			t.Errorf("%s: %q, confirmed %v", robot, why, confirmed)
		}
	}
}

func TestReadNothing(t *testing.T) {
	t.Parallel()
	b, err := bus.New(natstest.Start(t).Connect(t), fleet, 1)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := safety.Read(within(t, patience), b); err != nil || len(state.Robots()) != 0 {
		t.Fatalf("%+v, %v", state, err)
	}
	if _, err := b.JS.KeyValue(within(t, patience), bus.BucketName(fleet, bus.Safety)); err == nil {
		t.Error("to look made the bucket")
	}
}

// Two announcers, one event.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	nc := s.Connect(t)
	b, err := bus.New(nc, fleet, 1)
	if err != nil {
		t.Fatal(err)
	}
	stopped := messages.Latch{Agent: "r0", Own: messages.Hold{On: true, Fence: messages.Fence{Epoch: 1, Revision: 1}}}
	put(t, b, bus.Safety, bus.KeyLatch+"r0", &stopped) // of before they began: no news
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	for range 2 {
		own := s.Connect(t)
		go func() { ended <- safety.Announce(ctx, own, fleet, slog.New(slog.DiscardHandler)) }()
	}
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	// They watch once the bucket has a consumer of each.
	natstest.Eventually(t, patience, "two watchers", func() bool {
		stream, err := b.JS.Stream(within(t, patience), "KV_"+bus.BucketName(fleet, bus.Safety))
		return err == nil && stream.CachedInfo().State.Consumers == 2
	})
	l := messages.Latch{Agent: "r1", Link: messages.Hold{On: true, Reason: "no answer"}}
	put(t, b, bus.Safety, bus.KeyLatch+"r1", &l)
	put(t, b, bus.Safety, bus.KeyLatch+"r1", &l) // the same again
	l.Link = messages.Hold{}
	put(t, b, bus.Safety, bus.KeyLatch+"r1", &l)
	var got []messages.Event
	natstest.Eventually(t, patience, "the events", func() bool {
		stream, err := b.JS.Stream(within(t, patience), bus.EventStreamName(fleet))
		if err != nil {
			return false
		}
		got = got[:0]
		for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
			m, err := stream.GetMsg(within(t, patience), seq)
			if err != nil {
				t.Fatal(err)
			}
			var e messages.Event
			if err := messages.Decode(m.Data, &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		return len(got) >= 2
	})
	if len(got) != 2 || got[0].Kind != safety.EventStopped || got[0].Agent != "r1" || got[0].Reason != "stopped by itself: no answer" || got[1].Kind != safety.EventReleased {
		t.Fatalf("%+v", got)
	}
}
