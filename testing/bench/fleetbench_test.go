package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A child of these tests is the test's own program, in a role.
func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		if err := runRole(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if code, child := playChild(); child {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func value(t *testing.T, lines []placementLine, metric string) float64 {
	t.Helper()
	for _, l := range lines {
		if l.Metric == metric {
			return l.Value
		}
	}
	t.Fatalf("no %s in %+v", metric, lines)
	return 0
}

func TestHeartbeatsAreCounted(t *testing.T) {
	t.Parallel()
	lines, err := measureHeartbeats(partsOptions{agents: 200, conns: 4}, 3, time.Second, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if lost := value(t, lines, "lost"); lost != 0 {
		t.Errorf("%v beats lost", lost)
	}
	if rate := value(t, lines, "rate"); rate < 100 || rate > 400 { // 200, on a machine that is busy
		t.Errorf("%v beats a second of 200 agents", rate)
	}
	if cores := value(t, lines, "coordinator_cores"); cores <= 0 || cores > 2 {
		t.Errorf("%v cores", cores)
	}
	if mb := value(t, lines, "rss_mb"); mb < 1 {
		t.Errorf("%v MB", mb)
	}
}

// Beats that are counted and do not arrive are lost, and found to be.
func TestLostHeartbeatsAreFound(t *testing.T) {
	t.Parallel()
	lines, err := measureHeartbeats(partsOptions{agents: 100, conns: 2, drop: 50}, 0, time.Second, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if lost := value(t, lines, "lost"); lost < 1 {
		t.Errorf("%v beats lost, one of fifty was dropped", lost)
	}
}

func TestAcks(t *testing.T) {
	t.Parallel()
	lines, err := measureAcks(partsOptions{agents: 20, conns: 2, robots: true}, 5)
	if err != nil {
		t.Fatal(err)
	}
	for _, metric := range []string{"taken_ms", "acked_ms", "back_taken_ms", "back_acked_ms", "handover_ms", "handover_acked_ms"} {
		if ms := value(t, lines, metric); ms <= 0 || ms > 30_000 {
			t.Errorf("%s: %v ms", metric, ms)
		}
	}
}

// An agent that takes nothing is not counted as one that did.
func TestAcksMissesOne(t *testing.T) {
	t.Parallel()
	_, err := measureAcks(partsOptions{agents: 5, conns: 1, robots: true, stuck: 1, patience: 3 * time.Second}, 0)
	if err == nil || !strings.Contains(err.Error(), "1 of 5 have not") {
		t.Errorf("got %v", err)
	}
}

func TestFleetBenchArguments(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"heartbeat", "--agents", "0"}, "--agents is 0"},
		{[]string{"heartbeat", "--seconds", "0"}, "--seconds is 0"},
		{[]string{"heartbeat", "--conns", "9999"}, "--conns is 9999"},
		{[]string{"heartbeat", "--agents", "5", "--replicas", "6"}, "--replicas is 6"},
		{[]string{"heartbeat", "x"}, `"x" is no flag`},
		{[]string{"acks", "--agents", "9", "--away", "5"}, "--away is 5"},
		{[]string{"acks", "--agents", "1000000"}, "--agents is 1000000"},
		{[]string{"acks", "x"}, `"x" is no flag`},
		{[]string{roleWord, "server"}, "no benchmark"},
	} {
		if err := run(tt.args, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %s", tt.args, err, tt.want)
		}
	}
}
