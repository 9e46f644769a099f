package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
)

// NoReply is what a client of the door writes when its NATS request ended without an
// answer: the router died with it, or the connection did. Of an action nobody knows
// whether it ran.
const NoReply messages.Code = "no_reply"

// patience is how long after its time a request may be open without being a request that
// never ended: its client waits a moment longer for a router's last word.
const patience = 2 * time.Second

// unexplained are the codes that no fault explains: the programs of a run ask only for
// what is there, with permission, and in good form.
var unexplained = []messages.Code{
	messages.CodeBadRequest, messages.CodePayloadTooLarge, messages.CodeUnauthorized, messages.CodeNotFound, messages.CodeInternal, "",
}

// mayHaveRun are the codes that leave open whether an action ran, or say that it did.
var mayHaveRun = []messages.Code{messages.CodeUnknownOutcome, messages.CodeBackendFailed, NoReply}

// judge judges one request alone.
func (c *checker) judge(q *request) {
	if len(q.sent) == 0 {
		c.add(Real, q.first, "%s by %s at %s, but no client sent it", q.first.Kind, q.first.Who, clock(q.first))
		return
	}
	sent := q.sent[0]
	if len(q.sent) > 1 {
		c.add(Real, sent, "sent twice under one id, by %s and %s", sent.Who, q.sent[1].Who)
	}
	for _, b := range q.begins {
		if b.Sum != sent.Sum || b.Task != sent.Task || b.Class != sent.Class {
			c.add(Whole, sent, "sent to %s with checksum %08x, %s began %s with %08x", sent.Task, sent.Sum, b.Who, b.Task, b.Sum)
		}
	}
	switch {
	case sent.Class == Message || sent.Class == Sync:
		c.given(q, sent)
		return
	case len(q.ends) == 0:
		c.open(q, sent)
		return
	case len(q.ends) > 1:
		c.add(EndedOnce, sent, "%d ends: %s at %s and %s at %s", len(q.ends), q.ends[0].Kind, clock(q.ends[0]), q.ends[1].Kind, clock(q.ends[1]))
	}
	for _, end := range q.ends {
		if end.Kind == history.Answered {
			c.tally(sent.Class).Answered++
			c.answered(q, sent, end)
		} else {
			c.tally(sent.Class).Refused[end.Code]++
			c.refused(q, sent, end)
		}
	}
}

// open judges a request that has no end.
func (c *checker) open(q *request, sent history.Record) {
	if sent.Class == messages.Training && len(q.stored) > 0 {
		c.add(Kept, sent, "stored at %s for %s, and never done", clock(q.stored[0]), sent.Who)
		return
	}
	// The next life of a client submits again what the one before did not see stored.
	last := sent.At.Add(messages.Millis(sent.Millis) + patience)
	if sent.Class != messages.Training && slices.ContainsFunc(c.killed[sent.Who], func(t time.Time) bool { return !t.Before(sent.At) && t.Before(last) }) {
		c.tally(sent.Class).CutOff++
		return
	}
	c.add(Ended, sent, "sent by %s at %s, never ended", sent.Who, clock(sent))
}

func (c *checker) answered(q *request, sent, end history.Record) {
	begin, ok := c.execs[end.Exec]
	done := slices.ContainsFunc(q.dones, func(r history.Record) bool { return r.Exec == end.Exec && r.Code == "" })
	switch {
	case !ok:
		c.add(Real, sent, "answered by %s with the result of %q, an execution that nobody began", end.Agent, end.Exec)
	case begin.ID != sent.ID:
		c.add(Real, sent, "answered by %s with the result of request %s", end.Agent, begin.ID)
	case begin.Who != end.Agent:
		c.add(Real, sent, "answered by %s, but %s executed it", end.Agent, begin.Who)
	case !done:
		c.add(Real, sent, "answered with the result of %s on %s, which never came to a good end", end.Exec, begin.Who)
	case begin.Attempt != end.Attempt:
		c.add(Newest, sent, "answered as attempt %d with the result of attempt %d", end.Attempt, begin.Attempt)
	case sent.Class == messages.Training:
		c.newest(q, sent, begin)
	}
}

// newest judges the result of a job: its record names one attempt at a time, so the one
// that ends it is the last that began.
func (c *checker) newest(q *request, sent, begin history.Record) {
	for _, b := range q.begins {
		if b.Attempt > begin.Attempt || b.Attempt == begin.Attempt && b.At.After(begin.At) {
			c.add(Newest, sent, "done by attempt %d on %s (began at %s), but attempt %d began on %s at %s", begin.Attempt, begin.Who, clock(begin), b.Attempt, b.Who, clock(b))
			return
		}
	}
}

func (c *checker) refused(q *request, sent, end history.Record) {
	if slices.Contains(unexplained, end.Code) {
		c.add(Expected, sent, "ended in %q: %s", end.Code, end.Text)
	}
	switch {
	case sent.Class == messages.Training && len(q.stored) > 0:
		c.add(Kept, sent, "stored at %s, ended in %s: %s", clock(q.stored[0]), end.Code, end.Text)
	case sent.Class == messages.Action && len(q.begins) > 0 && !slices.Contains(mayHaveRun, end.Code):
		c.add(TrueRefusal, sent, "its caller was told %s (%s), but %s began it at %s", end.Code, end.Text, q.begins[0].Who, clock(q.begins[0]))
	}
}

// command names what an action told its robot to do, episode the run that it counts in.
func command(r history.Record) string { return fmt.Sprintf("%s/%d", episode(r), r.Seq) }

func episode(r history.Record) string {
	return fmt.Sprintf("%s/%s/%s", r.Task, r.Origin, r.Episode)
}

// judgeActions judges all executions of actions, which are sorted by time.
func (c *checker) judgeActions() {
	byCommand, byID := make(map[string]history.Record), make(map[string]history.Record)
	last := make(map[string]history.Record)
	lives := make(map[string]history.Record) // by the life of the robot that a command named
	for _, r := range c.acts {
		if before, ok := byCommand[command(r)]; ok {
			c.add(ActedOnce, r, "%s began on %s at %s and on %s at %s", command(r), before.Who, clock(before), r.Who, clock(r))
		} else if before, ok := byID[r.ID]; ok {
			c.add(ActedOnce, r, "one request began as %s and as %s", command(before), command(r))
		} else if before := last[episode(r)]; before.Seq > r.Seq {
			c.add(InOrder, r, "%s began at %s, after %d, which began at %s", command(r), clock(r), before.Seq, clock(before))
		}
		byCommand[command(r)], byID[r.ID], last[episode(r)] = r, r, r
		named := r.Who + "/" + r.Inc
		if before, ok := lives[named]; ok && before.Life != r.Life && r.Inc != "" { // one that waited for its robot is for any life
			c.add(Newest, r, "meant for life %s of %s, which was process %d; process %d began it", r.Inc, r.Who, before.Life, r.Life)
		}
		lives[named] = r
		c.late(r)
	}
}

// plan is a plan that a client goes by. Terms are read here, not by the vocabulary of
// what is judged.
type plan struct {
	epoch     int64
	term, rev uint64
}

func (p plan) compare(o plan) int {
	return cmp.Or(cmp.Compare(p.epoch, o.epoch), cmp.Compare(p.term, o.term), cmp.Compare(p.rev, o.rev))
}

// judgeRoutes judges the plans that each life of a client went by.
func (c *checker) judgeRoutes() {
	last := make(map[string]plan)
	for _, r := range c.routes {
		now, who := plan{rev: r.Seq}, fmt.Sprintf("%s/%d", r.Who, r.Life)
		if _, err := fmt.Sscanf(r.Inc, "%d-%d", &now.epoch, &now.term); err != nil {
			c.add(Newest, r, "%s went by a plan of term %q, which is none", who, r.Inc)
			continue
		}
		if before, ok := last[who]; ok && now.compare(before) < 0 {
			c.add(Newest, r, "%s went back from the plan %+v to %+v", who, before, now)
		}
		last[who] = now
	}
}
