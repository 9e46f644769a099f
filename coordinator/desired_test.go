package coordinator

import (
	"slices"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

func TestDesired(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	ctx := t.Context()
	d, err := ReadDesired(ctx, b)
	if err != nil || len(d.Tasks) != 0 || d.Settings.Mode != messages.Dynamic {
		t.Fatalf("%+v, %v", d, err)
	}
	other := detect()
	other.Name = "another"
	settings := messages.Presets()["realtime"]
	out, err := Apply(ctx, b, []messages.Task{detect(), other}, &settings)
	if err != nil || !slices.Equal(out.Created, []string{"another", "detect"}) || !out.Settings {
		t.Fatalf("%+v, %v", out, err)
	}
	changed := detect()
	changed.Replicas = 2
	out, err = Apply(ctx, b, []messages.Task{changed, other}, &settings)
	if err != nil || !slices.Equal(out.Updated, []string{"detect"}) || !slices.Equal(out.Unchanged, []string{"another"}) || out.Settings {
		t.Fatalf("%+v, %v", out, err)
	}
	if err := Drain(ctx, b, "edge-1", "new fan"); err != nil {
		t.Fatal(err)
	}
	if d, err = ReadDesired(ctx, b); err != nil || len(d.Tasks) != 2 || d.Tasks[1].Replicas != 2 || d.Tasks[1].Revision == 0 ||
		len(d.Drains) != 1 || d.Drains[0].Reason != "new fan" || d.Settings.WeightLatency != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := DeleteTask(ctx, b, "detect"); err != nil {
		t.Fatal(err)
	}
	if err := Undrain(ctx, b, "edge-1"); err != nil {
		t.Fatal(err)
	}
	if d, err = ReadDesired(ctx, b); err != nil || len(d.Tasks) != 1 || len(d.Drains) != 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	startAgent(t, s.Connect(t), edge("edge-1"))
	regs, err := Registrations(ctx, b)
	if err != nil || len(regs) != 1 || regs["edge-1"].Environment.Tier != messages.Edge {
		t.Fatalf("%+v, %v", regs, err)
	}
}

func TestDesiredRefuses(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	ctx := t.Context()
	bad := detect()
	bad.Demand.Compute = -1
	settings := messages.DefaultSettings()
	settings.Reserve = 2
	for what, try := range map[string]struct {
		err  error
		code messages.Code
		says string
	}{
		"a negative demand": {second(Apply(ctx, b, []messages.Task{detect(), bad}, nil)), messages.CodeBadRequest, "compute"},
		"a task twice":      {second(Apply(ctx, b, []messages.Task{detect(), detect()}, nil)), messages.CodeBadRequest, "twice"},
		"a wrong reserve":   {second(Apply(ctx, b, nil, &settings)), messages.CodeBadRequest, "resource_reserve_ratio"},
		"an unknown task":   {DeleteTask(ctx, b, "nothing"), messages.CodeNotFound, "fleetbus tasks"},
		"a wild name":       {Drain(ctx, b, "*", ""), messages.CodeBadRequest, "agent"},
		"no drain":          {Undrain(ctx, b, "edge-1"), messages.CodeNotFound, "edge-1"},
		"no leader":         {second(ReadState(ctx, b)), messages.CodeUnavailable, "fleetbus coordinator"},
	} {
		if messages.CodeOf(try.err) != try.code || !strings.Contains(try.err.Error(), try.says) {
			t.Errorf("%s: %v", what, try.err)
		}
	}
	if d, err := ReadDesired(ctx, b); err != nil || len(d.Tasks) != 0 {
		t.Errorf("a refused list was written in part: %+v, %v", d, err)
	}
}

func second[T any](_ T, err error) error { return err }
