package agent

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func TestJudge(t *testing.T) {
	own := messages.Incarnation{Epoch: 5, Revision: 7}
	for _, c := range []struct {
		found messages.Incarnation
		want  standing
	}{
		{own, standingOwn},
		{messages.Incarnation{Epoch: 5, Revision: 8}, standingOther},
		{messages.Incarnation{Epoch: 5, Revision: 6}, standingGone},
		{messages.Incarnation{Epoch: 5}, standingGone},
		{messages.Incarnation{Epoch: 6}, standingGone},               // a new bucket
		{messages.Incarnation{Epoch: 6, Revision: 1}, standingOther}, // a new bucket, and somebody has registered there
	} {
		if got := judge(own, c.found); got != c.want {
			t.Errorf("%v: %v, want %v", c.found, got, c.want)
		}
	}
}

func TestLoad(t *testing.T) {
	var l load
	start := time.Now()
	if l.wait() != time.Millisecond {
		t.Error("a caller must wait a little even where nothing is known")
	}
	l.measure(start)
	for s := range 60 {
		for range 10 {
			l.begun()
			l.ended(40*time.Millisecond, false, time.Now())
		}
		l.measure(start.Add(time.Duration(s+1) * time.Second))
	}
	if math.Abs(l.rate-10) > 0.1 || math.Abs(l.latency-40) > 0.1 || l.served != 600 || l.wait() != 40*time.Millisecond {
		t.Errorf("%+v", l)
	}
	if rate := l.measure(start.Add(60*time.Second + time.Millisecond)); rate != l.rate || math.Abs(rate-10) > 0.1 {
		t.Error("a rate over a millisecond is noise")
	}
	l.measure(start.Add(2 * time.Minute))
	if l.rate > 0.01 {
		t.Errorf("after a minute of nothing the rate is %v", l.rate)
	}
	for range 30 {
		l.ended(10*time.Millisecond, false, time.Now())
	}
	if math.Abs(l.latency-10) > 0.1 {
		t.Errorf("latency %v does not follow", l.latency)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{least: time.Second, most: 5 * time.Second}
	for i, want := range []time.Duration{1, 2, 4, 5, 5} {
		if got := b.step(); got != want*time.Second {
			t.Errorf("step %d: %v", i, got)
		}
	}
	b.reset()
	if b.step() != time.Second {
		t.Error("reset")
	}
}

func TestLateness(t *testing.T) {
	now := time.Now()
	for _, c := range []struct{ since, want time.Duration }{
		{0, 0}, {pingOften, 0}, {linkFresh, 0}, {linkFresh + 1, linkFresh + 1}, {time.Minute, time.Minute},
	} {
		if got := lateness(now.Add(-c.since), now); got != c.want {
			t.Errorf("a ping answered %v ago: %v, want %v", c.since, got, c.want)
		}
	}
}

func TestLivesCountsToNone(t *testing.T) {
	var l lives
	select {
	case <-l.none():
	default:
		t.Fatal("nothing was begun")
	}
	hold, in := make(chan struct{}), make(chan struct{})
	for range 3 {
		l.begin(func() { in <- struct{}{}; <-hold })
	}
	for range 3 {
		<-in
	}
	done := l.none()
	select {
	case <-done:
		t.Fatal("three still run")
	default:
	}
	close(hold)
	<-done
}

func TestSleepEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sleep(ctx, time.Hour, nil)
	wake := make(chan struct{})
	close(wake)
	sleep(t.Context(), time.Hour, wake)
}

func TestProgressIsClamped(t *testing.T) {
	e := &execution{req: messages.Request{Class: messages.Training, ID: "j", Attempt: 2}, replica: &replica{a: &Agent{id: "me"}}}
	for _, c := range []struct{ in, out float64 }{{0.5, 0.5}, {-1, 0}, {2, 1}, {math.NaN(), 0}, {math.Inf(1), 1}} {
		e.report(c.in, "n")
		if p := e.progress.Load(); p.Done != c.out || p.Job != "j" || p.Attempt != 2 || p.Agent != "me" {
			t.Errorf("%v: %+v", c.in, p)
		}
	}
}

// Not begun is what would take longer than it has, as far as that is known.
func TestHopeless(t *testing.T) {
	var l load
	now := time.Now()
	ms := time.Millisecond
	if l.hopeless(0, now) {
		t.Error("refused before anything was served")
	}
	for range 20 {
		l.ended(100*ms, false, now)
	}
	for left, want := range map[time.Duration]bool{150 * ms: false, 101 * ms: false, 99 * ms: true, 10 * ms: true} {
		if got := l.hopeless(left, now.Add(100*ms)); got != want {
			t.Errorf("%v left, takes 100 ms: %v", left, got)
		}
	}
	if l.hopeless(10*ms, now.Add(2*time.Second)) {
		t.Error("what was so two seconds ago is not tried again")
	}
	l.ended(20*ms, false, now) // it has become faster
	if l.hopeless(25*ms, now) {
		t.Errorf("expects %v ± %v ms after one of 20 ms", l.expect, l.spread)
	}
}

// That a machine has become slow shows at a request that takes longer than it should; how slow,
// the last time tells.
func TestOverrun(t *testing.T) {
	const ms = time.Millisecond
	now := time.Now()
	var l load
	if l.overrun() != 0 {
		t.Error("in doubt before anything is known")
	}
	serve := func(n int, took time.Duration) {
		for range n {
			l.ended(took, false, now)
		}
	}
	want := func(what string, overrun, ifSlow time.Duration, expect float64) {
		t.Helper()
		if got := l.overrun(); (got-overrun).Abs() > ms/10 || overrun > 0 && (l.ifSlow()-ifSlow).Abs() > ms || math.Abs(l.expect-expect) > 0.1 {
			t.Errorf("%s: in doubt after %v, takes %v if slow, expects %v ms; want %v, %v, %v", what, got, l.ifSlow(), l.expect, overrun, ifSlow, expect)
		}
	}
	serve(20, 40*ms)
	want("steady", 42*ms, 120*ms, 40)
	l.overran(now, now)
	want("handed over", 42*ms, 120*ms, 120)
	if !l.hopeless(119*ms, now.Add(guessGood-1)) || l.hopeless(119*ms, now.Add(guessGood)) {
		t.Error("a guess is good for another time than guessGood")
	}
	if !l.hopeless(39*ms, now.Add(guessGood)) || l.hopeless(41*ms, now.Add(guessGood)) {
		t.Error("what was known before is forgotten with it")
	}
	serve(1, 100*ms)
	want("not as slow as that", 0, 0, 100) // a guess is worth nothing beside that
	serve(30, 40*ms)
	want("quick again", 42*ms, 100*ms, 40)
	l.overran(now, now)
	want("as slow as the last time", 42*ms, 100*ms, 100)
	l.overran(now.Add(1), now.Add(60*ms))
	want("twice", 0, 0, 100)
	if !l.hopeless(99*ms, now.Add(60*ms+expectGood-1)) || l.hopeless(99*ms, now.Add(60*ms+expectGood)) {
		t.Error("what two have shown is good for another time than expectGood")
	}
	serve(1, 50*ms) // it was not: a hiccup
	serve(30, 50*ms)
	want("as quick as this", 52500*time.Microsecond, 125*ms, 50)
	serve(1, 200*ms) // nobody was in doubt: it had the time
	want("slow", 0, 0, 200)
	serve(30, 50*ms)
	want("and back", 52500*time.Microsecond, 200*ms, 50)
	serve(1, time.Second) // another kind of request, not a machine that is twenty times as slow
	serve(30, 50*ms)
	want("after a long one", 52500*time.Microsecond, 200*ms, 50)
	for range 4 { // all that run at once show it
		l.overran(now, now.Add(60*ms))
	}
	want("four at once", 62500*time.Microsecond, 200*ms, 200) // it took 60 ms at least, and may have been a pause
	serve(30, 50*ms)
	want("and back from that", 61150*time.Microsecond, 200*ms, 50)
	serve(1, 65*ms)  // a pause
	serve(40, 50*ms) // and 40 without: the next one is no news
	if at := l.overrun(); at < 64*ms || at > 68*ms {
		t.Errorf("in doubt after %v, where one took 65 ms lately", at)
	}
	serve(1000, 50*ms)
	want("pauses are over", 52600*time.Microsecond, 200*ms, 50)
	l = load{}
	serve(20, ms)
	want("too quick for timers", 3*ms, 3*ms, 1)
	l.ended(5*ms, true, now) // cut off, at five times that or more
	want("cut off", 0, 0, 6.5)
	serve(30, ms)
	want("how slow it was is not known", 3*ms, 3*ms, 1)
}

// Watched is what may be given to somebody else, and would miss its deadline if it is not.
func TestWatched(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		change func(*messages.Task, *messages.Request)
		left   time.Duration
		want   bool
	}{
		"would miss it":                {nil, 75 * ms, true},
		"would not":                    {nil, 121 * ms, false},
		"nobody could meet it":         {nil, 46 * ms, false},
		"without a deadline":           {nil, messages.NoDeadline, false},
		"one for each robot":           {func(t *messages.Task, _ *messages.Request) { t.Replicas, t.Per = 0, messages.PerRobot }, 75 * ms, true},
		"one for each queue":           {func(t *messages.Task, _ *messages.Request) { t.Replicas, t.Per = 0, messages.PerSite }, 75 * ms, false},
		"one in all":                   {func(t *messages.Task, _ *messages.Request) { t.Replicas = 1 }, 75 * ms, false},
		"not idempotent":               {func(t *messages.Task, _ *messages.Request) { t.Idempotent = false }, 75 * ms, false},
		"streamed":                     {func(_ *messages.Task, q *messages.Request) { q.Stream = true }, 75 * ms, false},
		"asks the backend, no request": {func(_ *messages.Task, q *messages.Request) { q.ContentType = messages.MetadataType }, 75 * ms, false},
		"in batches":                   {func(t *messages.Task, _ *messages.Request) { t.MaxBatch = 4 }, 75 * ms, false},
	} {
		task := messages.Task{Name: "see", Class: messages.Inference, Replicas: 2, Idempotent: true}
		req := messages.Request{ID: "a", Class: messages.Inference, Task: "see"}
		if c.change != nil {
			c.change(&task, &req)
		}
		r := &replica{task: task, load: load{usual: usual{expect: 40}}, batch: batches{most: task.Batch()}}
		e := &execution{req: req, replica: r}
		timer := r.watch(e, c.left)
		if got := timer != nil; got != c.want || !e.endsHere(timer) {
			t.Errorf("%s: watched %v, want %v", name, got, c.want)
		}
	}
}

// What a request is expected to take follows a leap at once, and small differences slowly;
// one that was cut off says only that it would have taken longer.
func TestExpect(t *testing.T) {
	const ms = time.Millisecond
	now := time.Now()
	for _, c := range []struct {
		what          string
		took          time.Duration
		cut           bool
		least, expect float64 // ms, between which it is then
	}{
		{"a little more", 48 * ms, false, 40, 44},
		{"a leap up", 100 * ms, false, 100, 100},
		{"a leap down", 16 * ms, false, 16, 16},
		{"cut off early", 30 * ms, true, 40, 40},
		{"cut off a little late", 50 * ms, true, 40, 40},
		{"cut off after a leap", 75 * ms, true, 75, 98},
	} {
		var l load
		for i := range 40 {
			l.ended(time.Duration(38+i%5)*ms, false, now) // 40 on the average
		}
		l.expect = 40
		l.ended(c.took, c.cut, now)
		if l.expect < c.least || l.expect > c.expect {
			t.Errorf("%s: expects %.1f ms", c.what, l.expect)
		}
		if share := l.spread / l.expect; share < 0.01 || share > 0.1 {
			t.Errorf("%s: differs by %.3f of it", c.what, share)
		}
	}
}

func TestOverByTheClock(t *testing.T) {
	now := time.Now()
	ctx, cancel := context.WithDeadline(t.Context(), now.Add(time.Hour))
	if over(ctx, now) {
		t.Error("over an hour before its time")
	}
	if !over(ctx, now.Add(time.Hour)) {
		t.Error("not over at its time, because no timer has fired")
	}
	cancel()
	if !over(ctx, now) || !over(ctx, now.Add(time.Hour)) {
		t.Error("not over when it was given up")
	}
	if over(t.Context(), now) {
		t.Error("over without a time")
	}
}
