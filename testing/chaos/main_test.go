package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/chaos/check"
)

// Processes of a run are this program again, so the test's binary is theirs.
func TestMain(m *testing.M) {
	if code, child := playPart(); child {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// Every fault that can be planted into a run is found in one, by its rule. Whether
// fleetbus passes is not judged here: on a machine that is busy with other tests a late
// answer proves nothing.
func TestPlantedFaultsAreFound(t *testing.T) {
	var out bytes.Buffer
	dir := t.TempDir()
	err := run([]string{"--seed", "1", "--duration", "12s", "--plant", "all", "--keep", dir}, &out)
	if !errors.Is(err, errFound) {
		t.Fatalf("%v\n%s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var res result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &res); err != nil {
		t.Fatalf("the last line is no JSON object: %v\n%s", err, out.String())
	}
	if res.Requests == 0 || res.Faults == 0 || res.Violations == 0 || res.OK || res.Seed != 1 {
		t.Errorf("%+v", res)
	}
	for name, p := range plants {
		if p.rule != "" && p.rule != check.Alive && res.Rules[p.rule] == 0 {
			t.Errorf("%s was planted, and %q not found: %v", name, p.rule, res.Rules)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	// Another run there would be judged with this one's histories.
	if err := run([]string{"--duration", "12s", "--keep", dir}, &out); err == nil || errors.Is(err, errFound) {
		t.Errorf("a directory with histories was taken: %v", err)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"x"}, {"--duration", "1s"}, {"--plant", "nonsense"}, {"--plant", "twice,"}, {"--seed", "-1"}} {
		var out bytes.Buffer
		if err := run(append(args, "--list"), &out); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
	var out bytes.Buffer
	if err := run([]string{"--seed", "1", "--list"}, &out); err != nil || strings.Count(out.String(), "\n") < leastFaults {
		t.Errorf("%v\n%s", err, out.String())
	}
	if o, err := parse([]string{"--plant", "twice,late"}); err != nil || !slices.Equal(plantsOf(roleAgent, o.plants), []string{"twice", "late"}) || len(plantsOf(roleDoor, o.plants)) > 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

// A run proves something only if it was large enough and the fleet served.
func TestTooLittle(t *testing.T) {
	well := func() result {
		r := result{Requests: leastAsked, Faults: leastFaults, Classes: make(map[messages.Class]*check.Tally)}
		for _, c := range []messages.Class{messages.Inference, messages.Action, messages.Training, check.Message, check.Sync} {
			r.Classes[c] = &check.Tally{Sent: 3, Answered: 1}
		}
		return r
	}
	o := options{duration: fullLength}
	if why := o.short(well()); len(why) > 0 {
		t.Errorf("found %q", why)
	}
	for name, change := range map[string]func(*result){
		"requests": func(r *result) { r.Requests-- },
		"faults":   func(r *result) { r.Faults-- },
		"answers":  func(r *result) { r.Classes[messages.Action].Sent++ },
		"a class":  func(r *result) { delete(r.Classes, messages.Training) },
	} {
		r := well()
		change(&r)
		if why := o.short(r); len(why) != 1 {
			t.Errorf("too few %s: %q", name, why)
		}
	}
	r := well()
	r.Requests, r.Faults = leastAsked/2, leastFaults/2
	if why := (options{duration: fullLength / 2}).short(r); len(why) > 0 {
		t.Errorf("half a run: %q", why)
	}
	r.Faults = 0
	if why := (options{duration: fullLength / 2, soak: true}).short(r); len(why) > 0 {
		t.Errorf("a soak has no faults: %q", why)
	}
}

// A client that was killed goes on with what its former lives had submitted.
func TestUnfinished(t *testing.T) {
	p := part{Name: "c", Life: 3, Dir: t.TempDir()}
	for life, list := range [][]history.Record{
		{{Kind: history.Sent, ID: "a"}, {Kind: history.Stored, ID: "a"}, {Kind: history.Sent, ID: "b"}, {Kind: history.Sent, ID: "c"}},
		{{Kind: history.Answered, ID: "a"}, {Kind: history.Stored, ID: "b"}, {Kind: history.Refused, ID: "c"}, {Kind: history.Sent, ID: "d"}, {Kind: history.Stored, ID: "d"}},
	} {
		w, err := history.Open(p.historyPath(life+1), p.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			r.Class = messages.Training
			w.Write(r)
			r.Class, r.ID, r.Kind = messages.Inference, "i"+r.ID, history.Sent
			w.Write(r)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	open, err := p.unfinished()
	if err != nil || len(open) != 2 || open["b"].ID != "b" || open["d"].ID != "d" {
		t.Errorf("%v, %v", open, err)
	}
	if err := os.Remove(p.historyPath(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.unfinished(); err == nil {
		t.Error("a life without a history was overlooked")
	}
}

// Who ends by himself is found, who is ended is not.
func TestCrashed(t *testing.T) {
	p := part{Role: roleServer, Name: "alone", Life: 1, Dir: t.TempDir()}
	free, err := ports(2)
	if err != nil {
		t.Fatal(err)
	}
	p.Port, p.Cluster, p.Routes = free[0], free[1], []string{"127.0.0.1:1"}
	c, err := start(p, func(part, []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.crashed(); err != nil {
		t.Errorf("it runs: %v", err)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.gone
	if err := c.crashed(); err == nil || !strings.Contains(err.Error(), "alone, life 1, ended by itself") {
		t.Errorf("it was killed by somebody else: %v", err)
	}
	c.kill()
	if err := c.crashed(); err != nil {
		t.Errorf("it was ended on purpose: %v", err)
	}
	p.Role = "nobody"
	if _, err := start(p, func(part, []byte) {}); err == nil || !strings.Contains(err.Error(), "ended at once") {
		t.Errorf("a part that does not exist: %v", err)
	}
	if _, err := os.Stat(filepath.Join(p.Dir, "alone.log")); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := healthOf(ctx, "http://127.0.0.1:1"); err == nil {
		t.Error("nobody is well")
	}
}
