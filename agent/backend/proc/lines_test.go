package proc

import (
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestLines(t *testing.T) {
	long := strings.Repeat("x", longest)
	for _, tt := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"one\ntwo\n", []string{"one", "two"}},
		{"\n\none\n\n", []string{"one"}},
		{"no end", []string{"no end"}},
		{"windows\r\nends\r\n", []string{"windows", "ends"}},
		{long + "\n", []string{long}},
		{long + "more\nthen\n", []string{long, "more", "then"}},
		{long + long + "\r\n", []string{long, long}},
		// The clock stands: a bar is said when it begins, and as it was left.
		{"\r 1%\r 2%\r 3%\r100%\nloaded\n", []string{" 1%", "100%", "loaded"}},
		{" 1%\r 2%\r\n", []string{" 1%", " 2%"}},
		{" 1%\r 2%\r", []string{" 1%", " 2%"}},
		{" 1%\r 2%\r\r", []string{" 1%", " 2%"}},
		{" 1%\r 2%\rfailed\n", []string{" 1%", "failed"}},
	} {
		var whole, bytewise []string
		begun := time.Now()
		for _, got := range []*[]string{&whole, &bytewise} {
			l := lines{each: func(s string) { *got = append(*got, s) }, now: func() time.Time { return begun }}
			if got == &whole {
				l.take([]byte(tt.in))
			} else {
				for i := range len(tt.in) {
					l.take([]byte(tt.in[i : i+1]))
				}
			}
			l.end()
			want := slices.Clone(tt.want)
			if !slices.Equal(*got, want) {
				t.Errorf("%.40q: got %.40q, want %.40q", tt.in, *got, want)
			}
		}
	}
}

// A bar is said once a second while it is drawn.
func TestLinesOfABar(t *testing.T) {
	var got []string
	now := time.Now()
	l := lines{each: func(s string) { got = append(got, s) }, now: func() time.Time { return now }}
	for _, s := range []string{"1%", "2%", "3%", "4%", "5%", "6%"} {
		l.take([]byte(s + "\r"))
		now = now.Add(400 * time.Millisecond)
	}
	l.take([]byte("\n"))
	if strings.Join(got, " ") != "1% 4% 6%" {
		t.Errorf("got %q", got)
	}
}

func TestLinesToTheEnd(t *testing.T) {
	var got []string
	Lines(iotest.OneByteReader(strings.NewReader("a\nb\r\nc")), func(s string) { got = append(got, s) })
	if strings.Join(got, " ") != "a b c" {
		t.Errorf("got %q", got)
	}
}

// Who says too much fills no disk; how it ended is said all the same.
func TestLinesThatAreTooMany(t *testing.T) {
	var size, n int
	var last, left string
	line := strings.Repeat("x", 99)
	Lines(strings.NewReader(strings.Repeat(line+"\n", 100_000)+"out of memory\n"), func(s string) {
		n, size, last = n+1, size+len(s), s
		if strings.HasPrefix(s, "[fleetbus] ") {
			left = s
		}
	})
	// 10 MB take much less than a second, unless the machine does something else.
	if size > 10*mostSaid || n < mostSaid/len(line) {
		t.Errorf("%d lines were passed on, %d bytes", n, size)
	}
	if last != "out of memory" || !strings.Contains(left, "lines are left out here: the process says more than 256 kB a second") {
		t.Errorf("the last line is %q, left out: %q", last, left)
	}

	// The next second has room again, and says what is missing.
	now := time.Now()
	var got []string
	l := lines{each: func(s string) { got = append(got, s) }, now: func() time.Time { return now }}
	for range mostSaid/100 + 10 {
		l.take([]byte(strings.Repeat("y", 100) + "\n"))
	}
	before := len(got)
	now = now.Add(time.Second)
	l.take([]byte("calm\n"))
	if before != mostSaid/100 || strings.Join(got[before:], "|") != "[fleetbus] 10 lines are left out here: the process says more than 256 kB a second|calm" {
		t.Errorf("%d, then %q", before, got[before:])
	}
}
