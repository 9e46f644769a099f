package coordinator

import (
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/natstest"
)

func TestVersionsAndRollback(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	b := newBus(t, s.Connect(t))
	ctx := t.Context()
	if _, err := Versions(ctx, b, "detect"); messages.CodeOf(err) != messages.CodeNotFound {
		t.Errorf("never applied: %v", err)
	}
	compute := func() float64 {
		t.Helper()
		d, err := ReadDesired(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Tasks) == 0 {
			return 0
		}
		return d.Tasks[0].Demand.Compute
	}
	version := detect()
	for _, v := range []float64{10, 20, 30} {
		version.Demand.Compute = v
		apply(t, b, version)
	}
	list, err := Versions(ctx, b, "detect")
	if err != nil || len(list) != 3 || list[0].Task.Demand.Compute != 10 || list[2].Task.Demand.Compute != 30 || list[0].Time.IsZero() || list[2].Revision <= list[1].Revision {
		t.Fatalf("%+v, %v", list, err)
	}
	from, target, err := Rollback(ctx, b, "detect", 0)
	if err != nil || from.Revision != list[2].Revision || target.Revision != list[1].Revision || compute() != 20 {
		t.Fatalf("from %+v to %+v: %v", from, target, err)
	}
	if _, _, err = Rollback(ctx, b, "detect", list[0].Revision); err != nil || compute() != 10 {
		t.Fatalf("to the first: %v, %v TFLOPS", err, compute())
	}
	if _, _, err = Rollback(ctx, b, "detect", list[0].Revision); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Errorf("to what it is: %v", err)
	}
	if _, _, err = Rollback(ctx, b, "detect", 9999); messages.CodeOf(err) != messages.CodeNotFound {
		t.Errorf("to what never was: %v", err)
	}
	if err := DeleteTask(ctx, b, "detect"); err != nil {
		t.Fatal(err)
	}
	if list, err = Versions(ctx, b, "detect"); err != nil || !list[len(list)-1].Deleted {
		t.Fatalf("%+v, %v", list, err)
	}
	if _, _, err = Rollback(ctx, b, "detect", 0); err != nil || compute() != 10 {
		t.Fatalf("a deleted one: %v, %v TFLOPS", err, compute())
	}
	for range 20 { // more than are kept
		version.Demand.Compute++
		apply(t, b, version)
	}
	if list, err = Versions(ctx, b, "detect"); err != nil || len(list) != 10 {
		t.Errorf("%d versions, %v", len(list), err)
	}
	other := detect()
	other.Name = "only"
	apply(t, b, other)
	if _, _, err = Rollback(ctx, b, "only", 0); messages.CodeOf(err) != messages.CodeNotFound {
		t.Errorf("there is one version: %v", err)
	}
	if _, _, err = Rollback(ctx, b, "a b", 0); messages.CodeOf(err) != messages.CodeBadRequest {
		t.Errorf("no name: %v", err)
	}
}
