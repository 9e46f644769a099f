package main

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/testing/stopping"
)

func TestStopFigures(t *testing.T) {
	ms := func(list ...int) (times []time.Duration) {
		for _, v := range list {
			times = append(times, time.Duration(v)*time.Millisecond)
		}
		return times
	}
	r := stopping.Result{All: ms(9, 30, 10), Acks: ms(1, 2, 3, 9), Ended: ms(4), Requests: 7, Failed: 1, Busy: 2}
	var out strings.Builder
	if err := printStop(&out, stopFigures("50", r), true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"bench":"stop","case":"50","metric":"all_acked_median","value":10,"unit":"ms"}`,
		`{"bench":"stop","case":"50","metric":"all_acked_worst","value":30,"unit":"ms"}`,
		`{"bench":"stop","case":"50","metric":"ack_median","value":3,"unit":"ms"}`,
		`{"bench":"stop","case":"50","metric":"requests_failed","value":1,"unit":"count"}`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "self_stop") {
		t.Error("a figure of nothing")
	}
	for _, args := range [][]string{{"--robots", "0"}, {"--rounds", "0"}, {"--robots", "3", "--cuts", "4"}, {"x"}} {
		if err := run(append([]string{"stop"}, args...), &out); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
