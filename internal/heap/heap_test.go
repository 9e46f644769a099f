package heap

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// childEnv, where it is set, makes a process of this test one that is measured: what a
// collector has done cannot be undone, so each case has a process of its own. Its value is
// how often it calls Floor.
const childEnv = "FLEETBUS_HEAP_TEST"

const (
	bodySize = 300_000
	bodies   = 1000
)

// measured is what a child says of itself.
type measured struct {
	Collections uint32 // that so many bodies caused
	Goal        uint64 // how large the heap may grow before the next one, bytes
	Resident    int64  // by how much its memory had grown after Floor, bytes; 0 where the system does not tell
}

func TestMain(m *testing.M) {
	if calls, ok := os.LookupEnv(childEnv); ok {
		if err := json.NewEncoder(os.Stdout).Encode(measure(len(calls))); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// body is where the bodies go, one after the other; what goes nowhere would be on a stack.
var body []byte

func measure(calls int) (m measured) {
	before := resident()
	for range calls {
		Floor()
	}
	runtime.GC()
	m.Resident = resident() - before
	var from, to runtime.MemStats
	runtime.ReadMemStats(&from)
	for range bodies {
		body = make([]byte, bodySize)
	}
	runtime.ReadMemStats(&to)
	m.Collections, m.Goal = to.NumGC-from.NumGC, from.NextGC
	return m
}

// child measures in a process of its own: with calls of Floor, and with more environment
// than this one has without the settings.
func child(t *testing.T, calls int, env ...string) (m measured) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(settings, name)
	})
	cmd.Env = append(append(cmd.Env, childEnv+"="+strings.Repeat("x", calls)), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return m
}

const mib = 1 << 20

// Of 300 MB of bodies those of some 16 MB become garbage between two collections, without
// the floor those of some 4 MB.
func TestFloor(t *testing.T) {
	without := child(t, 0)
	if without.Goal > 8*mib {
		t.Fatalf("without the floor the goal is %d bytes: the test proves nothing", without.Goal)
	}
	for _, calls := range []int{1, 3} {
		with := child(t, calls)
		t.Logf("called %d times: %+v; without: %+v", calls, with, without)
		if with.Goal < 32*mib || with.Goal > 40*mib {
			t.Errorf("called %d times: the heap may grow to %d bytes, want twice the ballast and a little", calls, with.Goal)
		}
		if with.Collections < 1 || with.Collections*2 > without.Collections {
			t.Errorf("called %d times: %d collections, without the floor %d", calls, with.Collections, without.Collections)
		}
	}
}

func TestOperatorDecides(t *testing.T) {
	for _, env := range []string{"GOGC=100", "GOMEMLIMIT=1GiB"} {
		if got := child(t, 1, env); got.Goal > 8*mib {
			t.Errorf("%s: the heap may grow to %d bytes, as if nobody had said anything", env, got.Goal)
		}
	}
	for _, env := range []string{"GOGC=", "GOMEMLIMIT="} { // which says nothing to Go either
		if got := child(t, 1, env); got.Goal < 32*mib {
			t.Errorf("%s: the heap may grow to %d bytes, want twice the ballast", env, got.Goal)
		}
	}
}
