package history

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fleetbus/fleetbus/messages"
)

// Rule is what a violation is a violation of.
type Rule string

// The rules. Each is proved by a planted fault in the tests.
const (
	// RuleLost: a request ends in an answer or in an early refusal. One that has no end,
	// or that ended because its time was over, its fate is not known or an error hit
	// nobody's fault but ours, is lost.
	RuleLost Rule = "lost"
	// RuleAnsweredTwice: a request has one end.
	RuleAnsweredTwice Rule = "answered twice"
	// RuleActedTwice: an action, by its (origin, episode, sequence), begins at most once in
	// the whole fleet. So does an action by its request id.
	RuleActedTwice Rule = "acted twice"
	// RuleRefusedButRun: an action whose caller was told that it did not run, did not run.
	RuleRefusedButRun Rule = "refused but run"
	// RuleChanged: an executor gets the bytes that the client sent.
	RuleChanged Rule = "changed"
	// RuleInvented: what was answered was executed by the one who signed it, and what was
	// executed was sent.
	RuleInvented Rule = "invented"
)

// Rules lists all rules.
func Rules() []Rule {
	return []Rule{RuleLost, RuleAnsweredTwice, RuleActedTwice, RuleRefusedButRun, RuleChanged, RuleInvented}
}

// Violation is one broken rule.
type Violation struct {
	Rule  Rule           `json:"rule"`
	ID    string         `json:"id"`
	Class messages.Class `json:"class"`
	Text  string         `json:"text"`
}

// Verdict is what Check found.
type Verdict struct {
	Sent       int                   `json:"sent"`
	Answered   int                   `json:"answered"`
	Refused    int                   `json:"refused"` // early, with a reason: nothing was run, the caller knows
	Lost       int                   `json:"lost"`
	Twice      int                   `json:"twice"`
	Codes      map[messages.Code]int `json:"codes,omitempty"` // of the refused
	Executions int                   `json:"executions"`
	Violations []Violation           `json:"violations"`
}

// Good reports whether no rule was broken.
func (v Verdict) Good() bool { return len(v.Violations) == 0 }

// Early reports whether an error tells its caller in time that nothing was run, or that
// its own newer request took the place. Every other error counts as a loss.
func Early(c messages.Code) bool {
	switch c {
	case messages.CodeBusy, messages.CodeNoCapacity, messages.CodeNotPlaced, messages.CodeSuperseded,
		messages.CodeNotConnected, messages.CodeCanceled, messages.CodeDraining, messages.CodeStale:
		return true
	}
	return false
}

// life is all that is known of one request.
type life struct {
	first  Record // of any kind
	sent   []Record
	ends   []Record
	begins []Record
}

// Check judges the records of all clients and executors together, in any order.
func Check(records []Record) Verdict {
	lives := make(map[string]*life)
	acts := make(map[string][]Record)
	v := Verdict{Codes: make(map[messages.Code]int), Violations: []Violation{}}
	for _, r := range records {
		l := lives[r.ID]
		if l == nil {
			l = &life{first: r}
			lives[r.ID] = l
		}
		switch r.Kind {
		case Sent:
			v.Sent++
			l.sent = append(l.sent, r)
		case Answered, Refused:
			l.ends = append(l.ends, r)
		case Begin:
			v.Executions++
			l.begins = append(l.begins, r)
			if r.Class == messages.Action {
				acts[command(r)] = append(acts[command(r)], r)
			}
		}
	}
	for _, l := range lives {
		v.judge(l)
	}
	for k, runs := range acts {
		if len(runs) > 1 {
			v.Twice++
			v.add(RuleActedTwice, runs[0], "action %s began %d times: by %s and %s", k, len(runs), runs[0].Who, runs[1].Who)
		}
	}
	slices.SortFunc(v.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Text, b.Text))
	})
	return v
}

// command names what an action told its robot to do.
func command(r Record) string {
	return fmt.Sprintf("%s/%s/%s/%d", r.Task, r.Origin, r.Episode, r.Seq)
}

func (v *Verdict) add(rule Rule, r Record, format string, args ...any) {
	v.Violations = append(v.Violations, Violation{rule, r.ID, r.Class, fmt.Sprintf(format, args...)})
}

func (v *Verdict) judge(l *life) {
	if len(l.sent) == 0 {
		v.add(RuleInvented, l.first, "%s by %s, but no client sent it", l.first.Kind, l.first.Who)
		return
	}
	sent := l.sent[0]
	for _, b := range l.begins {
		if b.Sum != sent.Sum {
			v.add(RuleChanged, sent, "sent with checksum %08x, %s got %08x", sent.Sum, b.Who, b.Sum)
		}
	}
	// Twice the same command is found among all commands, whatever their ids.
	if i := slices.IndexFunc(l.begins, func(b Record) bool { return command(b) != command(l.begins[0]) }); i > 0 && sent.Class == messages.Action {
		v.Twice++
		v.add(RuleActedTwice, sent, "one request began as %s and as %s", command(l.begins[0]), command(l.begins[i]))
	}
	if len(l.ends) == 0 {
		v.Lost++
		v.add(RuleLost, sent, "sent by %s, never ended", sent.Who)
		return
	}
	if len(l.ends) > 1 {
		v.Twice++
		v.add(RuleAnsweredTwice, sent, "%d ends: %s and %s", len(l.ends), l.ends[0].Kind, l.ends[1].Kind)
	}
	switch end := l.ends[0]; {
	case end.Kind == Answered:
		v.Answered++
		if !slices.ContainsFunc(l.begins, func(b Record) bool { return b.Who == end.Agent }) {
			v.add(RuleInvented, sent, "answered by %s, which never began it", end.Agent)
		}
	case Early(end.Code):
		v.Refused++
		v.Codes[end.Code]++
		if sent.Class == messages.Action && len(l.begins) > 0 && end.Code != messages.CodeCanceled {
			v.add(RuleRefusedButRun, sent, "its caller was told %s, but %s ran it", end.Code, l.begins[0].Who)
		}
	default:
		v.Lost++
		v.add(RuleLost, sent, "ended in %s: %s", end.Code, end.Text)
	}
}
