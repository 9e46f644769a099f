package coordinator

import (
	"reflect"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

// Diff says what Apply then does.
func TestDiffIsWhatApplyDoes(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	ctx := t.Context()
	one, two, three := detect(), detect(), detect()
	two.Name, three.Name = "second", "third"
	first := messages.Presets()["realtime"]
	changed := detect()
	changed.Demand.Compute, changed.Labels, changed.Limit = 20, map[string]string{"gpu": "yes"}, 100
	for step, apply := range []struct {
		tasks    []messages.Task
		settings *messages.Settings
		want     []Change
	}{
		{[]messages.Task{two, one}, &first, []Change{
			{Change: Updated, Fields: []FieldChange{
				{"resource_reserve_ratio", 0.1, 0.15}, {"weight_cost", 1.0, 0.5}, {"weight_latency", 1.0, 2.0}}},
			{Task: "detect", Change: Created}, {Task: "second", Change: Created}}},
		{[]messages.Task{one, two}, &first, []Change{{Change: Unchanged}, {Task: "detect", Change: Unchanged}, {Task: "second", Change: Unchanged}}},
		{[]messages.Task{changed, three}, nil, []Change{
			{Task: "detect", Change: Updated, Fields: []FieldChange{{"demand.compute", 10.0, 20.0}, {"labels.gpu", nil, "yes"}, {"limit_ms", 0.0, 100.0}}},
			{Task: "third", Change: Created}}},
		{[]messages.Task{one}, nil, []Change{
			{Task: "detect", Change: Updated, Fields: []FieldChange{{"demand.compute", 20.0, 10.0}, {"labels.gpu", "yes", nil}, {"limit_ms", 100.0, 0.0}}}}},
	} {
		have, err := ReadDesired(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Diff(have, apply.tasks, apply.settings)
		if err != nil || !reflect.DeepEqual(got, apply.want) {
			t.Errorf("step %d: %v\n got %+v\nwant %+v", step, err, got, apply.want)
		}
		out, err := Apply(ctx, b, apply.tasks, apply.settings)
		if err != nil {
			t.Fatal(err)
		}
		did := make(map[ChangeKind]int)
		for _, c := range got {
			if c.Task != "" {
				did[c.Change]++
			} else if (c.Change == Updated) != out.Settings {
				t.Errorf("step %d: settings %s, and Apply says %v", step, c.Change, out.Settings)
			}
		}
		if did[Created] != len(out.Created) || did[Updated] != len(out.Updated) || did[Unchanged] != len(out.Unchanged) {
			t.Errorf("step %d: %+v, and Apply did %+v", step, got, out)
		}
	}
}

func TestDiffRefusesWhatApplyRefuses(t *testing.T) {
	t.Parallel()
	bad := detect()
	bad.Demand.Compute = -1
	if _, err := Diff(Desired{}, []messages.Task{bad}, nil); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Error(err)
	}
	if _, err := Diff(Desired{}, []messages.Task{detect(), detect()}, nil); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Error(err)
	}
}
