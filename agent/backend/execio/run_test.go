//go:build unix

package execio

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	ctx := context.Background()
	if err := Run(ctx, []string{"sh", "-c", `test "$FLEETBUS_TASK" = move`}, []string{"FLEETBUS_TASK=move"}); err != nil {
		t.Error(err)
	}
	if err := Run(ctx, []string{"sh", "-c", "echo jammed >&2; exit 3"}, nil); err == nil || !strings.Contains(err.Error(), "exit status 3; it said: jammed") {
		t.Error(err)
	}
	if err := Run(ctx, []string{"/no/such/program"}, nil); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Error(err)
	}
	noisy := Run(ctx, []string{"sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 1"}, nil)
	if noisy == nil || len(noisy.Error()) > maxWords+100 || !strings.Contains(noisy.Error(), "line 1999") {
		t.Errorf("%v", noisy)
	}
}

func TestRunEndsWithItsTime(t *testing.T) {
	for _, command := range []string{"sleep 60", "trap '' TERM; while :; do sleep 60; done"} {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err := Run(ctx, []string{"sh", "-c", command}, nil)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "its time was over") {
			t.Errorf("%s: %v", command, err)
		}
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Run(done, []string{"sh", "-c", "trap 'exit 0' TERM; kill $$; exit 0"}, nil); err != nil && !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "its time was over") {
		t.Error(err)
	}
}
