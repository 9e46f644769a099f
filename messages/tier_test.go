package messages

import (
	"strings"
	"testing"
)

func TestParseTierAndClass(t *testing.T) {
	for in, want := range map[string]Tier{"robot": Robot, "Edge": Edge, "CLOUD": Cloud} {
		if got, err := ParseTier(in); err != nil || got != want {
			t.Errorf("ParseTier(%q) = %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]Class{"training": Training, "Inference": Inference, "ACTION": Action} {
		if got, err := ParseClass(in); err != nil || got != want {
			t.Errorf("ParseClass(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "fog", "edge ", strings.Repeat("cloud", 1000)} {
		_, err := ParseTier(in)
		if CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), "allowed are cloud, edge, robot") || len(err.Error()) > 300 {
			t.Errorf("ParseTier(%q): %v", shorten(in), err)
		}
		_, err = ParseClass(in)
		if CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), "allowed are training, inference, action") || len(err.Error()) > 300 {
			t.Errorf("ParseClass(%q): %v", shorten(in), err)
		}
	}
	if got := Tiers(); len(got) != 3 || got[0] != Robot || got[2] != Cloud {
		t.Errorf("tiers, the nearest first: %v", got)
	}
}

func TestBillingAndDelivery(t *testing.T) {
	for _, err := range []error{Share.Check("b"), Whole.Check("b"), Durable.Check("d"), Direct.Check("d")} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := Billing("half").Check("environments[0].billing"); err == nil || !strings.Contains(err.Error(), `environments[0].billing: found "half", allowed are share, whole`) {
		t.Error(err)
	}
	if err := Delivery("pigeon").Check("delivery"); err == nil || !strings.Contains(err.Error(), `found "pigeon", allowed are durable, direct`) {
		t.Error(err)
	}
}
