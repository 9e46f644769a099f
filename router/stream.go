package router

// Partial is a part of an answer that a handler sends before the whole, or (Number 0) its
// report of how far it is.
type Partial struct {
	Body        []byte // the callee's
	ContentType string
	Agent       string  // who sends it
	Attempt     int     // which attempt that is, from 1
	Number      int     // of a partial result, from 1; a gap means that one was lost
	Done        float64 // of progress, 0 to 1
	Note        string  // of progress, for people
}

// maxParts bounds the parts that wait for a slow OnPartial: half of the box, so that the
// result always has room. Those that do not fit are dropped, which their numbers show.
const maxParts = maxBox / 2

// part brings a partial result or a report of progress. It may be called by any
// goroutine.
func (f airborne) part(agent string, a arrival) {
	if !f.parts {
		return // nobody asked for it
	}
	f.f.mu.Lock()
	room := len(f.f.box) < maxParts
	f.f.mu.Unlock()
	if room {
		a.ev.Agent = agent
		f.post(a)
	}
}

// passOn hands a part to the caller. Where two attempts are under way, only the newest
// that has sent anything is heard: an attempt begins from the first part again.
func (f *flight) passOn(a arrival) {
	r := a.part
	if r.Attempt < f.voice || r.Attempt == f.voice && a.ev.Agent != f.speaker {
		return
	}
	f.voice, f.speaker = r.Attempt, a.ev.Agent
	f.onPartial(Partial{
		Body: a.msg.Data, ContentType: r.ContentType, Agent: a.ev.Agent, Attempt: r.Attempt, Number: r.Part,
		Done: float64(r.Done) / 1000, Note: r.Note,
	})
}
