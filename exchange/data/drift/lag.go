package drift

import (
	"cmp"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Line is how one environment stands towards one body.
type Line struct {
	Name      string        `json:"name"`
	Agent     string        `json:"agent"`
	State     State         `json:"state"`
	Held      uint64        `json:"held"`             // revision that it holds, as it said last; 0: none
	Wanted    uint64        `json:"wanted"`           // revision that it is to hold; 0: none
	Revisions uint64        `json:"revisions"`        // how many it is behind
	Bytes     int64         `json:"bytes"`            // that it still has to get
	Behind    time.Duration `json:"-"`                // since it should hold something else than it does
	Reason    string        `json:"reason,omitempty"` // with failed: why
}

// State is how an environment stands towards a body, as others see it.
type State string

// The states of a line.
const (
	Synced   State = "synced"   // it has acknowledged the digest of the record
	Fetching State = "fetching" // it has begun
	Failed   State = "failed"   // it says that it cannot; it tries on
	Waiting  State = "waiting"  // it has said nothing yet: it is away, or about to begin
	Removing State = "removing" // it holds what it is not to hold any more, as far as is known
)

// Lags says of every environment that is to hold a body, or still holds one that it is not
// to hold, how far it is behind. acks are by agent, then by name. The lines are sorted by
// name, then by agent.
func Lags(records []Record, fleet []messages.Environment, acks map[string]map[string]messages.DataAck) []Line {
	var lines []Line
	for _, r := range records {
		for _, e := range fleet {
			ack, said := acks[e.ID][r.Name]
			wanted := !r.Removed && r.For.Has(e)
			switch {
			case wanted:
				lines = append(lines, lag(r, e.ID, ack))
			case said && ack.Held > 0:
				lines = append(lines, Line{Name: r.Name, Agent: e.ID, State: Removing, Held: ack.Held, Behind: r.Age})
			}
		}
	}
	slices.SortFunc(lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Agent, b.Agent))
	})
	return lines
}

func lag(r Record, agent string, ack messages.DataAck) Line {
	l := Line{Name: r.Name, Agent: agent, State: Waiting, Held: ack.Held, Wanted: r.Rev}
	if ack.Digest == r.Digest && ack.Held > 0 && ack.State == messages.DataSynced {
		// Also where only the audience was changed since: it is the same body.
		l.State, l.Held = Synced, r.Rev
		return l
	}
	l.Behind, l.Bytes = r.Age, r.Size
	if r.Rev > ack.Held {
		l.Revisions = r.Rev - ack.Held
	}
	if ack.Want != r.Rev {
		return l // what it says is of another revision
	}
	switch ack.State {
	case messages.DataFetching:
		l.State = Fetching
	case messages.DataFailed:
		l.State, l.Reason = Failed, ack.Reason
	}
	l.Bytes = max(0, r.Size-ack.Have)
	return l
}

// Sum is how an audience stands towards one body.
type Sum struct {
	Name   string        `json:"name"`
	All    int           `json:"environments"`
	Synced int           `json:"synced"`
	Bytes  int64         `json:"bytes"` // that all together still have to get
	Behind time.Duration `json:"-"`     // of the one that is furthest behind
}

// Done reports whether nobody is behind.
func (s Sum) Done() bool { return s.Synced == s.All }

// Sums adds up lines by name, for names too that have none.
func Sums(names []string, lines []Line) []Sum {
	sums := make([]Sum, 0, len(names))
	for _, n := range names {
		s := Sum{Name: n}
		for _, l := range lines {
			if l.Name != n {
				continue
			}
			s.All++
			if l.State == Synced {
				s.Synced++
			}
			s.Bytes += l.Bytes
			s.Behind = max(s.Behind, l.Behind)
		}
		sums = append(sums, s)
	}
	return sums
}
