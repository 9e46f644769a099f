package latch

import (
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// FuzzMachine drives a machine with anything, and holds it to what the package promises,
// reckoned again from all that went in.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{6, 0, 7, 50, 7, 50, 7, 50, 7, 50, 7, 50, 0, 0, 1, 9})
	f.Add([]byte{4, 0, 6, 0, 7, 30, 7, 30, 2, 7, 3, 8, 5, 0, 9, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		reEngage := time.Duration(0)
		if len(data) > 0 && data[0]&0x80 != 0 {
			reEngage = LeastReEngage
		}
		m := New("r1", reEngage)
		now := time.Unix(1000, 0)
		var own, all messages.StopOrder // the newest that went in
		take := func(o messages.StopOrder) {
			into := &own
			if o.Agent == "" {
				into = &all
			}
			if into.Fence.Before(o.Fence) {
				*into = o
			}
		}
		for i := 0; i+1 < len(data); i += 2 {
			before := m.Held()
			knew := m.Verdict().Known
			arg := uint64(data[i+1])
			var fx Effects
			heardRelease, read, measured := false, false, false
			switch op := data[i] % 10; op {
			case 0, 1, 2, 3:
				robot := [...]string{"r1", ""}[op%2]
				o := order(robot, op < 2, arg)
				fx = m.Hear(o)
				if fx.Refuse == "" {
					take(o)
					heardRelease = !o.Stop
					if o.Stop && m.Verdict().Orders != "" && fx.Cancel != Every {
						t.Fatalf("a stop that was heard lets something run: %+v", fx)
					}
				}
			case 4, 5:
				a, b := order("r1", op == 4, arg), order("", op == 5, arg/2)
				fx, read = m.Read(&a, &b), true
				take(a)
				take(b)
			case 6:
				measured = !m.link.heard
				fx = m.Pong(now, now.Add(-time.Duration(arg)*time.Millisecond))
			case 7:
				now = now.Add(time.Duration(arg) * 10 * time.Millisecond)
				fx = m.Tick(now, true)
			case 8:
				fx = m.Tick(now, arg%2 == 0)
			case 9:
				fx = m.Unknown()
			}
			h := m.Held()
			if fx.Save != (h != before) {
				t.Fatalf("step %d: save %v, the latch went from %+v to %+v", i/2, fx.Save, before, h)
			}
			stopped := own.Stop || all.Stop && !all.Fence.Before(own.Fence)
			if m.Verdict().Orders != "" != (stopped || h.Local.On) {
				t.Fatalf("step %d: orders %+v and %+v, the verdict is %+v", i/2, own, all, m.Verdict())
			}
			if before.Local.On && !h.Local.On && !heardRelease {
				t.Fatalf("step %d: a local stop ended without a release", i/2)
			}
			if before.Link.On && !h.Link.On && !heardRelease && reEngage == 0 {
				t.Fatalf("step %d: a lost link ended without a release", i/2)
			}
			if h.Link.On && !before.Link.On && (!fx.Hooks || fx.Cancel < Bound) {
				t.Fatalf("step %d: the link was lost and nothing ends: %+v", i/2, fx)
			}
			if m.Verdict().Known && !knew && !read && !measured {
				t.Fatalf("step %d: it knows without having read", i/2)
			}
			if v := m.Verdict(); (v.Allows("r1", bound) == nil) != (v.Known && v.Orders == "" && v.Link == "") || m.Lost() && v.Known {
				t.Fatalf("step %d: %+v allows %v, lost %v", i/2, v, v.Allows("r1", bound), m.Lost())
			}
			again := New("r1", reEngage)
			again.Restore(h)
			if again.Verdict().Why() != m.Verdict().Why() {
				t.Fatalf("step %d: after a restart %q, before %q", i/2, again.Verdict().Why(), m.Verdict().Why())
			}
		}
	})
}
