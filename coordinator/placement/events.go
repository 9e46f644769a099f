package placement

import "github.com/fleetbus/fleetbus/messages"

// Event is something that happened. The types below are all there are.
type Event interface{ event() }

// What is known of agents. The shell delivers all registrations and the first
// TasksChanged before it delivers Elected: a leader that knows half of the fleet would
// think the other half lost.
type (
	// Registered: an agent's registration, and the incarnation that its revision makes.
	Registered struct {
		Registration messages.Registration
		Inc          messages.Incarnation
	}
	// Unregistered: the registration is gone; the agent is forgotten.
	Unregistered struct{ Agent string }
	// Heartbeat of an agent.
	Heartbeat struct{ messages.Heartbeat }
	// Goodbye of an agent.
	Goodbye struct{ messages.Goodbye }
	// ConnClosed: the connection of this incarnation was closed. It is evidence, not
	// proof: a reconnection looks the same.
	ConnClosed struct {
		Agent string
		Inc   messages.Incarnation
	}
	// Unreached: somebody who sends requests (By, for people) found nobody listening at
	// this incarnation of an agent. It is evidence, not proof, and needs not be true: an
	// agent that beats disproves it.
	Unreached struct {
		Agent string
		Inc   messages.Incarnation
		By    string
	}
	// Reached: this incarnation of an agent answered. It ends the evidence against it, and is
	// no beat.
	Reached struct {
		Agent string
		Inc   messages.Incarnation
	}
)

// What became of effects.
type (
	// Saved: the document of SavePlacement is stored.
	Saved struct {
		Agent string
		Term  messages.Term
		Rev   uint64
	}
	// SaveFailed: it is not stored, or nobody knows. A lost compare-and-set is not
	// this: then another leads, and the shell delivers Deposed.
	SaveFailed struct {
		Agent  string
		Term   messages.Term
		Rev    uint64
		Reason string
	}
	// RoutesSaved: the routes of SaveRoutes are stored.
	RoutesSaved struct {
		Term messages.Term
		Rev  uint64
	}
	// RoutesSaveFailed: they are not, or nobody knows.
	RoutesSaveFailed struct {
		Term   messages.Term
		Rev    uint64
		Reason string
	}
	// Ack: an agent answered SendPlacement.
	Ack struct{ messages.PlacementAck }
	// SendFailed: no answer came. NoResponders says that nobody listens there, which is
	// evidence that the agent is gone; otherwise the time was over.
	SendFailed struct {
		Agent        string
		Term         messages.Term
		Rev          uint64
		NoResponders bool
	}
)

// TasksChanged is the whole desired state, never a difference.
type TasksChanged struct {
	Tasks    []messages.Task
	Settings messages.Settings
	Drains   []messages.DrainEntry
}

// Leadership and the own link.
type (
	// PlacementsLoaded: what is saved, read after the lease was acquired and delivered
	// right before Elected. Routes may be nil; they tell which of two is the home.
	PlacementsLoaded struct {
		Docs   []messages.Placement
		Routes *messages.Routes
	}
	// Elected: from now on effects are performed, under this term.
	Elected struct{ Term messages.Term }
	// Deposed: from now on they are not.
	Deposed struct{ Reason string }
	// LinkDown and LinkUp: the own connection to NATS. A Machine begins with it down.
	LinkDown struct{}
	LinkUp   struct{}
	// LinkHeard: the own connection answered just now: a flush or a renewal of the lease
	// came back. A shell that delivers it does so once a second, while the link answers:
	// from the first one on no silence counts that the own link may be to blame for.
	LinkHeard struct{}
	// Tick: time passed.
	Tick struct{}
)

func (Registered) event()       {}
func (Unregistered) event()     {}
func (Heartbeat) event()        {}
func (Goodbye) event()          {}
func (ConnClosed) event()       {}
func (Unreached) event()        {}
func (Reached) event()          {}
func (Saved) event()            {}
func (SaveFailed) event()       {}
func (RoutesSaved) event()      {}
func (RoutesSaveFailed) event() {}
func (Ack) event()              {}
func (SendFailed) event()       {}
func (TasksChanged) event()     {}
func (PlacementsLoaded) event() {}
func (Elected) event()          {}
func (Deposed) event()          {}
func (LinkDown) event()         {}
func (LinkUp) event()           {}
func (LinkHeard) event()        {}
func (Tick) event()             {}
