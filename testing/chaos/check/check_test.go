package check

import (
	"slices"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// good is a history without fault: an inference that was tried twice, two actions of one
// episode over a restart of their robot, one whose outcome nobody knows, a job that was
// begun twice, a refusal, a request that was cut off, and two plans.
func good() (list []history.Record) {
	ms := 0
	add := func(who string, kind history.Kind, r history.Record, change ...func(*history.Record)) {
		ms++
		r.At, r.Who, r.Kind, r.Life = epoch.Add(time.Duration(ms)*time.Millisecond), who, kind, max(1, r.Life)
		for _, f := range change {
			f(&r)
		}
		list = append(list, r)
	}
	exec := func(e string, attempt int) func(*history.Record) {
		return func(r *history.Record) { r.Exec, r.Attempt = e, attempt }
	}
	by := func(agent string) func(*history.Record) { return func(r *history.Record) { r.Agent = agent } }
	life := func(n int, inc string) func(*history.Record) {
		return func(r *history.Record) { r.Life, r.Inc = n, inc }
	}
	code := func(c messages.Code) func(*history.Record) { return func(r *history.Record) { r.Code = c } }

	inf := history.Record{ID: "i1", Class: messages.Inference, Task: "see", Sum: 7, Millis: 1000}
	add("c", history.Sent, inf)
	add("e1", history.Begin, inf, exec("x1", 1))
	add("e2", history.Begin, inf, exec("x2", 2))
	add("e2", history.End, inf, exec("x2", 2))
	add("c", history.Answered, inf, by("e2"), exec("x2", 2))

	act := history.Record{ID: "a1", Class: messages.Action, Task: "move", Origin: "c", Episode: "e", Seq: 1, Sum: 8, Millis: 500}
	add("c", history.Sent, act)
	add("r1", history.Begin, act, exec("x3", 1), life(1, "5-1"))
	add("r1", history.End, act, exec("x3", 1))
	add("c", history.Answered, act, by("r1"), exec("x3", 1))
	act.ID, act.Seq = "a2", 2
	add("c", history.Sent, act)
	add("r1", history.Begin, act, exec("x4", 1), life(2, "5-2"))
	add("r1", history.End, act, exec("x4", 1))
	add("c", history.Answered, act, by("r1"), exec("x4", 1))
	act.ID, act.Seq = "a3", 3
	add("c", history.Sent, act)
	add("r1", history.Begin, act, exec("x5", 1), life(2, "5-2"))
	add("c", history.Refused, act, code(messages.CodeUnknownOutcome))

	job := history.Record{ID: "j1", Class: messages.Training, Task: "learn", Sum: 9}
	add("c", history.Sent, job)
	add("c", history.Stored, job)
	add("e1", history.Begin, job, exec("x6", 1))
	add("e2", history.Begin, job, exec("x7", 2))
	add("e2", history.End, job, exec("x7", 2))
	add("c", history.Answered, job, by("e2"), exec("x7", 2))

	no := history.Record{ID: "n1", Class: messages.Action, Task: "move", Origin: "c", Episode: "e", Seq: 4, Sum: 10, Millis: 500}
	add("c", history.Sent, no)
	add("c", history.Refused, no, code(messages.CodeNotConnected))

	mail := history.Record{ID: "m1", Class: Message, Origin: "r1", Agent: "r2", Episode: "s", Seq: 1, Sum: 12}
	add("r1", history.Sent, mail)
	add("r2", history.Begin, mail, exec("x8", 0), life(1, ""))
	add("r2", history.Begin, mail, exec("x9", 0), life(2, "")) // it died while it handled it
	add("r1", history.Stored, mail)
	mail.ID, mail.Seq, mail.Millis = "m2", 2, 300
	add("r1", history.Sent, mail)
	add("r1", history.Stored, mail) // it expired
	mail.ID, mail.Seq = "m3", 3
	add("r1", history.Sent, mail)
	add("r1", history.Stored, mail)
	add("r2", history.Begin, mail, exec("x10", 0), life(2, ""))
	mail.ID, mail.Seq = "m4", 4
	add("r1", history.Sent, mail)
	add("r1", history.Refused, mail, code(messages.CodeBusy))

	put := history.Record{ID: "p1", Class: Sync, Task: "map", Sum: 13}
	add("c", history.Sent, put)
	put.Seq, put.Text = 1, "one"
	add("c", history.Stored, put)
	put = history.Record{ID: "p2", Class: Sync, Task: "map", Sum: 14}
	add("c", history.Sent, put)
	add("d", history.Sent, history.Record{ID: "p3", Class: Sync, Task: "map", Sum: 15})
	put.Seq, put.Text = 2, "two"
	add("c", history.Stored, put)
	add("d", history.Refused, history.Record{ID: "p3", Class: Sync, Task: "map"}, code(messages.CodeConflict))
	add("faults", history.Held, history.Record{Agent: "r1", Task: "map", Text: "two"})
	add("faults", history.Held, history.Record{Agent: "r2", Task: "map", Text: "two"})

	cut := history.Record{ID: "k1", Class: messages.Inference, Task: "see", Sum: 11, Millis: 1000}
	add("c", history.Sent, cut)
	add("faults", history.Killed, history.Record{}, by("c"))
	add("c", history.Routes, history.Record{Inc: "5-9", Seq: 12})
	add("c", history.Routes, history.Record{Inc: "5-10", Seq: 3})
	return list
}

func TestGoodHistory(t *testing.T) {
	v := Check(good())
	if len(v.Violations) > 0 {
		t.Fatalf("violations in a good history: %+v", v.Violations)
	}
	i, a, j := v.Classes[messages.Inference], v.Classes[messages.Action], v.Classes[messages.Training]
	if v.Requests != 14 || v.Classes[Message].Answered != 3 || v.Classes[Sync].Answered != 2 || i.Answered != 1 || i.CutOff != 1 || i.Executions != 2 || a.Answered != 2 || a.Executions != 3 ||
		a.Refused[messages.CodeNotConnected] != 1 || a.Refused[messages.CodeUnknownOutcome] != 1 || j.Answered != 1 {
		t.Errorf("counts are wrong: %d requests, %+v %+v %+v", v.Requests, i, a, j)
	}
}

// at returns the place of a record.
func at(t *testing.T, list []history.Record, id string, kind history.Kind) int {
	t.Helper()
	i := slices.IndexFunc(list, func(r history.Record) bool { return r.ID == id && r.Kind == kind })
	if i < 0 {
		t.Fatalf("no %s of %s", kind, id)
	}
	return i
}

// Every rule is broken on purpose, and found under its name.
func TestPlantedFaults(t *testing.T) {
	type plant func(*testing.T, []history.Record) []history.Record
	drop := func(id string, kind history.Kind) plant {
		return func(t *testing.T, list []history.Record) []history.Record {
			i := at(t, list, id, kind)
			return slices.Delete(list, i, i+1)
		}
	}
	change := func(id string, kind history.Kind, f func(*history.Record)) plant {
		return func(t *testing.T, list []history.Record) []history.Record {
			f(&list[at(t, list, id, kind)])
			return list
		}
	}
	again := func(id string, kind history.Kind, f func(*history.Record)) plant {
		return func(t *testing.T, list []history.Record) []history.Record {
			r := list[at(t, list, id, kind)]
			r.At = epoch.Add(100 * time.Millisecond)
			f(&r)
			return append(list, r)
		}
	}
	refused := func(c messages.Code) func(*history.Record) {
		return func(r *history.Record) { r.Kind, r.Code = history.Refused, c }
	}
	same := func(*history.Record) {}
	for _, c := range []struct {
		name  string
		rule  Rule
		plant plant
	}{
		{"a client that was killed long after", Ended, change("", history.Killed, func(r *history.Record) { r.At = epoch.Add(time.Minute) })},
		{"a client that was not killed", Ended, drop("", history.Killed)},
		{"a client that was killed before it asked", Ended, change("", history.Killed, func(r *history.Record) { r.At = epoch })},
		{"a job that nobody stored", Ended, func(t *testing.T, list []history.Record) []history.Record {
			return drop("j1", history.Stored)(t, drop("j1", history.Answered)(t, list))
		}},
		{"two answers", EndedOnce, again("i1", history.Answered, same)},
		{"an answer and an error", EndedOnce, again("i1", history.Answered, refused(messages.CodeDeadline))},
		{"a stored job never done", Kept, drop("j1", history.Answered)},
		{"a stored job given up", Kept, change("j1", history.Answered, refused(messages.CodeBackendFailed))},
		{"one action run twice", ActedOnce, again("a1", history.Begin, same)},
		{"one command under another id", ActedOnce, func(t *testing.T, list []history.Record) []history.Record {
			for _, r := range list {
				if r.ID == "a1" {
					r.ID, r.Who = "a9", r.Who+"0"
					list = append(list, r)
				}
			}
			return list
		}},
		{"one id with another command", ActedOnce, again("a1", history.Begin, func(r *history.Record) { r.Seq = 9 })},
		{"an action begun late", InTime, change("a3", history.Begin, func(r *history.Record) { r.At = r.At.Add(501*time.Millisecond + Slack + Forgiven) })},
		{"actions overtook each other", InOrder, change("a2", history.Begin, func(r *history.Record) { r.Seq = 7 })},
		{"refused but run", TrueRefusal, change("a3", history.Refused, func(r *history.Record) { r.Code = messages.CodeDeadline })},
		{"the result of an older attempt", Newest, again("j1", history.Begin, func(r *history.Record) { r.Attempt, r.Exec = 3, "x99" })},
		{"an attempt begun twice", Newest, again("j1", history.Begin, func(r *history.Record) { r.Attempt, r.Exec = 2, "x99" })},
		{"an attempt's result under another number", Newest, change("i1", history.Answered, func(r *history.Record) { r.Attempt = 1 })},
		{"a command for another life", Newest, change("a2", history.Begin, func(r *history.Record) { r.Inc = "5-1" })},
		{"an older plan", Newest, again("", history.Routes, func(r *history.Record) { r.Inc = "5-8" })},
		{"an older revision", Newest, again("", history.Routes, func(r *history.Record) { r.Inc, r.Seq = "5-10", 2 })},
		{"a plan of no term", Newest, again("", history.Routes, func(r *history.Record) { r.Inc = "x" })},
		{"a message that never came", Kept, func(t *testing.T, list []history.Record) []history.Record {
			return drop("m1", history.Begin)(t, drop("m1", history.Begin)(t, list))
		}},
		{"a message twice to one life", ActedOnce, again("m3", history.Begin, same)},
		{"messages overtook each other", InOrder, change("m1", history.Begin, func(r *history.Record) { r.Seq = 9 })},
		{"a message after its time", InTime, change("m3", history.Begin, func(r *history.Record) { r.At = r.At.Add(301*time.Millisecond + Slack + Forgiven) })},
		{"a message that was refused", TrueRefusal, change("m3", history.Begin, func(r *history.Record) { r.ID = "m4" })},
		{"a message for another", Real, change("m3", history.Begin, func(r *history.Record) { r.Who = "r3" })},
		{"a message that nobody sent", Real, func(t *testing.T, list []history.Record) []history.Record {
			return drop("m3", history.Stored)(t, drop("m3", history.Sent)(t, list))
		}},
		{"a message that changed", Whole, change("m3", history.Begin, func(r *history.Record) { r.Sum++ })},
		{"a message without an end", Ended, drop("m3", history.Stored)},
		{"a message with two ends", EndedOnce, again("m4", history.Refused, same)},
		{"an environment holds what was before", Kept, change("", history.Held, func(r *history.Record) { r.Text = "one" })},
		{"an environment holds nothing", Kept, change("", history.Held, func(r *history.Record) { r.Text = "" })},
		{"two writers of one revision", OneWriter, again("p1", history.Stored, func(r *history.Record) { r.ID, r.Who = "p3", "d" })},
		{"a body without an end", Ended, drop("p3", history.Refused)},
		{"changed bytes", Whole, change("i1", history.Begin, func(r *history.Record) { r.Sum++ })},
		{"another task", Whole, change("i1", history.Begin, func(r *history.Record) { r.Task = "hear" })},
		{"a result of nothing", Real, change("i1", history.Answered, func(r *history.Record) { r.Exec = "x0" })},
		{"another's result", Real, change("i1", history.Answered, func(r *history.Record) { r.Exec = "x3" })},
		{"signed by another", Real, change("i1", history.Answered, func(r *history.Record) { r.Agent = "e1" })},
		{"a result before its end", Real, drop("i1", history.End)},
		{"a result of a failure", Real, change("i1", history.End, func(r *history.Record) { r.Code = messages.CodeBackendFailed })},
		{"an execution of nothing", Real, func(t *testing.T, list []history.Record) []history.Record {
			return drop("a3", history.Refused)(t, drop("a3", history.Sent)(t, list))
		}},
		{"one id for two", Real, again("i1", history.Sent, same)},
		{"an error that no fault explains", Expected, change("n1", history.Refused, func(r *history.Record) { r.Code = messages.CodeInternal })},
		{"an error without a code", Expected, change("n1", history.Refused, func(r *history.Record) { r.Code = "" })},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Check(c.plant(t, good()))
			if !slices.ContainsFunc(v.Violations, func(x Violation) bool { return x.Rule == c.rule }) {
				t.Errorf("not caught as %q; found %+v", c.rule, v.Violations)
			}
		})
	}
}

func TestUndelivered(t *testing.T) {
	list := good()
	if n := Undelivered(list); n != 0 {
		t.Errorf("%d of a good history", n)
	}
	list[at(t, list, "m3", history.Stored)].Millis = 0
	if n := Undelivered(list); n != 0 {
		t.Errorf("%d, but it came", n)
	}
	list[at(t, list, "m2", history.Stored)].Millis = 0
	if n := Undelivered(list); n != 1 {
		t.Errorf("%d, and one did not come", n)
	}
}

// What faults explain is no violation.
func TestExplained(t *testing.T) {
	list := good()
	list[at(t, list, "i1", history.Answered)].Kind = history.Refused
	list[at(t, list, "i1", history.Refused)].Code = messages.CodeDeadline
	list[at(t, list, "a3", history.Refused)].Code = NoReply
	late := at(t, list, "a3", history.Begin)
	list[late].At = list[late].At.Add(400 * time.Millisecond)
	if v := Check(list); len(v.Violations) > 0 || v.Tardy > 0 {
		t.Errorf("found %+v, %d tardy", v.Violations, v.Tardy)
	}
	late = at(t, list, "a3", history.Begin)     // Check sorts
	list[late].At = list[late].At.Add(Forgiven) // the robot could not know better
	if v := Check(list); len(v.Violations) > 0 || v.Tardy != 1 || v.Tardiest < 500 || v.Tardiest > 1000 {
		t.Errorf("found %+v, %d tardy by %v ms", v.Violations, v.Tardy, v.Tardiest)
	}
}
