package order

import "github.com/fleetbus/fleetbus/messages"

// Bounds of what a receiver remembers: of how many senders, and of each how many messages.
// A message comes twice within one exchange with its sender, which has one on its way at a
// time: what is older is known by its place.
const (
	maxSenders = 4096
	maxKept    = 64
)

// Mark is what tells a sender's messages apart.
type Mark struct {
	ID   string
	Life messages.Fence // of the sender; zero: it does not count its messages
	Seq  uint64         // within that life
}

// Verdict is whether a message is new.
type Verdict int

// The verdicts.
const (
	New   Verdict = iota // to be handled
	Again                // handled before, with the outcome that comes with it
	Old                  // overtaken: of an older life of its sender, or before one that was handled
)

// Inbox is what a receiver remembers of those who write to it. It belongs to one goroutine
// at a time. The zero value is an empty one.
type Inbox struct {
	senders map[string]*sender
	turn    uint64
}

type sender struct {
	life messages.Fence
	seq  uint64
	kept []kept
	turn uint64
}

type kept struct {
	id    string
	fault *messages.Error
}

// Judge says whether a message is new, and with Again how it was handled: nil for well.
func (b *Inbox) Judge(from string, m Mark) (Verdict, *messages.Error) {
	s := b.senders[from]
	if s == nil {
		return New, nil
	}
	for _, k := range s.kept {
		if k.id == m.ID {
			return Again, k.fault
		}
	}
	// Lives whose numbers come from different stores cannot be told apart by age.
	if m.Life.IsZero() || m.Life.Epoch != s.life.Epoch {
		return New, nil
	}
	if m.Life.Before(s.life) || m.Life == s.life && m.Seq <= s.seq {
		return Old, nil
	}
	return New, nil
}

// Done says that a message was handled, and how.
func (b *Inbox) Done(from string, m Mark, fault *messages.Error) {
	if b.senders == nil {
		b.senders = make(map[string]*sender)
	}
	s := b.senders[from]
	if s == nil {
		if len(b.senders) >= maxSenders {
			b.forget()
		}
		s = &sender{}
		b.senders[from] = s
	}
	b.turn++
	s.turn = b.turn
	if !m.Life.IsZero() {
		s.life, s.seq = m.Life, m.Seq
	}
	if len(s.kept) >= maxKept {
		s.kept = append(s.kept[:0], s.kept[1:]...)
	}
	s.kept = append(s.kept, kept{m.ID, fault})
}

// forget drops the sender that was silent for longest.
func (b *Inbox) forget() {
	oldest := ""
	for name, s := range b.senders {
		if oldest == "" || s.turn < b.senders[oldest].turn {
			oldest = name
		}
	}
	delete(b.senders, oldest)
}
