package messages

import "strings"

// Root is the first token of every subject of ours.
const Root = "fb"

// MaxSubject bounds a subject that we parse, bytes.
const MaxSubject = 1024

// Kind is what a subject is for.
type Kind string

// The kinds of subjects. {…} are the fields of [Subject]; every layout begins with
// fb.<fleet>.<site>. Whoever publishes has its own id in the subject, so that one
// permission template covers all agents and one all clients. The table below is the
// only place where a layout stands; docs/protocol.md prints it for people.
const (
	// From a client to the coordinators: Unreached.
	KindUnreached Kind = "unreached"

	KindHeartbeat Kind = "hb"      // agent → coordinators: Heartbeat
	KindGoodbye   Kind = "bye"     // agent → coordinators: Goodbye
	KindClaim     Kind = "claim"   // agent → older agents of its id: Claim
	KindPlace     Kind = "place"   // coordinator → agent, request: Placement, answered by PlacementAck
	KindDo        Kind = "do"      // client → agent: a request, straight
	KindProbe     Kind = "probe"   // client → agent, request: Probe
	KindCancel    Kind = "cancel"  // client → agent: Probe with the ids to cancel
	KindReply     Kind = "res"     // agent → client: accepted, progress, result
	KindRequest   Kind = "req"     // any client → router service: an inference or training request
	KindAct       Kind = "act"     // any client → router service: an action; on the wire "req.action"
	KindWork      Kind = "q"       // client → stream: a request that waits for an executor
	KindJob       Kind = "jobs"    // client → stream: a job, until its end
	KindJobLog    Kind = "joblog"  // agent → stream: what a running job has to say, lines of text
	KindTaskLog   Kind = "tasklog" // agent → stream: what a process says that a task has brought, lines of text; the id is the replica's suffix
	KindIntent    Kind = "intent"  // client → journal: an action about to be sent
	KindQueued    Kind = "queued"  // client → journal: an action that waits for its robot; and, by either, what settles it
	KindWake      Kind = "wake"    // client → robot: something waits for it in the journal
	KindOutcome   Kind = "outcome" // agent → journal: what became of an action
	KindProgress  Kind = "job"     // agent → whoever watches a job: Progress
	KindRoutes    Kind = "routes"  // leader → everybody: Routes; fleet-wide
	KindEvent     Kind = "events"  // leader → event stream: Event; fleet-wide
	KindControl   Kind = "ctl"     // anybody → leader, request; fleet-wide

	// Safety, fleet-wide; stopping and releasing have subjects of their own, so that they
	// can be permitted to different people. On the wire "stop" and "release" with or
	// without a robot.
	KindStop       Kind = "stop"       // operator → robot: StopOrder
	KindStopAll    Kind = "stopall"    // operator → all robots: StopOrder
	KindRelease    Kind = "release"    // operator → robot: StopOrder
	KindReleaseAll Kind = "releaseall" // operator → all robots: StopOrder
	KindStopAck    Kind = "stopack"    // robot → operator: StopAck

	KindData Kind = "data" // writer → agents: the record of a named body has changed; fleet-wide

	// Mail. {agent} is whom it is for and {origin} who wrote it, whatever they are.
	KindMail     Kind = "mail"     // sender → receiver, request: a message, answered when it was handled; on the wire "mail.now"
	KindMailBox  Kind = "mailbox"  // sender → stream: a message that waits; "mail.box"
	KindMailWake Kind = "mailwake" // sender → receiver: something waits; "mail.wake"
	KindMailDone Kind = "maildone" // receiver → stream, sender: what became of a message that waited; "mail.done"
	KindMailLife Kind = "maillife" // whoever sends or receives → stream, others of its name: it has begun; "mail.life"
	KindMailPost Kind = "mailpost" // program → its agent, request: send this; "mail.post"
	KindMailRead Kind = "mailread" // agent → its programs, request: a message for it; "mail.read"
)

// layouts lists, per kind, the tokens after fb.<fleet>.<site>: a name in braces is a
// field, everything else stands as it is. Layouts are told apart by their first
// literal tokens; the longer literal prefix comes first.
var layouts = []struct {
	kind   Kind
	tokens []string
}{
	{KindAct, []string{"req", "action", "{origin}", "{agent}", "{task}"}},
	{KindRequest, []string{"req", "{class}", "{origin}", "{task}"}},
	{KindHeartbeat, []string{"hb", "{agent}"}},
	{KindGoodbye, []string{"bye", "{agent}"}},
	{KindUnreached, []string{"unreached", "{agent}", "{origin}"}},
	{KindClaim, []string{"claim", "{agent}"}},
	{KindPlace, []string{"place", "{agent}"}},
	{KindDo, []string{"do", "{agent}", "{origin}", "{task}"}},
	{KindProbe, []string{"probe", "{agent}", "{origin}"}},
	{KindCancel, []string{"cancel", "{agent}", "{origin}"}},
	{KindReply, []string{"res", "{agent}", "{origin}", "{id}"}},
	{KindWork, []string{"q", "{class}", "{task}", "{origin}", "{id}"}},
	{KindJob, []string{"jobs", "{priority}", "{task}", "{origin}", "{id}"}},
	{KindJobLog, []string{"joblog", "{agent}", "{id}"}},
	{KindTaskLog, []string{"tasklog", "{agent}", "{task}", "{id}"}},
	{KindIntent, []string{"journal", "intent", "{agent}", "{origin}", "{id}"}},
	{KindQueued, []string{"journal", "queued", "{agent}", "{origin}", "{id}"}},
	{KindWake, []string{"wake", "{agent}", "{origin}"}},
	{KindOutcome, []string{"journal", "outcome", "{agent}", "{origin}", "{id}"}},
	{KindProgress, []string{"job", "{agent}", "{id}"}},
	{KindRoutes, []string{"routes"}},
	{KindEvent, []string{"events", "{id}"}},
	{KindControl, []string{"ctl", "{id}"}},
	{KindStop, []string{"stop", "{agent}"}},
	{KindStopAll, []string{"stop"}},
	{KindRelease, []string{"release", "{agent}"}},
	{KindReleaseAll, []string{"release"}},
	{KindStopAck, []string{"stopack", "{agent}", "{id}"}},
	{KindData, []string{"data"}},
	{KindMail, []string{"mail", "now", "{agent}", "{origin}"}},
	{KindMailBox, []string{"mail", "box", "{agent}", "{origin}"}},
	{KindMailWake, []string{"mail", "wake", "{agent}", "{origin}"}},
	{KindMailDone, []string{"mail", "done", "{agent}", "{origin}", "{id}"}},
	{KindMailLife, []string{"mail", "life", "{origin}"}},
	{KindMailPost, []string{"mail", "post", "{origin}", "{agent}"}},
	{KindMailRead, []string{"mail", "read", "{agent}", "{origin}"}},
}

// Subject is a subject, taken apart. Fields that its kind does not have are empty.
type Subject struct {
	Kind   Kind
	Fleet  string
	Site   string // FleetSite for what concerns the whole fleet
	Agent  string // the agent it is from or for; with KindAct the robot
	Origin string // the client it is from or for
	Class  Class
	Task   string
	ID     string // request, job or key; the verb of a control request; the kind of an event

	Priority Priority // of a job
}

func (s *Subject) field(token string) *string {
	switch token {
	case "{agent}":
		return &s.Agent
	case "{origin}":
		return &s.Origin
	case "{class}":
		return (*string)(&s.Class)
	case "{task}":
		return &s.Task
	case "{priority}":
		return (*string)(&s.Priority)
	case "{id}":
		return &s.ID
	}
	return nil
}

func layout(k Kind) []string {
	for _, l := range layouts {
		if l.kind == k {
			return l.tokens
		}
	}
	return nil
}

// String returns the subject; an empty field becomes "*", so that the same call
// makes the subject of a message and the pattern of a subscription. It does not
// check: names were checked when they were made, and [Subject.Check] checks again
// what comes from a stranger.
func (s Subject) String() string {
	var b strings.Builder
	b.Grow(96)
	b.WriteString(Root)
	put := func(token string) {
		b.WriteByte('.')
		if token == "" {
			token = "*"
		}
		b.WriteString(token)
	}
	put(s.Fleet)
	put(s.Site)
	for _, t := range layout(s.Kind) {
		if f := s.field(t); f != nil {
			put(*f)
		} else {
			put(t)
		}
	}
	return b.String()
}

// Check returns an error unless every field that the kind has is a good name, and so
// the subject is one that a message can be published on.
func (s Subject) Check() error {
	tokens := layout(s.Kind)
	if tokens == nil {
		return Errorf(CodeBadRequest, "subject kind %q is not one we know", shorten(string(s.Kind)))
	}
	if err := CheckName("fleet", s.Fleet); err != nil {
		return err
	}
	if s.Site != FleetSite {
		if err := CheckName("site", s.Site); err != nil {
			return err
		}
	}
	for _, t := range tokens {
		f := s.field(t)
		if f == nil {
			continue
		}
		var err error
		switch t {
		case "{class}":
			err = s.Class.Check("class")
		case "{priority}":
			err = s.Priority.Check("priority")
		default:
			err = CheckName(strings.Trim(t, "{}"), *f)
		}
		if err != nil {
			return err
		}
	}
	// req.action has a layout of its own, with the robot in it.
	if s.Kind == KindRequest && s.Class == Action {
		return Errorf(CodeBadRequest, "subject: an action names its robot: req.action.<origin>.<robot>.<task>")
	}
	return nil
}

// ParseSubject takes a subject apart. What is not a subject of ours is an error with
// code bad_request; a subject that is returned passes Check, and String gives it back.
func ParseSubject(subject string) (Subject, error) {
	bad := func(why string) (Subject, error) {
		return Subject{}, Errorf(CodeBadRequest, "subject %q: %s", shorten(subject), why)
	}
	if len(subject) > MaxSubject {
		return bad("it is too long")
	}
	tokens := strings.Split(subject, ".")
	if len(tokens) < 4 || tokens[0] != Root {
		return bad("expected fb.<fleet>.<site>.<kind>…")
	}
	for _, l := range layouts {
		s, ok := match(l.kind, l.tokens, tokens)
		if !ok {
			continue
		}
		if err := s.Check(); err != nil {
			return bad(AsError(err, CodeBadRequest).Message)
		}
		return s, nil
	}
	return bad("no kind of subject has this form")
}

func match(kind Kind, want, got []string) (Subject, bool) {
	got, head := got[3:], got
	if len(got) != len(want) || want[0][0] != '{' && want[0] != got[0] {
		return Subject{}, false // most kinds: the first token tells
	}
	s := Subject{Kind: kind, Fleet: head[1], Site: head[2]}
	for i, t := range want {
		if f := s.field(t); f != nil {
			*f = got[i]
		} else if t != got[i] {
			return s, false
		}
	}
	return s, true
}

// JobPattern matches all jobs of a site: what their stream captures. With a task it is the
// filter of the task's consumer for a priority.
func JobPattern(fleet, site string, p Priority, task string) string {
	s := Root + "." + fleet + "." + site + ".jobs."
	if task != "" {
		s += string(p) + "." + task + "."
	}
	return s + ">"
}

// WorkPattern matches all inferences of a site: what their stream captures. With a
// task it is the filter of the task's consumer.
func WorkPattern(fleet, site string, class Class, task string) string {
	p := Root + "." + fleet + "." + site + ".q." + string(class) + "."
	if task != "" {
		p += task + "."
	}
	return p + ">"
}

// JournalPattern matches everything that the action journal of a site captures.
func JournalPattern(fleet, site string) string {
	return Root + "." + fleet + "." + site + ".journal.>"
}
