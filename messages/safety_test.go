package messages

import "testing"

func TestLatchWhy(t *testing.T) {
	at := func(rev uint64) Fence { return Fence{Epoch: 1, Revision: rev} }
	stop := func(rev uint64) Hold { return Hold{On: true, Fence: at(rev), Reason: "r"} }
	free := func(rev uint64) Hold { return Hold{Fence: at(rev)} }
	for _, s := range []struct {
		name string
		l    Latch
		want string
	}{
		{"never stopped", Latch{}, ""},
		{"stopped by name", Latch{Own: stop(3)}, "stopped by an operator: r"},
		{"a newer release of all does not release what was stopped by name", Latch{Own: stop(3), All: free(4)}, "stopped by an operator: r"},
		{"stopped with all", Latch{All: stop(3)}, "stopped with all robots by an operator: r"},
		{"an older release by name", Latch{Own: free(2), All: stop(3)}, "stopped with all robots by an operator: r"},
		{"a newer release by name", Latch{Own: free(4), All: stop(3)}, ""},
		{"a bucket that was made again", Latch{Own: Hold{Fence: Fence{Epoch: 2, Revision: 1}}, All: stop(3)}, ""},
		{"local", Latch{Local: Hold{On: true}}, "stopped"},
		{"link", Latch{Link: Hold{On: true, Reason: "no answer"}}, "stopped by itself: no answer"},
		{"an order says more than the link", Latch{Link: Hold{On: true}, Own: stop(1)}, "stopped by an operator: r"},
	} {
		if got := s.l.Why(); got != s.want {
			t.Errorf("%s: %q, want %q", s.name, got, s.want)
		}
	}
	if got := (Latch{Own: free(2), All: free(3)}).Newest(); got != at(3) {
		t.Error(got)
	}
	if got := (Latch{Own: free(5), All: free(3)}).Newest(); got != at(5) {
		t.Error(got)
	}
}

func TestTaskOnLinkLoss(t *testing.T) {
	act := Task{Name: "hold", Class: Action, Per: PerRobot}
	for _, s := range []struct {
		value, hook string
		goesOn, ok  bool
	}{
		{"", "", false, true}, {LinkStop, "", false, true}, {LinkContinue, "", true, true}, {"retract", "retract", false, true},
		{"rm -rf /", "rm -rf /", false, false},
	} {
		act.OnLinkLoss = s.value
		if err := act.Check(""); (err == nil) != s.ok {
			t.Errorf("%q: %v", s.value, err)
		}
		if act.LinkHook() != s.hook || act.GoesOn() != s.goesOn {
			t.Errorf("%q: hook %q, goes on %v", s.value, act.LinkHook(), act.GoesOn())
		}
	}
	if err := (Task{Name: "see", Class: Inference, OnLinkLoss: LinkStop}).Check(""); CodeOf(err) != CodeBadRequest {
		t.Error(err)
	}
	if !(Task{Class: Inference}).GoesOn() {
		t.Error("a link that is lost stops an inference")
	}
}
