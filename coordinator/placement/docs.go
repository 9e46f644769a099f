package placement

import (
	"fmt"
	"reflect"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// document is what is known of the placement document of one agent. Persist, then
// send, then wait for the ack: a document that was sent and not saved would be undone
// by the next leader; one that was saved and not sent is healed by the next beat.
type document struct {
	agent string
	doc   messages.Placement // the newest; its revision is 0 where there is none yet
	force bool               // give it out again, whatever it says

	saved     uint64 // revision that is stored under this term
	saving    uint64 // revision that is under way; 0 for none
	askedAt   time.Time
	saveTries int
	saveAt    time.Time

	after            uint64 // revision of the routes that must be out first: they no longer lead there
	sentAt, resendAt time.Time
	tries            int
	refused          string // what the agent said of it
	failed           int    // times that it was sent and not answered

	appliedTerm messages.Term // by the agent
	applied     uint64
}

func (m *Machine) document(id string) *document {
	d := m.docs[id]
	if d == nil {
		d = &document{agent: id}
		m.addDocument(d)
	}
	return d
}

// flush makes what changed in this Step into documents and routes.
func (m *Machine) flush() {
	for _, name := range sorted(m.dirtyRanks) {
		m.rank(name)
	}
	clear(m.dirtyRanks)
	var drains []*document
	for _, id := range sorted(m.dirtyDocs) {
		if a := m.agents[id]; a != nil && m.write(a) {
			drains = append(drains, m.docs[id])
		}
	}
	clear(m.dirtyDocs)
	m.flushRoutes()
	t := &m.routes
	for _, d := range drains {
		d.after = t.rev // traffic shifts first, then the old one drains
		if len(m.dirtyRoutes) > 0 {
			d.after++ // it shifts in the routes after those that are under way
		}
		m.heldDocs[d.agent] = true
	}
	for _, id := range sorted(m.heldDocs) {
		d := m.docs[id]
		if out := len(m.dirtyRoutes) == 0 && t.sent == t.rev; t.sent < d.after && !out {
			continue
		}
		d.after = 0
		delete(m.heldDocs, id)
		if d.stored() && !d.confirmed() {
			m.send(d)
		}
	}
}

// write makes the document of an agent anew, if it says something new, and reports
// whether that begins to drain something.
func (m *Machine) write(a *agent) (drains bool) {
	var list []messages.PlacedReplica
	for _, h := range a.all() {
		id := h.replica.id
		list = append(list, messages.PlacedReplica{ID: id, Task: h.task, Rank: h.rank, Drain: h.drain})
	}
	d := m.docs[a.id]
	if d == nil && len(list) == 0 && !a.straying {
		return false // it was told nothing, and there is nothing to tell
	}
	d = m.document(a.id)
	if !d.force && d.doc.Inc == a.inc && reflect.DeepEqual(d.doc.Replicas, list) {
		m.told(a, d)
		return false // what changed was changed back
	}
	d.force, d.refused, d.failed = false, "", 0
	d.doc = messages.Placement{Agent: a.id, Term: m.term, Rev: d.doc.Rev + 1, Inc: a.inc, Replicas: list}
	drains = m.told(a, d)
	d.saveTries, d.saveAt = 0, time.Time{}
	m.save(d)
	return drains
}

// told notes which document says what changed, and reports whether something is to
// drain by it.
func (m *Machine) told(a *agent, d *document) (drains bool) {
	for _, h := range a.hosted {
		if h.changed {
			drains = drains || h.drain || h.reopens
			h.changed, h.reopens, h.term, h.rev = false, false, d.doc.Term, d.doc.Rev
		}
	}
	return drains
}

// save asks for the newest document to be stored, one at a time per agent.
func (m *Machine) save(d *document) {
	if d.saving != 0 || d.saved == d.doc.Rev || m.now.Before(d.saveAt) {
		return
	}
	d.saving, d.askedAt = d.doc.Rev, m.now
	m.saves = append(m.saves, SavePlacement{d.doc})
}

func (m *Machine) saved(ev Saved) {
	d := m.docs[ev.Agent]
	if d == nil || !m.leading || ev.Term != m.term {
		return
	}
	// The word of a save that nobody waits for any more (Calm.SaveLost) counts too.
	if late := d.saving == 0 && ev.Rev > d.saved && ev.Rev <= d.doc.Rev; ev.Rev != d.saving && !late {
		return
	}
	d.saving, d.saved, d.saveTries = 0, ev.Rev, 0
	if d.saved != d.doc.Rev {
		m.save(d) // what is stored is old already: the agent gets the newest only
		return
	}
	d.tries = 0
	m.send(d)
}

func (m *Machine) saveFailed(ev SaveFailed) {
	d := m.docs[ev.Agent]
	if d == nil || !m.leading || ev.Term != m.term || ev.Rev != d.saving {
		return
	}
	if d.saveTries == 0 {
		m.record("save_failed", d.agent, "", "revision %d of its document: %s", ev.Rev, ev.Reason)
	}
	d.saving = 0
	d.saveAt = m.now.Add(backoff(m.calm.SaveRetry, m.calm.SaveRetryMax, d.saveTries))
	d.saveTries++
	m.at(d.saveAt)
}

// send sends the saved document. To a lost agent nothing is sent: its document waits.
func (m *Machine) send(d *document) {
	a := m.agents[d.agent]
	if a == nil || a.state == messages.AgentLost || !m.linkUp || d.doc.Term != m.term || d.after != 0 {
		return
	}
	d.sentAt = m.now
	d.resendAt = m.now.Add(backoff(m.calm.Resend, m.calm.ResendMax, d.tries))
	d.tries++
	m.at(d.resendAt)
	m.sends = append(m.sends, SendPlacement{Site: a.env.Site, Doc: d.doc})
}

// stored reports whether the newest document is.
func (d *document) stored() bool { return d.doc.Rev != 0 && d.saved == d.doc.Rev && d.saving == 0 }

// confirmed reports whether the agent has applied the newest document. One of a newer
// term is another's: it says nothing of ours.
func (d *document) confirmed() bool { return d.appliedTerm == d.doc.Term && d.applied >= d.doc.Rev }

// resend saves and sends again what is due.
func (m *Machine) resend(d *document) {
	if !m.linkUp {
		return
	}
	if d.saving != 0 && m.now.Sub(d.askedAt) >= m.calm.SaveLost {
		m.saveFailed(SaveFailed{Agent: d.agent, Term: m.term, Rev: d.saving, Reason: "nothing was heard of it"})
	}
	if d.doc.Rev != 0 && d.saving == 0 && d.saved != d.doc.Rev {
		m.save(d)
		m.at(d.saveAt)
		return
	}
	if a := m.agents[d.agent]; !d.stored() || d.confirmed() || a == nil || a.state == messages.AgentLost {
		return
	}
	if m.now.Before(d.resendAt) {
		m.at(d.resendAt)
		return
	}
	m.send(d)
}

// resendSoon sends the document again unless it was sent within Calm.Resend.
func (m *Machine) resendSoon(a *agent) {
	if d := m.docs[a.id]; m.leading && d != nil && d.stored() && m.now.Sub(d.sentAt) >= m.calm.Resend {
		m.send(d)
	}
}

// applied notes what an agent says that it has applied. An older document than it
// should have is healed at once, so that a lost message or a lost ack costs a beat.
func (m *Machine) applied(a *agent, term messages.Term, rev uint64) {
	if m.leading {
		m.outranked(a, term, rev)
	}
	d := m.docs[a.id]
	if d == nil || !m.leading {
		return
	}
	d.appliedTerm, d.applied = term, rev
	m.outrun(d, term, rev)
	if !d.confirmed() && d.refused == "" {
		m.resendSoon(a)
	}
}

// outrun heals a lost store: an agent has a newer document of this very term than we
// know of. The next one must be newer still, or it would be refused for ever.
func (m *Machine) outrun(d *document, term messages.Term, rev uint64) {
	const believable = 1 << 40 // no store loses more, and no agent may use the numbers up
	if term == m.term && rev > d.doc.Rev && rev < d.doc.Rev+believable {
		d.doc.Rev, d.force = rev, true
		m.dirtyDocs[d.agent] = true
	}
}

func (m *Machine) ack(ack *messages.PlacementAck) {
	a, d := m.agents[ack.Agent], m.docs[ack.Agent]
	if a == nil || d == nil || !m.leading || ack.Inc != a.inc {
		return
	}
	m.outranked(a, ack.Term, ack.Rev)
	// A document that an agent has already is refused too: its first ack was lost.
	if ack.Error != "" && (ack.Term != d.doc.Term || ack.Rev != d.doc.Rev) {
		if d.refused != ack.Error {
			m.record("placement_refused", a.id, "", "revision %d: %s", d.doc.Rev, ack.Error)
		}
		d.refused = ack.Error
		m.outrun(d, ack.Term, ack.Rev)
		return
	}
	if !reached(ack.Term, ack.Rev, d.appliedTerm, d.applied) {
		return // a beat was faster
	}
	d.appliedTerm, d.applied = ack.Term, ack.Rev
	// Its states may be older than those of a beat that overtook it, so only what is
	// not known yet is taken from it.
	for _, st := range ack.Replicas {
		if h := a.hosted[st.ID]; h != nil && h.state == messages.ReplicaPending {
			m.status(h, ack.Term, ack.Rev, &st)
		}
	}
}

// unansweredAfter is after how many documents in a row without an answer that is told:
// some 15 s of an agent that says nothing, 5 s of one that beats. A lost ack or two, or a
// link that was away for less than it takes to be lost, are not worth a word.
const unansweredAfter = 5

func (m *Machine) sendFailed(ev SendFailed) {
	a, d := m.agents[ev.Agent], m.docs[ev.Agent]
	if a == nil || d == nil || ev.Term != m.term {
		return
	}
	if ev.NoResponders {
		m.suspect(a, "nobody listens on its placement subject")
	}
	if ev.Rev != d.doc.Rev || d.confirmed() {
		return
	}
	d.failed++
	if d.failed == unansweredAfter {
		m.record("placement_unanswered", a.id, "", "revision %d of its document was sent %d times: %s", ev.Rev, d.failed, noAnswer(ev))
	}
}

func noAnswer(ev SendFailed) string {
	if ev.NoResponders {
		return "nobody listens on its placement subject"
	}
	return "no answer came in time"
}

// unanswered is what is to be said, after why a replica is where it is, of an agent that
// does not answer its documents; "" for one that does.
func (m *Machine) unanswered(a *agent) string {
	d := m.docs[a.id]
	if d == nil || d.failed < unansweredAfter || d.confirmed() || a.state == messages.AgentLost {
		return ""
	}
	return fmt.Sprintf("; %s beats, but has not answered revision %d of its document, which was sent %d times: look at its permissions and its log", a.id, d.doc.Rev, d.failed)
}

// outranked follows that an agent has a document of a newer term than ours: another
// leads, or did, with a lease that no longer knows how far its terms had come. The agent
// refuses what we say, so we must not lead under this term. It is told once a term and
// agent, and asked for once a term: an agent that claims anything must not cost more.
func (m *Machine) outranked(a *agent, term messages.Term, rev uint64) {
	if !m.term.Before(term) || a.outranks == term {
		return
	}
	a.outranks = term
	why := fmt.Sprintf("%s has revision %d of its document under term %s, which is newer than ours, %s", a.id, rev, term, m.term)
	m.record("newer_term", a.id, "", "%s: it refuses what this coordinator says", why)
	if m.outrank.Before(term) {
		m.outrank = term
		m.sends = append(m.sends, StepDown{Term: term, Reason: why})
	}
}
