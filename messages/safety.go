package messages

// StopOrder tells robots to stop, or releases them. It is kept in the safety bucket
// first and sent then; the revision of that write orders all orders, whoever gave them.
// A stop that could not be saved has no fence and is sent all the same; a release that
// could not be saved is not sent.
type StopOrder struct {
	V      int    `msgpack:"v" json:"-"`
	Agent  string `msgpack:"a,omitempty" json:"robot,omitempty"` // the robot; "" means all
	Stop   bool   `msgpack:"s" json:"stop"`                      // false releases
	Fence  Fence  `msgpack:"f" json:"fence"`                     // of its entry; zero within the entry itself
	Reason string `msgpack:"w,omitempty" json:"reason,omitempty"`
	By     string `msgpack:"b,omitempty" json:"by,omitempty"` // who gave it, for people
	ID     string `msgpack:"id,omitempty" json:"-"`           // last token of the subject of its acknowledgements
}

func (o *StopOrder) version() *int { return &o.V }

func (o *StopOrder) check() error {
	if o.Agent != "" {
		if err := CheckName("robot", o.Agent); err != nil {
			return err
		}
	}
	if o.ID != "" {
		return CheckName("id", o.ID)
	}
	return nil
}

// StopAck is a robot's answer to a [StopOrder]: what holds there now. It is sent when
// that has been saved.
type StopAck struct {
	V        int         `msgpack:"v" json:"-"`
	Agent    string      `msgpack:"a" json:"robot"`
	Inc      Incarnation `msgpack:"i" json:"incarnation"`
	Fence    Fence       `msgpack:"f" json:"fence"`                          // of the order
	Stopped  string      `msgpack:"w,omitempty" json:"stopped,omitempty"`    // why it takes no actions; "": it takes them
	Canceled int         `msgpack:"n,omitempty" json:"canceled,omitempty"`   // actions that ran and were told to end
	Saved    bool        `msgpack:"sv,omitempty" json:"saved,omitempty"`     // it survives a restart of the agent
	Error    string      `msgpack:"e,omitempty" json:"not_done,omitempty"`   // why the order was not carried out
	Link     bool        `msgpack:"li,omitempty" json:"link_lost,omitempty"` // it is stopped because it had lost its link
}

func (a *StopAck) version() *int { return &a.V }
func (a *StopAck) check() error  { return CheckName("agent", a.Agent) }

// Hold is one reason for which a robot may be stopped.
type Hold struct {
	On     bool   `msgpack:"s,omitempty" json:"on"`
	Fence  Fence  `msgpack:"f" json:"fence"` // of the order; of Local and Link: the newest order known when it began
	Reason string `msgpack:"w,omitempty" json:"reason,omitempty"`
}

// Latch is what stops a robot, as its agent keeps it: on its disk, and in the safety
// bucket for others to see.
type Latch struct {
	V     int    `msgpack:"v" json:"-"`
	Agent string `msgpack:"a" json:"robot"`
	Own   Hold   `msgpack:"o" json:"own"`   // the newest order that named it
	All   Hold   `msgpack:"al" json:"all"`  // the newest order for all
	Local Hold   `msgpack:"lo" json:"here"` // a stop that was never saved, or a state file that could not be read
	Link  Hold   `msgpack:"li" json:"link"` // its link was lost
}

func (l *Latch) version() *int { return &l.V }
func (l *Latch) check() error  { return CheckName("agent", l.Agent) }

// Newest is the newest order that the robot knows.
func (l Latch) Newest() Fence {
	if l.Own.Fence.Before(l.All.Fence) {
		return l.All.Fence
	}
	return l.Own.Fence
}

// Stopped says by which orders the robot is stopped, "" where by none: an order that
// named it holds until a release names it; one for all until a release for all, or a
// newer one that names the robot.
func (l Latch) Stopped() string {
	switch {
	case l.Own.On:
		return because("stopped by an operator", l.Own.Reason)
	case l.All.On && !l.All.Fence.Before(l.Own.Fence):
		return because("stopped with all robots by an operator", l.All.Reason)
	case l.Local.On:
		return because("stopped", l.Local.Reason)
	}
	return ""
}

// LinkStopped says that the robot is stopped because it had lost its link, "" where not.
// Tasks that go on without a link are not stopped by that.
func (l Latch) LinkStopped() string {
	if !l.Link.On {
		return ""
	}
	return because("stopped by itself", l.Link.Reason)
}

// Why says why the robot is stopped, "" where it is not.
func (l Latch) Why() string {
	if why := l.Stopped(); why != "" {
		return why
	}
	return l.LinkStopped()
}

func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}
