package health

import (
	"errors"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	now := time.Unix(1000, 0)
	refused, silent := errors.New("connection refused"), Silence{errors.New("no answer")}
	var j Judge
	for i, s := range []struct {
		err   error
		quiet time.Duration
		next  time.Duration
		dead  string
	}{
		{nil, 0, Every, ""},
		{refused, 0, Doubt, ""},
		{nil, 0, Every, ""}, // it was a moment's
		{silent, 29 * time.Second, Every, ""},
		{silent, 30 * time.Second, 0, "it hangs: no answer to anything for 30s"},
		{refused, 0, Doubt, ""},
		{silent, time.Second, Every, ""}, // says nothing either way
		{refused, 0, 0, "connection refused"},
	} {
		next, dead := j.Take(now, now.Add(-s.quiet), 30*time.Second, s.err)
		text := ""
		if dead != nil {
			text = dead.Error()
		}
		if next != s.next || text != s.dead {
			t.Errorf("step %d: %v, %q; want %v, %q", i, next, text, s.next, s.dead)
		}
	}
}
