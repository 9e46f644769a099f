package placement

import (
	"fmt"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Effect is something that the shell is to do. The types below are all there are. Their
// String is one line for transcripts and logs.
type Effect interface {
	fmt.Stringer
	effect()
}

// The effects, in the order in which a Step returns them. Persist, then send: the
// Machine asks for SendPlacement and BroadcastRoutes only after it was told that the
// same document is stored.
type (
	// SavePlacement: store the document under its agent, by compare-and-set, and deliver
	// Saved or SaveFailed. At most one is under way for an agent.
	SavePlacement struct{ Doc messages.Placement }
	// SaveRoutes: store the routes, by compare-and-set, and deliver RoutesSaved or
	// RoutesSaveFailed. At most one is under way.
	SaveRoutes struct{ Routes messages.Routes }
	// BroadcastRoutes: publish the routes, and again every few seconds.
	BroadcastRoutes struct{ Routes messages.Routes }
	// SendPlacement: send the document to its agent, which is in that site, and deliver
	// Ack or SendFailed.
	SendPlacement struct {
		Site string
		Doc  messages.Placement
	}
	// DropConsumer: the task, which is one of inference, is no more and nothing of it runs;
	// its consumer may go.
	DropConsumer struct {
		Task, Site string
		Class      messages.Class
	}
	// StepDown: an agent has a document of that term, which is newer than the one we lead
	// under: the lease may have been lost and made anew by a server whose clock is behind.
	// Asked for once for each term. The agent may lie, so the shell tells people and goes on.
	StepDown struct {
		Term   messages.Term
		Reason string
	}
	// Record: publish what happened, for people. Best effort.
	Record struct{ Event messages.Event }
	// WakeAt: deliver Tick at that time, unless another Step asks for another time.
	WakeAt struct{ At time.Time }
)

func (SavePlacement) effect()   {}
func (SaveRoutes) effect()      {}
func (BroadcastRoutes) effect() {}
func (SendPlacement) effect()   {}
func (DropConsumer) effect()    {}
func (StepDown) effect()        {}
func (Record) effect()          {}
func (WakeAt) effect()          {}

func (e SavePlacement) String() string { return "save " + docString(e.Doc) }
func (e SendPlacement) String() string {
	return fmt.Sprintf("send %s term %s rev %d", e.Doc.Agent, e.Doc.Term, e.Doc.Rev)
}
func (e SaveRoutes) String() string { return "save " + routesString(e.Routes) }
func (e BroadcastRoutes) String() string {
	return fmt.Sprintf("broadcast routes term %s rev %d", e.Routes.Term, e.Routes.Rev)
}
func (e DropConsumer) String() string {
	return fmt.Sprintf("drop consumer %s of %s in %s", e.Task, e.Class, e.Site)
}
func (e StepDown) String() string { return "step down: " + e.Reason }
func (e WakeAt) String() string   { return "wake at " + e.At.Format("05.000") }

func (e Record) String() string {
	s := "record " + e.Event.Kind
	for _, v := range []string{e.Event.Agent, e.Event.ID} {
		if v != "" {
			s += " " + v
		}
	}
	return s + ": " + e.Event.Reason
}

func docString(d messages.Placement) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s term %s rev %d inc %s [", d.Agent, d.Term, d.Rev, d.Inc)
	for i, r := range d.Replicas {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s rank %d", r.ID, r.Rank)
		if r.Drain {
			b.WriteString(" drain")
		}
	}
	return b.String() + "]"
}

func routesString(r messages.Routes) string {
	var b strings.Builder
	fmt.Fprintf(&b, "routes term %s rev %d [", r.Term, r.Rev)
	for i, t := range r.Tasks {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(t.Task.Name)
		for _, e := range t.Replicas {
			fmt.Fprintf(&b, " %s:%s", e.Agent, e.State)
		}
		if t.Waiting != "" {
			b.WriteString(" waiting")
		}
	}
	return b.String() + "]"
}
