package check

import (
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
)

// certain are the codes by which a sender is told that its message was not taken.
var certain = []messages.Code{messages.CodeBusy, messages.CodePayloadTooLarge, messages.CodeBadRequest}

// given judges a message or a body that somebody gave to others. To be acknowledged is
// its end for who gave it.
func (c *checker) given(q *request, sent history.Record) {
	t := c.tally(sent.Class)
	for _, b := range q.begins {
		if b.Who != sent.Agent {
			c.add(Real, sent, "sent to %s, %s took it", sent.Agent, b.Who)
		}
	}
	switch n := len(q.stored) + len(q.ends); {
	case n > 1:
		c.add(EndedOnce, sent, "%d ends, the first at %s", n, clock(append(q.stored, q.ends...)[0]))
	case n == 0 && slices.ContainsFunc(c.killed[sent.Who], func(at time.Time) bool { return !at.Before(sent.At) }):
		t.CutOff++
	case n == 0:
		c.add(Ended, sent, "given by %s at %s, and never heard of again", sent.Who, clock(sent))
	case len(q.stored) == 1:
		t.Answered++
		if sent.Class == Message && len(q.begins) == 0 && sent.Millis == 0 {
			c.add(Kept, sent, "%s said at %s that it is stored for %s, who never got it", sent.Who, clock(q.stored[0]), sent.Agent)
		}
	default:
		end := q.ends[0]
		t.Refused[end.Code]++
		if slices.Contains(unexplained, end.Code) {
			c.add(Expected, sent, "ended in %q: %s", end.Code, end.Text)
		}
		if len(q.begins) > 0 && slices.Contains(certain, end.Code) {
			c.add(TrueRefusal, sent, "its sender was told %s (%s), but %s got it at %s", end.Code, end.Text, q.begins[0].Who, clock(q.begins[0]))
		}
	}
}

// Undelivered returns how many messages that do not expire were acknowledged and have not
// come.
func Undelivered(records []history.Record) (n int) {
	open := make(map[string]bool)
	for _, r := range records {
		if r.Class == Message && r.Kind == history.Stored && r.Millis == 0 {
			open[r.ID] = true
		}
	}
	for _, r := range records {
		if r.Class == Message && r.Kind == history.Begin {
			delete(open, r.ID)
		}
	}
	return len(open)
}

// judgeMail judges all messages that came, which are sorted by time.
func (c *checker) judgeMail() {
	last := make(map[string]history.Record)
	for _, r := range c.mail {
		stream := r.Origin + "/" + r.Episode + "/" + r.Who
		switch before, ok := last[stream]; {
		case ok && before.Seq > r.Seq:
			c.add(InOrder, r, "%s got message %d of %s at %s, after %d, which it got at %s", r.Who, r.Seq, stream, clock(r), before.Seq, clock(before))
		case ok && before.Seq == r.Seq && before.Life == r.Life:
			c.add(ActedOnce, r, "life %d of %s got message %d of %s at %s and at %s", r.Life, r.Who, r.Seq, stream, clock(before), clock(r))
		}
		last[stream] = r
		c.late(r)
	}
}

// late judges whether something began after its time.
func (c *checker) late(r history.Record) {
	q := c.requests[r.ID]
	if len(q.sent) == 0 || q.sent[0].Millis == 0 {
		return
	}
	late := r.At.Sub(q.sent[0].At.Add(messages.Millis(q.sent[0].Millis)))
	switch {
	case late > Slack+Forgiven:
		c.add(InTime, r, "sent at %s with %.0f ms, %s began it at %s, %v late", clock(q.sent[0]), q.sent[0].Millis, r.Who, clock(r), late.Round(time.Millisecond))
	case late > Slack:
		c.v.Tardy++
		c.v.Tardiest = max(c.v.Tardiest, float64(late.Milliseconds()))
	}
}

// judgeBodies judges what was put and what is held. The last put of a run comes when all
// is quiet and is acknowledged, so that it is known what everybody is to hold.
func (c *checker) judgeBodies() {
	newest := make(map[string]history.Record) // by name
	byRev := make(map[string]map[uint64]history.Record)
	for _, q := range c.requests {
		for _, r := range q.stored {
			if r.Class != Sync {
				continue
			}
			if byRev[r.Task] == nil {
				byRev[r.Task] = make(map[uint64]history.Record)
			}
			if other, ok := byRev[r.Task][r.Seq]; ok {
				c.add(OneWriter, r, "%s and %s both wrote revision %d of %s", other.Who, r.Who, r.Seq, r.Task)
			}
			byRev[r.Task][r.Seq] = r
			if r.Seq > newest[r.Task].Seq {
				newest[r.Task] = r
			}
		}
	}
	for _, h := range c.held {
		if want := newest[h.Task]; h.Text != want.Text {
			h.Class = Sync
			c.add(Kept, h, "%s holds %s with digest %.12q, revision %d is %.12q, put by %s", h.Agent, h.Task, h.Text, want.Seq, want.Text, want.Who)
		}
	}
}
