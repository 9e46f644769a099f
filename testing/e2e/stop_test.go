package e2e

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/testing/stopping"
)

// Many robots, each with an action that runs, under request load: all are stopped, and
// those whose link is cut stop by themselves. They are 16, or as many as FLEETBUS_ROBOTS says:
// `make e2e` asks for fifty, whose processes starve each other where something else runs, too.
func TestStopMany(t *testing.T) {
	robots := 16
	if n, err := strconv.Atoi(os.Getenv("FLEETBUS_ROBOTS")); err == nil && n > 0 {
		robots = n
	}
	r, err := stopping.Measure(t.Context(), stopping.Config{Robots: robots, Rounds: 2, Cuts: 5, Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("all acknowledged after %v; actions ended after %v (median); after a cut: %v", r.All, stopping.Median(r.Ended), r.SelfStop)
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}

// A handler that goes on for a while after the end of its context is noticed.
func TestStopNoticesALateHandler(t *testing.T) {
	r, err := stopping.Measure(t.Context(), stopping.Config{Robots: 2, Rounds: 1, Cuts: 1, Binary: binary, Fault: "late"})
	if err != nil {
		t.Fatal(err)
	}
	for _, took := range append(r.Ended, r.SelfStop...) {
		if took < time.Second {
			t.Errorf("an action ended after %v, its handler takes a second more", took)
		}
	}
	if err := r.Check(); err == nil || !strings.Contains(err.Error(), "after a stop") || !strings.Contains(err.Error(), "after a cut") {
		t.Errorf("the check says %v", err)
	}
}
