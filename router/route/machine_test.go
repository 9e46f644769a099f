package route

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

var t0 = time.Unix(1_000_000, 0)

const ms = time.Millisecond

func candidates(agents ...string) func() []Candidate {
	return func() []Candidate {
		list := make([]Candidate, len(agents))
		for i, a := range agents {
			list[i] = Candidate{Agent: a, Site: "main"}
		}
		return list
	}
}

func fail(c messages.Code) *messages.Error { return &messages.Error{Code: c, Message: "test"} }

// say renders effects shortly: what a table expects.
func say(fx []Effect) string {
	var out []string
	for _, e := range fx {
		switch e.Kind {
		case PublishWork:
			out = append(out, fmt.Sprintf("queue#%d", e.Attempt))
		case WriteIntent:
			out = append(out, "intent")
		case SendDirect:
			out = append(out, fmt.Sprintf("send %s#%d %s", e.Agent, e.Attempt, e.Cause))
		case ProbeOn:
			out = append(out, fmt.Sprintf("+%s#%d", e.Agent, e.Attempt))
		case ProbeOff:
			out = append(out, "-"+e.Agent)
		case CancelAt:
			out = append(out, "cancel "+e.Agent)
		case Finish:
			if e.Err != nil {
				out = append(out, "end "+string(e.Err.Code))
			} else {
				out = append(out, fmt.Sprintf("answer %s#%d", e.Agent, e.Attempt))
			}
		case WakeAt:
			out = append(out, fmt.Sprintf("@%d", e.At.Sub(t0).Milliseconds()))
		}
	}
	return strings.Join(out, ", ")
}

type turn struct {
	at   int // ms after the start
	ev   Event
	want string
}

func TestMachine(t *testing.T) {
	queued := Params{Task: "detect", Queue: "main", Patient: true, Attempts: 3, Candidates: candidates("a", "b", "c")}
	direct := Params{Task: "detect", Attempts: 3, Candidates: candidates("a", "b")}
	with := func(p Params, f func(*Params)) Params { f(&p); return p }
	busy := &messages.Error{Code: messages.CodeBusy, Message: "test", RetryAfter: 30 * ms}
	free := func(agents ...string) func() []Candidate {
		return func() []Candidate {
			list := candidates(agents...)()
			for i := range list {
				list[i].Free = true
			}
			return list
		}
	}
	budget := func(left int) func() bool { return func() bool { left--; return left >= 0 } }
	hedged := Params{Task: "detect", Attempts: 3, Candidates: free("a", "b", "c"), Hedge: 40 * ms, MayHedge: budget(1)}

	for name, c := range map[string]struct {
		p     Params
		turns []turn
	}{
		"hedged, the second is first": {hedged, []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @40"},
			{40, Event{Kind: Timer}, "send b#2 hedge, +b#2, @1000"},
			{55, Event{Kind: Result, Agent: "b", Attempt: 2}, "answer b#2, cancel a"},
			{60, Event{Kind: Result, Agent: "a", Attempt: 1}, ""},
		}},
		"hedged, the first dies": {with(hedged, func(p *Params) { p.MayHedge = budget(1) }), []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @40"},
			{41, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1, send b#2 hedge, +b#2, @1000"},
			{50, Event{Kind: HolderLost, Agent: "a"}, "-a"},
			{55, Event{Kind: Result, Agent: "b", Attempt: 2, Err: fail(messages.CodeBackendFailed)}, "-b, send c#3 failed, +c#3"},
			{60, Event{Kind: Result, Agent: "c", Attempt: 3}, "answer c#3, cancel a"},
		}},
		"hedged, the second is busy": {with(hedged, func(p *Params) { p.MayHedge = budget(2) }), []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @40"},
			{40, Event{Kind: Timer}, "send b#2 hedge, +b#2, @1000"},
			{41, Event{Kind: Result, Agent: "b", Attempt: 2, Err: fail(messages.CodeBusy)}, "-b"},
			{90, Event{Kind: Result, Agent: "a", Attempt: 1}, "answer a#1"},
		}},
		"no hedge without a budget": {with(hedged, func(p *Params) { p.MayHedge = budget(0) }), []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @40"},
			{40, Event{Kind: Timer}, "@1000"},
		}},
		"no hedge to a full one": {with(hedged, func(p *Params) { p.Candidates = candidates("a", "b") }), []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @40"},
			{40, Event{Kind: Timer}, "@1000"},
		}},
		"no hedge while it waits in the queue": {with(hedged, func(p *Params) { p.Queue = "main" }), []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{1, Event{Kind: Published}, ""},
			{20, Event{Kind: Timer}, "+a#0, +b#0, +c#0, @40"},
			{40, Event{Kind: Timer}, "@1000"},
		}},
		"queue, it delivers nothing": {with(queued, func(p *Params) { n := 0; p.Stuck = func() bool { n++; return n > 1 } }), []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{1, Event{Kind: Published}, ""},
			{20, Event{Kind: Timer}, "+a#0, +b#0, +c#0, @250"},
			{250, Event{Kind: Timer}, "@350"},
			{350, Event{Kind: Timer}, "send a#2 stuck, +a#2, @1000"},
			{351, Event{Kind: Result, Agent: "a", Attempt: 2, Err: busy}, "-a, +a#0, send b#2 refused, +b#2"},
			{360, Event{Kind: Result, Agent: "b", Attempt: 2}, "answer b#2"},
		}},
		"queue, it was long on its way there": {with(queued, func(p *Params) { p.Stuck = func() bool { return true } }), []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{20, Event{Kind: Timer}, "+a#0, +b#0, +c#0, @250"},
			{241, Event{Kind: Published}, "@471"},
			{256, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1, -b, -c, @1000"},
			{296, Event{Kind: Result, Agent: "a", Attempt: 1}, "answer a#1"},
		}},
		"queue, plain": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{1, Event{Kind: Published}, ""},
			{2, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1, @1000"},
			{9, Event{Kind: Result, Agent: "a", Attempt: 1}, "answer a#1"},
		}},
		"queue, the result overtakes everything": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{1, Event{Kind: Result, Agent: "b", Attempt: 1}, "answer b#1"},
			{2, Event{Kind: Published}, ""},
			{2, Event{Kind: Accepted, Agent: "b", Attempt: 1}, "cancel b"},
		}},
		"queue, no stream": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{1, Event{Kind: PublishFailed, Err: fail(messages.CodeUnavailable)}, "send a#1 stream, +a#1, @1000"},
			{3, Event{Kind: Result, Agent: "a", Attempt: 1}, "answer a#1"},
		}},
		"queue, no ack": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{20, Event{Kind: Timer}, "+a#0, +b#0, +c#0, @250"},
			{250, Event{Kind: Timer}, "send a#2 no_ack, +a#2, @1000"},
			{260, Event{Kind: Accepted, Agent: "b", Attempt: 1}, "+b#1, -c"},
			{261, Event{Kind: Result, Agent: "a", Attempt: 2}, "answer a#2, cancel b"},
		}},
		"holder lost": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{2, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1, @1000"},
			{50, Event{Kind: HolderLost, Agent: "a"}, "-a, send b#2 lost, +b#2"},
			{51, Event{Kind: NoResponders, Agent: "b", Attempt: 2}, "-b, send c#2 away, +c#2"},
			{90, Event{Kind: Result, Agent: "c", Attempt: 2}, "answer c#2, cancel a"},
		}},
		"holder hung, then wakes and is first": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{2, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1, @1000"},
			{220, Event{Kind: HolderHung, Agent: "a"}, "-a, send b#2 hung, +b#2"},
			{230, Event{Kind: Result, Agent: "a", Attempt: 1}, "answer a#1, cancel b"},
		}},
		"holder well without it": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{2, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1, @1000"},
			{40, Event{Kind: Absent, Agent: "a"}, "@90"},
			{60, Event{Kind: Absent, Agent: "a"}, ""},
			{90, Event{Kind: Timer}, "-a, send b#2 missing, +b#2, @1000"},
		}},
		"delivered, not accepted, agent dead": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{1, Event{Kind: Published}, ""},
			{20, Event{Kind: Timer}, "+a#0, +b#0, +c#0, @1000"},
			{21, Event{Kind: HolderLost, Agent: "a"}, "-a, send b#2 lost, +b#2"},
			{22, Event{Kind: Result, Agent: "b", Attempt: 2, Err: busy}, "-b, +b#0, send c#2 refused, +c#2"},
			{23, Event{Kind: Result, Agent: "c", Attempt: 2, Err: busy}, "-c, +c#0, @323"},
			{300, Event{Kind: Accepted, Agent: "b", Attempt: 1}, "+b#1, -c, @1000"},
			{320, Event{Kind: Result, Agent: "b", Attempt: 1}, "answer b#1"},
		}},
		"sent straight, lost on the way": {direct, []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @1000"},
			{40, Event{Kind: Absent, Agent: "a"}, ""},
			{260, Event{Kind: Absent, Agent: "a"}, "@310"},
			{310, Event{Kind: Timer}, "-a, send b#2 missing, +b#2, @1000"},
		}},
		"backends fail": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{2, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1, @1000"},
			{3, Event{Kind: Result, Agent: "a", Attempt: 1, Err: fail(messages.CodeBackendFailed)}, "-a, send b#2 failed, +b#2"},
			{4, Event{Kind: Result, Agent: "b", Attempt: 2, Err: fail(messages.CodeBackendFailed)}, "-b, send c#3 failed, +c#3"},
			{5, Event{Kind: Accepted, Agent: "b", Attempt: 2}, ""}, // overtaken by its result
			{6, Event{Kind: Result, Agent: "c", Attempt: 3, Err: fail(messages.CodeBackendFailed)}, "-c, end backend_failed"},
		}},
		"all busy, not patient": {direct, []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @1000"},
			{1, Event{Kind: Result, Agent: "a", Attempt: 1, Err: busy}, "-a, send b#1 refused, +b#1"},
			{2, Event{Kind: NoResponders, Agent: "b", Attempt: 1}, "-b, end busy"},
		}},
		"all busy, patient": {with(direct, func(p *Params) { p.Patient = true }), []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @1000"},
			{1, Event{Kind: Result, Agent: "a", Attempt: 1, Err: busy}, "-a, send b#1 refused, +b#1"},
			{2, Event{Kind: Result, Agent: "b", Attempt: 1, Err: busy}, "-b, @32"},
			{32, Event{Kind: Timer}, "send a#1 refused, +a#1, @1000"},
		}},
		"away, not patient": {direct, []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @1000"},
			{1, Event{Kind: NoResponders, Agent: "a", Attempt: 1}, "-a, send b#1 away, +b#1"},
			{2, Event{Kind: NoResponders, Agent: "b", Attempt: 1}, "-b, end not_placed"},
		}},
		"the only holder lost: it was taken, so it stays": {with(direct, func(p *Params) { p.Candidates = candidates("a") }), []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @1000"},
			{1, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1"},
			{9, Event{Kind: HolderLost, Agent: "a"}, "-a, @14"},
			{14, Event{Kind: Timer}, "send a#2 refused, +a#2, @1000"},
			{15, Event{Kind: NoResponders, Agent: "a", Attempt: 2}, "-a, @25"},
		}},
		"stop means stop": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{2, Event{Kind: Result, Agent: "a", Attempt: 1, Err: fail(messages.CodeSuperseded)}, "-a, end superseded"},
		}},
		"deadline": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{2, Event{Kind: Accepted, Agent: "a", Attempt: 1}, "+a#1, @1000"},
			{1000, Event{Kind: Timer}, "end deadline_exceeded, cancel a"},
			{1001, Event{Kind: Result, Agent: "a", Attempt: 1}, ""},
		}},
		"a result at the deadline is late": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{1000, Event{Kind: Result, Agent: "a", Attempt: 1}, "end deadline_exceeded"},
		}},
		"cancel": {direct, []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @1000"},
			{1, Event{Kind: Cancel}, "end canceled, cancel a"},
		}},
		"strangers are not heard": {direct, []turn{
			{0, Event{Kind: Start}, "send a#1 first, +a#1, @1000"},
			{1, Event{Kind: Accepted, Agent: "x", Attempt: 1}, ""},
			{2, Event{Kind: Result, Agent: "x", Attempt: 1}, ""},
			{3, Event{Kind: Result, Agent: "a", Attempt: 2}, ""},
			{4, Event{Kind: HolderLost, Agent: "x"}, ""},
			{5, Event{Kind: Absent, Agent: "x"}, ""},
		}},
		"a timer that another event overtakes is not lost": {queued, []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{21, Event{Kind: Published}, "+a#0, +b#0, +c#0, @1000"},
		}},
		"one attempt allowed, and the queue is silent": {with(queued, func(p *Params) { p.Attempts = 1 }), []turn{
			{0, Event{Kind: Start}, "queue#1, @20"},
			{250, Event{Kind: Timer}, "@1000"},
			{260, Event{Kind: Published}, "+a#0, +b#0, +c#0"},
			{1000, Event{Kind: Timer}, "end deadline_exceeded"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c.p.Deadline = t0.Add(time.Second)
			m := NewMachine(c.p)
			for i, s := range c.turns {
				if got := say(m.Step(t0.Add(time.Duration(s.at)*ms), s.ev)); got != s.want {
					t.Fatalf("turn %d: got  %s\nwant %s", i, got, s.want)
				}
			}
		})
	}
}

func TestAction(t *testing.T) {
	thisLife, nextLife := messages.Incarnation{Epoch: 1, Revision: 2}, messages.Incarnation{Epoch: 1, Revision: 3}
	for name, turns := range map[string][]turn{
		"plain": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Accepted, Agent: "r", Attempt: 1}, ""},
			{3, Event{Kind: Result, Agent: "r", Attempt: 1}, "answer r#1"},
			{4, Event{Kind: HolderLost, Agent: "r"}, ""},
		},
		"no journal": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: PublishFailed}, "end unavailable"},
		},
		"the journal is silent": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1000, Event{Kind: Timer}, "end deadline_exceeded"},
			{1001, Event{Kind: Published}, ""},
		},
		"not there": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: NoResponders, Agent: "r", Attempt: 1}, "end not_connected"},
		},
		"refused": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Result, Agent: "r", Attempt: 1, Err: fail(messages.CodeStale)}, "end stale"},
		},
		"refused by the robot's next life": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Result, Agent: "r", Inc: nextLife, Attempt: 1, Err: fail(messages.CodeStale)}, "@52"},
			{52, Event{Kind: Timer}, "end stale, cancel r"},
		},
		"refused by the robot's next life, taken by the one that was meant": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Result, Agent: "r", Inc: nextLife, Attempt: 1, Err: fail(messages.CodeStale)}, "@52"},
			{3, Event{Kind: Accepted, Agent: "r", Inc: thisLife, Attempt: 1}, "@1000"},
			{60, Event{Kind: Timer}, ""},
			{70, Event{Kind: Result, Agent: "r", Inc: thisLife, Attempt: 1}, "answer r#1"},
		},
		"taken, then refused by a former life that wakes": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Accepted, Agent: "r", Inc: thisLife, Attempt: 1}, ""},
			{3, Event{Kind: Result, Agent: "r", Inc: messages.Incarnation{Epoch: 1, Revision: 1}, Attempt: 1, Err: fail(messages.CodeStale)}, ""},
			{4, Event{Kind: HolderLost, Agent: "r"}, "end unknown_outcome, cancel r"},
		},
		"taken, then answered by a life that was registered again": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Accepted, Agent: "r", Inc: thisLife, Attempt: 1}, ""},
			{3, Event{Kind: Result, Agent: "r", Inc: nextLife, Attempt: 1}, "answer r#1"},
		},
		"lost": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Accepted, Agent: "r", Attempt: 1}, ""},
			{3, Event{Kind: HolderLost, Agent: "r"}, "end unknown_outcome, cancel r"},
		},
		"silent, then an answer": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{300, Event{Kind: HolderHung, Agent: "r"}, ""},
			{400, Event{Kind: Result, Agent: "r", Attempt: 1}, "answer r#1"},
		},
		"no reply in time": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{1000, Event{Kind: Timer}, "end unknown_outcome, cancel r"},
		},
		"its outcome got lost": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Accepted, Agent: "r", Attempt: 1}, ""},
			{30, Event{Kind: Absent, Agent: "r"}, "@80"},
			{81, Event{Kind: Timer}, "end unknown_outcome, cancel r"},
		},
		"cancelled before it was sent": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Cancel}, "end canceled"},
			{2, Event{Kind: Published}, ""},
		},
		"cancelled after": {
			{0, Event{Kind: Start}, "intent, @1000"},
			{1, Event{Kind: Published}, "send r#1 journaled, +r#1"},
			{2, Event{Kind: Cancel}, "end unknown_outcome, cancel r"},
			{3, Event{Kind: Accepted, Agent: "r", Attempt: 1}, "cancel r"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := NewAction(ActionParams{Task: "move", Robot: "r", Site: "main", Inc: thisLife, Deadline: t0.Add(time.Second)})
			for i, s := range turns {
				if got := say(a.Step(t0.Add(time.Duration(s.at)*ms), s.ev)); got != s.want {
					t.Fatalf("turn %d: got  %s\nwant %s", i, got, s.want)
				}
			}
		})
	}
}
