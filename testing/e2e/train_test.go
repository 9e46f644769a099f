package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
)

// trainHow is what a trainer is to do: so many steps, each of which takes its time, with a
// checkpoint after every so many. It writes every step that it has done into a file.
type trainHow struct {
	Log        string
	Steps      int
	Step       time.Duration
	Checkpoint int
}

// trainer is a model that trains: it continues where the last checkpoint is.
func trainer(how string) error {
	var h trainHow
	if err := json.Unmarshal([]byte(how), &h); err != nil {
		return err
	}
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	if err := frame(out, map[string]any{"type": "ready"}, nil); err != nil {
		return err
	}
	type header struct {
		Type, Resume, Code string
		ID, Attempt        int
	}
	next := func() (h header, err error) {
		text, err := piece(in)
		if err != nil {
			return h, err
		}
		if _, err := piece(in); err != nil {
			return h, err
		}
		return h, json.Unmarshal(text, &h)
	}
	for {
		req, err := next()
		if err != nil {
			return err
		}
		if req.Type != "request" {
			continue
		}
		step := 0
		if req.Resume != "" {
			text, err := os.ReadFile(req.Resume)
			if err != nil {
				return err
			}
			if _, err := fmt.Sscan(string(text), &step); err != nil {
				return err
			}
		}
		log, err := os.OpenFile(h.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		for step < h.Steps {
			<-time.After(h.Step) // its work
			step++
			if _, err := fmt.Fprintf(log, "%d %d\n", req.Attempt, step); err != nil {
				return err
			}
			if err := frame(out, map[string]any{"type": "progress", "id": req.ID, "done": float64(step) / float64(h.Steps)}, nil); err != nil {
				return err
			}
			if step%h.Checkpoint != 0 {
				continue
			}
			if err := frame(out, map[string]any{"type": "checkpoint", "id": req.ID}, fmt.Append(nil, step)); err != nil {
				return err
			}
			for stored := false; !stored; {
				answer, err := next()
				if err != nil {
					return err
				}
				stored = answer.Type == "checkpointed" && answer.Code == ""
				if answer.Type == "cancel" || answer.Code != "" {
					return errors.New("the checkpoint was not taken: " + answer.Type + answer.Code)
				}
			}
		}
		if err := frame(out, map[string]any{"type": "result", "id": req.ID}, fmt.Append(nil, step, " steps")); err != nil {
			return err
		}
		if err := log.Close(); err != nil {
			return err
		}
	}
}

// A job with checkpoints whose agent is killed three times finishes once, and does no more
// again each time than what comes after its last checkpoint.
func TestJobWithCheckpointsIsKilledThreeTimes(t *testing.T) {
	how := trainHow{Log: filepath.Join(t.TempDir(), "steps"), Steps: 60, Step: 100 * time.Millisecond, Checkpoint: 5}
	if _, full := rounds(t); full { // the job of a minute
		how.Step = time.Second
	}
	f := newFleet(t)
	f.coordinator("c1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	what, err := json.Marshal(how)
	if err != nil {
		t.Fatal(err)
	}
	agents := make(map[string]*process)
	start := func(id string) {
		args := []string{"agent", "--id", id, "--tier", "cloud", "--compute", "1000TFLOPS", "--storage", "10000GB", "--network", "1000Mbps", "--latency", "5ms",
			"--exec", fmt.Sprintf("learn=env '%s=train %s' '%s'", modelVariable, what, self)}
		agents[id] = f.start(id, args...)
	}
	start("cloud-1")
	start("cloud-2")
	b := f.bus()
	f.apply(b, 2, messages.Task{Name: "learn", Class: messages.Training, Demand: messages.Resources{Compute: 500}, Tiers: []messages.Tier{messages.Cloud}, Replicas: 2})
	c := f.client("tester", nil)
	begun := time.Now()
	id, err := c.Submit(t.Context(), router.Job{Task: "learn"})
	if err != nil {
		t.Fatal(err)
	}
	points := 0
	for kill := range 3 {
		var victim string
		// Two more checkpoints, so that there is something that is not done again.
		f.untilWithin(wait+10*how.Step*time.Duration(how.Checkpoint), "two more checkpoints", func() error {
			j, err := c.Job(t.Context(), id)
			if err != nil {
				return err
			}
			if j.State != messages.GoalExecuting || j.Attempt != kill+1 || j.Checkpoint == nil || j.Checkpoint.Number < points+2 {
				return fmt.Errorf("%s, attempt %d, checkpoint %+v", j.State, j.Attempt, j.Checkpoint)
			}
			victim, points = j.Agent, j.Checkpoint.Number
			return nil
		})
		// In the middle between two checkpoints, so that something is done again.
		f.untilWithin(wait+10*how.Step, "some steps after the checkpoint", func() error {
			if last := lastStep(t, how); last%how.Checkpoint < how.Checkpoint/2+1 {
				return fmt.Errorf("it is at step %d", last)
			}
			return nil
		})
		agents[victim].kill()
		start(victim)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait+2*time.Duration(how.Steps)*how.Step)
	defer cancel()
	j, err := c.Wait(ctx, id, nil)
	if err != nil || j.State != messages.GoalSucceeded || string(j.Result) != fmt.Sprint(how.Steps, " steps") || j.Attempt != 4 {
		t.Fatalf("%+v, %v", j, err)
	}
	again, ends := redone(t, how)
	for i, n := range again {
		if n > how.Checkpoint {
			t.Errorf("after kill %d it did %d steps again; a checkpoint is made every %d", i+1, n, how.Checkpoint)
		}
	}
	if len(again) != 3 || ends != 1 {
		t.Errorf("it was begun again %d times and reached its end %d times", len(again), ends)
	}
	t.Logf("%d steps of %v took %v; done again after each kill: %v", how.Steps, how.Step, time.Since(begun).Round(100*time.Millisecond), again)
}

// lastStep is the last step that was done.
func lastStep(t *testing.T, how trainHow) (step int) {
	t.Helper()
	text, err := os.ReadFile(how.Log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var a int
		_, _ = fmt.Sscan(line, &a, &step) // the last line may be half there
	}
	return step
}

// redone reads how many steps each attempt did again, and how often the last one was done.
func redone(t *testing.T, how trainHow) (again []int, ends int) {
	t.Helper()
	text, err := os.ReadFile(how.Log)
	if err != nil {
		t.Fatal(err)
	}
	attempt, last := 0, 0
	for line := range strings.Lines(string(text)) {
		var a, step int
		if _, err := fmt.Sscan(line, &a, &step); err != nil {
			t.Fatal(err)
		}
		switch {
		case a < attempt:
			t.Errorf("attempt %d went on after attempt %d had begun", a, attempt)
		case a > attempt && attempt > 0:
			again = append(again, last+1-step)
		case attempt > 0 && step != last+1:
			t.Errorf("attempt %d went from step %d to %d", a, last, step)
		}
		if attempt, last = a, step; step == how.Steps {
			ends++
		}
	}
	return again, ends
}
