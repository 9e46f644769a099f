package bodyfile

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p Pace
	for range 40 {
		p = p.Next(time.Millisecond)
	}
	if p.Chunks != MostChunks || p.Pause != 0 {
		t.Fatalf("on an idle link: %+v", p)
	}
	for range 4 {
		p = p.Next(time.Millisecond + 2*Stall)
	}
	if p.Chunks != 1 || p.Pause != 0 {
		t.Fatalf("after four slow round trips: %+v", p)
	}
	for range 20 {
		p = p.Next(time.Second)
	}
	if p.Chunks != 1 || p.Pause != mostPause {
		t.Fatalf("in others' way: %+v", p)
	}
	n := 0
	for ; p.Chunks < MostChunks; n++ {
		p = p.Next(2 * time.Millisecond)
	}
	if n > 40 {
		t.Errorf("it takes %d round trips to be fast again", n)
	}
}
