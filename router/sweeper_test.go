package router

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

func (f *fleet) sweeper() *Sweeper {
	f.t.Helper()
	s, err := NewSweeper(f.s.Connect(f.t), Config{Fleet: "f", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// Of what queues have given up a sweeper keeps what is a job of its fleet.
func TestGaveUp(t *testing.T) {
	s := newFleet(t).sweeper()
	for _, c := range []struct {
		stream string
		want   int
	}{
		{"FB__f__main__jobs", 7},
		{"FB__f__main__inference", 0},
		{"FB__f__main__mail", 0},
		{"FB__other__main__jobs", 0},
		{"jobs", 0},
	} {
		data, err := json.Marshal(map[string]any{"stream": c.stream, "stream_seq": 3, "deliveries": 7})
		if err != nil {
			t.Fatal(err)
		}
		s.gaveUp(&nats.Msg{Data: data})
		if got := s.exhausted[exhaustedKey(c.stream, 3)]; got != c.want {
			t.Errorf("%s: %d, want %d", c.stream, got, c.want)
		}
	}
	s.gaveUp(&nats.Msg{Data: []byte("nonsense")})
	if len(s.exhausted) != 1 {
		t.Errorf("%v", s.exhausted)
	}
}

// Jobs without a message are found without reading the records of all.
func TestOrphans(t *testing.T) {
	f := newFleet(t)
	s := f.sweeper()
	if err := f.bus.Stream(ctxFor(t), "main", messages.Training); err != nil {
		t.Fatal(err)
	}
	states := map[string]messages.GoalState{"stands": messages.GoalAccepted, "lost": messages.GoalAccepted, "ended": messages.GoalSucceeded}
	for id, state := range states {
		f.change(id, func(j *messages.Job) { j.State, j.Attempt, j.Result = state, 1, []byte("weights") })
	}
	at := f.bus.Subject(messages.KindJob, "main")
	at.Priority, at.Task, at.Origin, at.ID = messages.Normal, "learn", "tester", "stands"
	if _, err := f.bus.JS.Publish(ctxFor(t), at.String(), nil); err != nil {
		t.Fatal(err)
	}
	s.sites["main"] = &sweepSite{name: "main", full: true, jobs: map[string]*sweepJob{"stands": {}}}
	lists, err := f.nc.SubscribeSync("$JS.API.CONSUMER.CREATE.KV_" + bus.BucketName("f", bus.Jobs) + ".>")
	if err != nil {
		t.Fatal(err)
	}
	reads, err := f.nc.SubscribeSync("$JS.API.DIRECT.GET.KV_" + bus.BucketName("f", bus.Jobs))
	if err == nil {
		err = f.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.orphans(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	if m, err := lists.NextMsg(wait); err != nil || !strings.Contains(string(m.Data), `"headers_only":true`) {
		t.Errorf("the records were listed with %v, %v", m, err)
	}
	if m, err := reads.NextMsg(wait); err != nil || strings.Contains(string(m.Data), "stands") || !strings.Contains(string(m.Data), "lost") {
		t.Errorf("records were read with %v, %v", m, err)
	}
	states["lost"] = messages.GoalAborted
	for id, want := range states {
		f.change(id, func(j *messages.Job) {
			if j.State != want {
				t.Errorf("%s: %+v", id, j)
			}
		})
	}
}
