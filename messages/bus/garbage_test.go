package bus

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestGarbageLogsOncePerMinuteAndKind(t *testing.T) {
	var g Garbage
	start := time.Now()
	steps := []struct {
		kind   string
		after  time.Duration
		log    bool
		silent int
	}{
		{"hb", 0, true, 0},
		{"hb", time.Second, false, 1},
		{"place", time.Second, true, 0}, // another kind has its own minute
		{"hb", 59 * time.Second, false, 2},
		{"hb", 60 * time.Second, true, 2},
		{"hb", 61 * time.Second, false, 1},
	}
	for i, s := range steps {
		_, silent, log := g.note(s.kind, start.Add(s.after))
		if log != s.log || silent != s.silent {
			t.Errorf("step %d: logged %v with %d not logged, want %v with %d", i, log, silent, s.log, s.silent)
		}
	}
	if c := g.Counts(); c["hb"] != 5 || c["place"] != 1 || len(c) != 2 {
		t.Errorf("counts: %v", c)
	}
}

func TestGarbageWritesTheReason(t *testing.T) {
	var g Garbage
	if g.Counts() != nil {
		t.Error("counts of nothing must be nil")
	}
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	for range 3 {
		g.Note(log, "do", errors.New("header Fb-Id is missing"))
	}
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "header Fb-Id is missing") {
		t.Errorf("logged %d lines: %s", n, out.String())
	}
}

func TestGarbageForgetsNothingButIsBounded(t *testing.T) {
	var g Garbage
	now := time.Now()
	for i := range 2 * maxGarbageKinds {
		g.note(fmt.Sprint(i), now)
	}
	if n := len(g.Counts()); n > maxGarbageKinds+1 {
		t.Errorf("%d kinds remembered", n)
	}
	if g.Counts()["other"] != maxGarbageKinds {
		t.Errorf("other: %d, want %d", g.Counts()["other"], maxGarbageKinds)
	}
}
