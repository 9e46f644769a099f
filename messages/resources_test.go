package messages

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestResources(t *testing.T) {
	a, b := Resources{10, 20, 30}, Resources{1, 50, 3}
	for _, tc := range []struct{ got, want Resources }{
		{a.Add(b), Resources{11, 70, 33}},
		{a.Sub(b), Resources{9, -30, 27}},
		{a.Scale(0.5), Resources{5, 10, 15}},
		{a.Max(b), Resources{10, 50, 30}},
	} {
		if tc.got != tc.want {
			t.Errorf("got %v, want %v", tc.got, tc.want)
		}
	}
}

func TestWithin(t *testing.T) {
	var sum Resources
	for range 10 {
		sum = sum.Add(Resources{0.1, 0.1, 0.1})
	}
	for _, tc := range []struct {
		need, have Resources
		fits       bool
	}{
		{sum, Resources{1, 1, 1}, true}, // 0.1 ten times is not 1 in binary
		{Resources{1000, 10, 10}, Resources{1000, 10, 10}, true},
		{Resources{1000.001, 10, 10}, Resources{1000, 10, 10}, false},
		{Resources{1, 10.001, 1}, Resources{10, 10, 10}, false},
		{Resources{1, 1, 11}, Resources{10, 10, 10}, false},
		{Resources{}, Resources{}, true},
		{Resources{0, 0, 0.1}, Resources{}, false},
		{Resources{10, 0, 0}, Resources{10, -1, 0}, false}, // foreign use is over the capacity
	} {
		if got := tc.need.Within(tc.have); got != tc.fits {
			t.Errorf("%v within %v: %v", tc.need, tc.have, got)
		}
	}
}

func TestCheckAmount(t *testing.T) {
	for _, tc := range []struct {
		v, lo, hi float64
		want      string // "" for fine
	}{
		{0, 0, 10, ""}, {10, 0, 10, ""}, {1e300, 0, math.MaxFloat64, ""},
		{-1, 0, math.MaxFloat64, "f: found -1 ms, allowed is 0 ms or more"},
		{11, 0, 10, "f: found 11 ms, allowed are 0 to 10 ms"},
		{-0.5, 0, 0.3, "f: found -0.5 ms, allowed are 0 to 0.3 ms"},
		{math.NaN(), 0, 10, "f: found NaN, allowed is a finite number ms"},
		{math.Inf(1), 0, math.MaxFloat64, "f: found +Inf, allowed is a finite number ms"},
	} {
		err := CheckAmount("f", tc.v, tc.lo, tc.hi, "ms")
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%v: %v", tc.v, err)
		case tc.want != "" && (CodeOf(err) != CodeBadRequest || !strings.HasSuffix(err.Error(), tc.want)):
			t.Errorf("%v: %v, want %s", tc.v, err, tc.want)
		}
	}
	for i, name := range []string{"compute", "storage", "network"} {
		var r Resources
		*[]*float64{&r.Compute, &r.Storage, &r.Network}[i] = -1
		if err := r.Check("capacity."); err == nil || !strings.Contains(err.Error(), "capacity."+name+": found -1") {
			t.Error(err)
		}
	}
}

func TestMillis(t *testing.T) {
	for ms, want := range map[float64]time.Duration{
		0: 0, 1: time.Millisecond, 0.25: 250 * time.Microsecond, 1e12: 1e12 * time.Millisecond, 1e300: math.MaxInt64, math.Inf(1): math.MaxInt64,
	} {
		if got := Millis(ms); got != want {
			t.Errorf("Millis(%v) = %v, want %v", ms, got, want)
		}
	}
}

func TestFence(t *testing.T) {
	order := []Fence{{}, {0, 1}, {1, 0}, {1, 1}, {1, 2}, {2, 1}} // a remade bucket counts from 1 and is newer all the same
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want || a.Before(b) != (want < 0) {
				t.Errorf("%v compared with %v: %d, want %d", a, b, got, want)
			}
		}
		if a.IsZero() != (i == 0) {
			t.Errorf("%v is zero: %v", a, a.IsZero())
		}
		if got, err := ParseFence(a.String()); err != nil || got != a {
			t.Errorf("ParseFence(%q) = %v, %v", a.String(), got, err)
		}
	}
	for _, s := range []string{"", "1", "1-", "-1", "1-2-3", "1-2 ", " 1-2", "01-2", "1-+2", "1--2", "a-b", "1-18446744073709551616", "9223372036854775808-1", "1-2\n", strings.Repeat("1", 5000)} {
		if got, err := ParseFence(s); CodeOf(err) != CodeBadRequest || !got.IsZero() {
			t.Errorf("ParseFence(%q) = %v, %v", shorten(s), got, err)
		}
	}
}

func TestNewer(t *testing.T) {
	old, now := Term{1, 5}, Term{1, 6}
	for _, tc := range []struct {
		term Term
		rev  uint64
		want bool
	}{
		{now, 3, false}, {now, 2, true}, {now, 4, false}, {old, 99, true}, {Term{2, 1}, 0, false}, {Term{}, 0, true},
	} {
		if got := (&Placement{Term: now, Rev: 3}).Newer(tc.term, tc.rev); got != tc.want {
			t.Errorf("placement newer than (%v, %d): %v", tc.term, tc.rev, got)
		}
		if got := (&Routes{Term: now, Rev: 3}).Newer(tc.term, tc.rev); got != tc.want {
			t.Errorf("routes newer than (%v, %d): %v", tc.term, tc.rev, got)
		}
	}
}
