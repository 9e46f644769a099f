package history

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// good is a history without fault: an inference that was tried twice, an action, an
// early refusal, a job.
func good() []Record {
	inf := Record{ID: "i1", Class: messages.Inference, Task: "see", Sum: 7}
	act := Record{ID: "a1", Class: messages.Action, Task: "move", Origin: "c", Episode: "e", Seq: 1, Sum: 8}
	job := Record{ID: "j1", Class: messages.Training, Task: "learn", Sum: 9}
	no := Record{ID: "n1", Class: messages.Inference, Task: "see", Sum: 10}
	with := func(r Record, who string, k Kind, change func(*Record)) Record {
		r.Who, r.Kind = who, k
		if change != nil {
			change(&r)
		}
		return r
	}
	by := func(agent string) func(*Record) { return func(r *Record) { r.Agent = agent } }
	return []Record{
		with(inf, "c", Sent, nil), with(inf, "edge-1", Begin, nil), with(inf, "edge-2", Begin, nil), with(inf, "edge-2", End, nil), with(inf, "c", Answered, by("edge-2")),
		with(act, "c", Sent, nil), with(act, "robot-1", Begin, nil), with(act, "robot-1", End, nil), with(act, "c", Answered, by("robot-1")),
		with(job, "c", Sent, nil), with(job, "cloud", Begin, nil), with(job, "c", Answered, by("cloud")),
		with(no, "c", Sent, nil), with(no, "c", Refused, func(r *Record) { r.Code = messages.CodeSuperseded }),
	}
}

func TestGoodHistory(t *testing.T) {
	v := Check(good())
	if !v.Good() {
		t.Fatalf("violations in a good history: %+v", v.Violations)
	}
	if v.Sent != 4 || v.Answered != 3 || v.Refused != 1 || v.Lost != 0 || v.Twice != 0 || v.Executions != 4 {
		t.Errorf("counts are wrong: %+v", v)
	}
}

// Every rule is broken on purpose, once, and found.
func TestPlantedFaults(t *testing.T) {
	pick := func(list []Record, id string, k Kind) int {
		for i, r := range list {
			if r.ID == id && r.Kind == k {
				return i
			}
		}
		t.Fatalf("no %s of %s", k, id)
		return -1
	}
	drop := func(id string, k Kind) func([]Record) []Record {
		return func(list []Record) []Record {
			i := pick(list, id, k)
			return append(list[:i], list[i+1:]...)
		}
	}
	again := func(id string, k Kind) func([]Record) []Record {
		return func(list []Record) []Record { return append(list, list[pick(list, id, k)]) }
	}
	change := func(id string, k Kind, f func(*Record)) func([]Record) []Record {
		return func(list []Record) []Record { f(&list[pick(list, id, k)]); return list }
	}
	refuse := func(c messages.Code) func(*Record) {
		return func(r *Record) { r.Kind, r.Code = Refused, c }
	}
	for _, c := range []struct {
		name  string
		rule  Rule
		plant func([]Record) []Record
	}{
		{"answer never came", RuleLost, drop("i1", Answered)},
		{"job never ended", RuleLost, drop("j1", Answered)},
		{"deadline passed", RuleLost, change("i1", Answered, refuse(messages.CodeDeadline))},
		{"fate not known", RuleLost, change("a1", Answered, refuse(messages.CodeUnknownOutcome))},
		{"answered twice", RuleAnsweredTwice, again("i1", Answered)},
		{"action run twice by one", RuleActedTwice, again("a1", Begin)},
		{"action run again under another id", RuleActedTwice, func(list []Record) []Record {
			s, b := list[pick(list, "a1", Sent)], list[pick(list, "a1", Begin)]
			s.ID, b.ID, b.Who = "a2", "a2", "robot-2"
			e := list[pick(list, "a1", Answered)]
			e.ID, e.Agent = "a2", "robot-2"
			return append(list, s, b, e)
		}},
		{"refused but run", RuleRefusedButRun, change("a1", Answered, refuse(messages.CodeNotConnected))},
		{"bytes changed", RuleChanged, change("i1", Begin, func(r *Record) { r.Sum++ })},
		{"answer without execution", RuleInvented, change("i1", Answered, func(r *Record) { r.Agent = "edge-9" })},
		{"execution of nothing", RuleInvented, drop("n1", Sent)},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Check(c.plant(good()))
			for _, found := range v.Violations {
				if found.Rule == c.rule {
					return
				}
			}
			t.Errorf("not caught as %q; found %+v", c.rule, v.Violations)
		})
	}
}

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.jsonl")
	w, err := Open(path, "c")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range good() {
		w.Write(r)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// Its writer was killed in the middle of a line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"kind":"se`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(good()) || got[0].Who != "c" || got[0].At.IsZero() {
		t.Errorf("read %d records, first %+v", len(got), got[0])
	}
	if err := os.WriteFile(path, []byte("nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("a malformed line was read")
	}
}

// A checker that crashes judges nothing: the end of something that nobody sent, and a
// record of a kind that it does not know, are violations too.
func TestEndOfNothing(t *testing.T) {
	for _, k := range []Kind{End, "new"} {
		v := Check(append(good(), Record{ID: "x1", Who: "edge-1", Kind: k}))
		if len(v.Violations) != 1 || v.Violations[0].Rule != RuleInvented {
			t.Errorf("%s: %+v", k, v.Violations)
		}
	}
}

// One request id, two different commands: it began twice.
func TestActionBeganTwiceByID(t *testing.T) {
	list := good()
	for _, r := range list {
		if r.ID == "a1" && r.Kind == Begin {
			r.Seq++
			list = append(list, r)
			break
		}
	}
	if v := Check(list); v.Twice != 1 || len(v.Violations) != 1 || v.Violations[0].Rule != RuleActedTwice {
		t.Errorf("twice %d: %+v", v.Twice, v.Violations)
	}
}
