package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// short is the busiest stretch of the hour, for tests that need no more.
func short(t *testing.T) *hour {
	t.Helper()
	list, err := readTrace("")
	if err != nil {
		t.Fatal(err)
	}
	from := 28 * time.Minute
	var part []arrival
	for _, a := range list {
		if a.at >= from && a.at < from+2*time.Minute {
			a.at -= from
			part = append(part, a)
		}
	}
	return newHour(part, 1)
}

// shortTroubles are two that edge boxes have in it.
func shortTroubles() []trouble {
	return []trouble{
		{env: "edge-0", from: 50 * time.Second, to: 80 * time.Second, off: true},
		{env: "edge-1", from: 30 * time.Second, to: 100 * time.Second, slow: 0.3},
		{env: "edge-2", from: 30 * time.Second, to: 100 * time.Second, foreign: 70},
	}
}

func schemeOf(t *testing.T, name string) scheme {
	t.Helper()
	for _, s := range schemes {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("there is no scheme %s", name)
	return scheme{}
}

// Every scheme passes the checker, with troubles and without, and equal seeds give equal
// figures; another seed gives others.
func TestSchemesAreCheckedAndRepeat(t *testing.T) {
	h := short(t)
	for _, s := range schemes {
		for _, troubles := range [][]trouble{nil, shortTroubles()} {
			a, err := run(s, h, troubles, 1, faults{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := run(s, h, troubles, 1, faults{}, nil)
			if err != nil || !reflect.DeepEqual(a, b) {
				t.Errorf("%s: %+v, and again %+v (%v)", s.name, a, b, err)
			}
			if a.Mean <= 0 || a.Utilisation <= 0 || a.Utilisation > 100 || a.Machines > a.Utilisation+1e-9 || a.Cost <= 0 {
				t.Errorf("%s: %+v", s.name, a)
			}
		}
	}
}

// A fault that is planted is found, and named.
func TestCheckerFindsPlantedFaults(t *testing.T) {
	h := short(t)
	for _, tt := range []struct {
		name, scheme string
		faults       faults
		want         string
	}{
		{"forgets", "hybrid-dynamic", faults{forgets: true}, "ended 0 times"},
		{"doubles", "hybrid-dynamic", faults{doubles: true}, "ended 2 times"},
		{"invents", "hybrid-dynamic", faults{invents: true}, "nobody had executed it"},
		{"late", "all-edge", faults{late: true}, "counts as answered, after"},
		{"hurries", "hybrid-dynamic", faults{hurries: true}, "GFLOP"},
		{"wastes", "hybrid-dynamic", faults{wastes: true}, "were begun there"},
		{"ghosts", "all-edge", faults{ghosts: true}, "GFLOP"},
		{"crowds", "hybrid-dynamic", faults{crowds: true}, "it has 1 slots"},
	} {
		if _, err := run(schemeOf(t, tt.scheme), h, shortTroubles(), 1, tt.faults, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// What the checker is told is checked too: the windows find what no single request shows.
func TestCheckerFindsTwoFullMachinesInOne(t *testing.T) {
	h := &hour{requests: []request{{work: 9}, {work: 9}}}
	l := newLedger(&world{}, h)
	for i := range l.fates {
		l.fates[i] = fate{arrived: true, ends: 1, outcome: answered, from: warmUp, at: warmUp + 10*time.Millisecond}
		l.runs = append(l.runs, record{env: "e", replica: "r/" + string(rune('0'+i)), request: i, slots: 1, from: warmUp, to: warmUp + 9*time.Millisecond, how: finished})
	}
	e := schemes[0].environments()[1]
	e.ID, e.Capacity.Compute = "e", 1
	if err := l.check(append(schemes[0].environments(), e), nil, warmUp+time.Second); err != nil {
		t.Fatalf("9 GFLOP in 9 ms each, 18 in a second: %v", err) // alone each could; together only a window of 10 ms would tell
	}
	for i := range l.fates {
		h.requests[i].work = 600
		l.runs[i].to = warmUp + 999*time.Millisecond
		l.fates[i].outcome = late
	}
	if err := l.check(append(schemes[0].environments(), e), nil, warmUp+time.Second); err == nil || !strings.Contains(err.Error(), "did 1200.0 GFLOP") {
		t.Errorf("1,200 GFLOP in a second of 1 TFLOPS: %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	for args, want := range map[string]string{
		"--case none":       `--case: found "none", allowed are all-cloud`,
		"--hour none":       `--hour: found "none", allowed are calm, rough`,
		"trace.csv":         "is no flag",
		"--trace /none/csv": "--trace",
		"--nonsense":        "not defined",
	} {
		if err := replay(strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", args, err, want)
		}
	}
}

// The table and the picture in the README are what the program makes: whoever changes the
// allocator, the placement or the routing sees here what it does to them. With the race
// detector two rows of it stand for all: they must be the same there, and all of them
// would take minutes.
func TestFiguresInTheReadme(t *testing.T) {
	t.Chdir("../..")
	trace, err := readTrace("")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOARCH != "amd64" {
		// Where multiplication and addition are fused, sums of the allocator round otherwise,
		// and one decision that turns out otherwise changes an hour. The checker counts there.
		if _, err := playAll(hourNames[1:], schemes[4:5], trace, 1, nil); err != nil {
			t.Error(err)
		}
		return
	}
	if raced {
		for hour, name := range map[string]string{"calm": "all-edge", "rough": "hybrid-dynamic"} {
			results, err := playAll([]string{hour}, []scheme{schemeOf(t, name)}, trace, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if row := row(results[0]); !slices.Contains(rowsOf(kept, hour), row) {
				t.Errorf("%s hour: %q is not in the README's table", hour, row)
			}
		}
		return
	}
	results, err := playAll(hourNames, schemes, trace, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	now, err := withTable(kept, results)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := printTable(&table, results); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, now) {
		t.Errorf("the table in README.md is another; `make replay` writes it anew. It is now:\n%s", table.String())
	}
	for _, r := range results { // what the race detector's part looks at is what stands there
		if !slices.Contains(rowsOf(kept, r.hour), row(r)) {
			t.Errorf("%s hour: %q is not in the README's table", r.hour, row(r))
		}
	}
	picture, err := os.ReadFile("docs/replay.svg")
	if err != nil || !bytes.Equal(picture, draw(results)) {
		t.Errorf("docs/replay.svg is another (%v); `make replay` writes it anew", err)
	}
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	var lines bytes.Buffer
	if err := printJSON(&lines, results); err != nil || bytes.Count(lines.Bytes(), []byte("\n")) != len(results)*len(results[0].list()) {
		t.Errorf("%v: %s", err, lines.String())
	}
}

// row is the row of a result in the table, with single spaces.
func row(r result) string {
	var b strings.Builder
	if err := printTable(&b, []result{r}); err != nil {
		panic(err)
	}
	return strings.Join(strings.Fields(strings.Split(b.String(), "\n")[2]), " ")
}

// rowsOf are the rows of the table of one hour in a text.
func rowsOf(text []byte, hour string) (rows []string) {
	_, rest, _ := strings.Cut(string(text), hour+" hour, ")
	rest, _, _ = strings.Cut(rest, "hybrid (")
	for line := range strings.Lines(rest) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	return rows
}

func TestWithTableNeedsAPlace(t *testing.T) {
	if _, err := withTable([]byte("no place\n"), nil); err == nil || !strings.Contains(err.Error(), "make replay writes from here") {
		t.Error(err)
	}
	got, err := withTable([]byte("a\n"+tableBegin+"old\n"+tableEnd+"b\n"), nil)
	if want := "a\n" + tableBegin + "```\n\n```\n" + tableEnd + "b\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}
