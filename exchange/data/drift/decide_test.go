package drift

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

var (
	old = strings.Repeat("a", 64)
	now = strings.Repeat("b", 64)
)

func fence(rev uint64) messages.Fence { return messages.Fence{Epoch: 7, Revision: rev} }

func record(rev uint64, digest string, change ...func(*Record)) Record {
	r := Record{Data: messages.Data{Name: "map", Rev: rev, Digest: digest, Size: 100, Object: "o1"}, Fence: fence(10 + rev), Age: time.Minute}
	for _, c := range change {
		c(&r)
	}
	return r
}

func TestDecide(t *testing.T) {
	robot := messages.Environment{ID: "r1", Tier: messages.Robot, Labels: map[string]string{"hall": "2"}}
	for _, tt := range []struct {
		name   string
		record Record
		held   *Held
		look   Look
		deep   bool
		want   Step
	}{
		{"new", record(1, now), nil, Look{}, false, Fetch},
		{"new, of nobody's size", record(1, now), nil, Look{"s", 99}, false, Fetch},
		{"new, a file of that size is there", record(1, now), nil, Look{"s", 100}, false, Verify},
		{"held", record(1, now), &Held{"map", fence(11), 1, now, 100, "s"}, Look{"s", 100}, false, Hold},
		{"held, time to read it", record(1, now), &Held{"map", fence(11), 1, now, 100, "s"}, Look{"s", 100}, true, Verify},
		{"touched", record(1, now), &Held{"map", fence(11), 1, now, 100, "s"}, Look{"t", 100}, false, Verify},
		{"cut short", record(1, now), &Held{"map", fence(11), 1, now, 100, "s"}, Look{"t", 40}, false, Fetch},
		{"deleted", record(1, now), &Held{"map", fence(11), 1, now, 100, "s"}, Look{}, false, Fetch},
		{"an older revision", record(2, now), &Held{"map", fence(11), 1, old, 100, "s"}, Look{"s", 100}, false, Fetch},
		{"an older revision, touched", record(2, now), &Held{"map", fence(11), 1, old, 100, "s"}, Look{"t", 100}, false, Verify},
		{"the same body under a newer revision", record(2, now), &Held{"map", fence(11), 1, now, 100, "s"}, Look{"s", 100}, false, Hold},
		{"a server that is behind", record(1, old), &Held{"map", fence(12), 2, now, 100, "s"}, Look{"s", 100}, false, Leave},
		{"a bucket that was made again", record(1, old, func(r *Record) { r.Fence = messages.Fence{Epoch: 8, Revision: 1} }),
			&Held{"map", fence(12), 2, now, 100, "s"}, Look{"s", 100}, false, Fetch},
		{"removed", record(2, "", func(r *Record) { r.Removed = true }), &Held{"map", fence(11), 1, now, 100, "s"}, Look{"s", 100}, false, Remove},
		{"removed and deleted", record(2, "", func(r *Record) { r.Removed = true }), &Held{"map", fence(11), 1, now, 100, "s"}, Look{}, false, Remove},
		{"removed, the file is not ours", record(2, "", func(r *Record) { r.Removed = true }), nil, Look{"s", 100}, false, Leave},
		{"for others", record(1, now, func(r *Record) { r.For.Tiers = []messages.Tier{messages.Cloud} }), nil, Look{}, false, Leave},
		{"for others now", record(2, now, func(r *Record) { r.For.Labels = map[string]string{"hall": "3"} }),
			&Held{"map", fence(11), 1, now, 100, "s"}, Look{"s", 100}, false, Remove},
		{"for it by label", record(1, now, func(r *Record) { r.For.Labels = map[string]string{"hall": "2"} }), nil, Look{}, false, Fetch},
		{"an empty body", record(1, now, func(r *Record) { r.Size = 0 }), nil, Look{}, false, Fetch},
	} {
		if got := Decide(tt.record, robot, tt.held, tt.look, tt.deep); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Whatever is the case, following the steps ends with the right file, or none.
func TestDecideConverges(t *testing.T) {
	robot := messages.Environment{ID: "r1", Tier: messages.Robot}
	for _, r := range []Record{record(3, now), record(3, "", func(r *Record) { r.Removed = true })} {
		for _, first := range []*Held{nil, {"map", fence(11), 1, old, 100, "s"}, {"map", fence(13), 3, now, 100, "s"}} {
			for _, look := range []Look{{}, {"s", 100}, {"t", 100}, {"t", 5}} {
				for _, content := range []string{old, now} {
					held, is := first, look
					var step Step
					for range 4 {
						switch step = Decide(r, robot, held, is, false); step {
						case Verify:
							if content == r.Digest {
								held = &Held{"map", r.Fence, r.Rev, content, is.Size, is.Stamp}
							} else {
								is = Look{} // what is wrong is as good as nothing
							}
						case Fetch:
							is, content = Look{"new", r.Size}, r.Digest
							held = &Held{"map", r.Fence, r.Rev, r.Digest, r.Size, is.Stamp}
						case Remove:
							held, is = nil, Look{}
						}
					}
					if r.Removed && step != Leave || !r.Removed && (step != Hold || content != now && is.Stamp != look.Stamp) {
						t.Errorf("removed %v, held %v, look %v: it ends with %v", r.Removed, first, look, step)
					}
				}
			}
		}
	}
}

func TestLags(t *testing.T) {
	robot := func(id string) messages.Environment { return messages.Environment{ID: id, Tier: messages.Robot} }
	fleet := []messages.Environment{robot("r6"), robot("r1"), robot("r2"), robot("r3"), robot("r4"), robot("r5"), {ID: "c1", Tier: messages.Cloud}, {ID: "c2", Tier: messages.Cloud}}
	r := record(5, now, func(r *Record) { r.For.Tiers = []messages.Tier{messages.Robot} })
	acks := map[string]map[string]messages.DataAck{
		"r1": {"map": {State: messages.DataSynced, Held: 5, Digest: now, Want: 5}},
		"r2": {"map": {State: messages.DataFetching, Held: 3, Digest: old, Want: 5, Have: 30}},
		"r3": {"map": {State: messages.DataFailed, Want: 5, Have: 10, Reason: "the disk is full"}},
		"r4": {"map": {State: messages.DataSynced, Held: 4, Digest: old, Want: 4}},
		"r6": {"map": {State: messages.DataSynced, Held: 4, Digest: now, Want: 4}}, // the audience was changed since
		"c1": {"map": {State: messages.DataSynced, Held: 2, Digest: old, Want: 2}},
	}
	want := []Line{
		{Name: "map", Agent: "c1", State: Removing, Held: 2, Behind: time.Minute},
		{Name: "map", Agent: "r1", State: Synced, Held: 5, Wanted: 5},
		{Name: "map", Agent: "r2", State: Fetching, Held: 3, Wanted: 5, Revisions: 2, Bytes: 70, Behind: time.Minute},
		{Name: "map", Agent: "r3", State: Failed, Wanted: 5, Revisions: 5, Bytes: 90, Behind: time.Minute, Reason: "the disk is full"},
		{Name: "map", Agent: "r4", State: Waiting, Held: 4, Wanted: 5, Revisions: 1, Bytes: 100, Behind: time.Minute},
		{Name: "map", Agent: "r5", State: Waiting, Wanted: 5, Revisions: 5, Bytes: 100, Behind: time.Minute},
		{Name: "map", Agent: "r6", State: Synced, Held: 5, Wanted: 5},
	}
	got := Lags([]Record{r}, fleet, acks)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	sums := Sums([]string{"map", "none"}, got)
	if s := sums[0]; s.All != 7 || s.Synced != 2 || s.Bytes != 360 || s.Behind != time.Minute || s.Done() {
		t.Errorf("sum %+v", s)
	}
	if !sums[1].Done() {
		t.Errorf("nobody is behind with %+v", sums[1])
	}
}
