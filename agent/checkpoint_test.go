package agent_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
)

// readFunc is a reader that does something when it has been read to its end.
type readFunc struct {
	do func()
	io.Reader
}

func (r *readFunc) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if errors.Is(err, io.EOF) && r.do != nil {
		r.do()
		r.do = nil
	}
	return n, err
}

// TestCheckpointThatWasTakenOver: an attempt has made the record name a checkpoint, does not
// know that, and loses the job to another one, which has its checkpoint now.
func TestCheckpointThatWasTakenOver(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	stored := make(chan error, 1)
	fit := agent.Func("fit", func(ctx context.Context, r *agent.Request) ([]byte, error) {
		record := messages.Job{ID: r.ID, Task: "fit", Origin: "lab", Site: site, State: messages.GoalExecuting, Attempt: 2, Agent: "other",
			Checkpoint: &messages.Checkpoint{Name: r.ID + ".1.1", Attempt: 1, Number: 1, Size: 4}}
		stored <- r.Checkpoint(ctx, &readFunc{func() { g.put(bus.Jobs, r.ID, &record) }, strings.NewReader("half")})
		return nil, nil
	})
	p := g.run("cloud", nil, fit)
	g.place("cloud", training("fit"))
	id := g.caller("lab").submit("fit", "")
	if err := <-stored; messages.CodeOf(err) != messages.CodeConflict {
		t.Errorf("the first attempt was told %v", err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	store, err := g.bus.Checkpoints(g.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if data, err := store.GetBytes(g.ctx(), id+".1.1"); string(data) != "half" {
		t.Errorf("the checkpoint of the second attempt: %q, %v", data, err)
	}
	for name, want := range map[string]bool{id + ".1.1": true, id + ".1.2": false} {
		if there, err := g.bus.CheckpointThere(g.ctx(), name); there != want || err != nil {
			t.Errorf("%s: the leader says %v, %v", name, there, err)
		}
	}
	if err := store.Delete(g.ctx(), id+".1.1"); err != nil {
		t.Fatal(err)
	}
	if there, err := g.bus.CheckpointThere(g.ctx(), id+".1.1"); there || err != nil {
		t.Errorf("deleted: the leader says %v, %v", there, err)
	}
}
