package agent

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go/jetstream"
)

// A checkpoint is gone when the leader says so; a server that does not have it may be behind.
func TestPointReader(t *testing.T) {
	noLeader := messages.Errorf(messages.CodeUnavailable, "no leader")
	for _, c := range []struct {
		name  string
		after int // tries until a server has it; 0: none ever does
		there bool
		bad   error // the leader's
		want  string
		tries int
		fails error
	}{
		{"at once", 1, true, nil, "half", 1, nil},
		{"a server that is behind", 3, true, nil, "half", 3, nil},
		{"a server that is behind, and no leader", 3, true, noLeader, "half", 3, nil},
		{"gone", 0, false, nil, "", 1, nil},
		{"never", 0, true, nil, "", restoreTries, jetstream.ErrObjectNotFound},
		{"never, and no leader", 0, false, noLeader, "", restoreTries, noLeader},
	} {
		tries, pauses := 0, 0
		got, err := pointReader{
			get: func() (io.ReadCloser, error) {
				if tries++; tries == c.after {
					return io.NopCloser(strings.NewReader("half")), nil
				}
				return nil, jetstream.ErrObjectNotFound
			},
			there: func() (bool, error) { return c.there, c.bad },
			pause: func() { pauses++ },
		}.read(t.Context())
		text := ""
		if got != nil {
			data, err := io.ReadAll(got)
			if text = string(data); err != nil {
				t.Error(err)
			}
		}
		if text != c.want || !errors.Is(err, c.fails) || tries != c.tries || pauses != tries-1 {
			t.Errorf("%s: %q, %v after %d tries and %d pauses", c.name, text, err, tries, pauses)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := (pointReader{}).read(ended); got != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v, %v", got, err)
	}
}

func TestJudgePoint(t *testing.T) {
	names := func(name string) *messages.Job { return &messages.Job{Checkpoint: &messages.Checkpoint{Name: name}} }
	for _, c := range []struct {
		name  string
		fate  jobFate
		now   *messages.Job
		want  jobFate
		named bool
	}{
		{"no record", fateMine, nil, fateMine, false},
		{"nothing yet", fateMine, new(messages.Job), fateMine, false},
		{"the one before", fateMine, names("a"), fateMine, false},
		{"stored, and the answer lost", fateMine, names("b"), fateMine, true},
		{"taken over with it", fateLost, names("b"), fateLost, true},
		{"taken over before", fateLost, names("a"), fateLost, false},
		{"ended", fateOver, new(messages.Job), fateLost, false},
		{"behind", fateBehind, names("a"), fateBehind, false},
	} {
		if fate, named := judgePoint(c.fate, c.now, "b"); fate != c.want || named != c.named {
			t.Errorf("%s: %d %v", c.name, fate, named)
		}
	}
}
