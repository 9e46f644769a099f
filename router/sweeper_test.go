package router

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router/route"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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

// A job that somebody has begun since it was looked at is not given to another one.
func TestReleaseAsksTheRecord(t *testing.T) {
	f := newFleet(t)
	s := f.sweeper()
	acks, err := f.nc.SubscribeSync("$JS.ACK.>")
	if err == nil {
		err = f.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	at := f.bus.Subject(messages.KindJob, "main")
	at.Priority, at.Task, at.Origin = messages.Normal, "learn", "tester"
	look := func(id string) *looked {
		at.ID = id
		w, err := bus.ParseWork(at.String(), 3, time.Now(), nats.Header{messages.HeaderAttempt: {"2"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &looked{job: &sweepJob{work: w}, queue: &jetstream.ConsumerInfo{Stream: "FB__f__main__jobs", Name: "learn"}}
	}
	released := func() int {
		t.Helper()
		if err := s.bus.Conn.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := f.nc.Flush(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			if _, err := acks.NextMsg(time.Millisecond); err != nil {
				return n
			}
			n++
		}
	}
	record := func(id string) (messages.Job, uint64) {
		t.Helper()
		kv, err := f.bus.KV(ctxFor(t), bus.Jobs)
		if err != nil {
			t.Fatal(err)
		}
		job, rev, err := readJob(ctxFor(t), kv, id)
		if err != nil {
			t.Fatal(err)
		}
		return job, rev
	}

	f.change("j", func(j *messages.Job) { j.Attempt = 1 })
	l := look("j")
	job, rev := record("j")
	l.view.Record, l.rev = &job, rev
	if err := s.release(ctxFor(t), l); err != nil || released() != 1 {
		t.Fatalf("a job that waits was not released: %v", err)
	}
	if _, now := record("j"); now == rev || l.job.rev != now {
		t.Errorf("revision %d became %d, and the sweeper has %d", rev, now, l.job.rev)
	}
	// Somebody has written since the look that it runs.
	f.change("j", func(j *messages.Job) { j.State = messages.GoalExecuting })
	if err := s.release(ctxFor(t), l); messages.CodeOf(err) != messages.CodeConflict || released() != 0 {
		t.Errorf("a job that runs was released: %v", err)
	}

	// One without a record: the leader has to say so for a while.
	l = look("none")
	if err := s.release(ctxFor(t), l); err != nil || released() != 0 {
		t.Errorf("it was released at once: %v", err)
	}
	l.job.absent = l.job.absent.Add(-route.SweepSettle)
	if err := s.release(ctxFor(t), l); err != nil || released() != 1 {
		t.Errorf("it was not released: %v", err)
	}
	if job, _ := record("none"); job.State != messages.GoalAccepted || job.Attempt != 2 || job.Free != 1 {
		t.Errorf("%+v", job)
	}
	// It was read from a server that is behind.
	l.job.absent = time.Now().Add(-time.Hour)
	if err := s.release(ctxFor(t), l); err != nil || released() != 0 || !l.job.absent.IsZero() {
		t.Errorf("%v", err)
	}
}
