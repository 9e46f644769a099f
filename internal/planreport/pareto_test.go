package planreport

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
)

func point(delay, cost float64, placed int, presets ...string) Point {
	return Point{DelayEach: Num(delay), Cost: Num(cost), Placed: placed, WeightLatency: 1, WeightCost: 1, Presets: presets}
}

func TestFrontierKeepsWhatNothingBeats(t *testing.T) {
	got := frontier([]Point{
		point(10, 5, 3), point(20, 3, 3, "cost"), point(20, 3.0000000000001, 3, "balanced"), point(15, 5, 3), point(15, 4, 3),
		point(30, 3, 3), point(5, 1, 2), point(10, 6, 3),
	})
	if len(got) != 3 || got[0].DelayEach != 10 || got[1].DelayEach != 15 || got[1].Cost != 4 || got[2].Cost != 3 {
		t.Fatalf("%+v", got)
	}
	if len(got[2].Presets) != 2 {
		t.Errorf("equal plans were not joined: %+v", got[2])
	}
}

// Every point of a frontier against a brute-force twin: all others of the same sweep.
func TestParetoOfTheSmartFactory(t *testing.T) {
	f, err := fleetfile.Load("../../configs/smart-factory.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Pareto(f)
	if err != nil {
		t.Fatal(err)
	}
	// Only the inference has a choice: the edge (10.1 ms, 0.5) or the cloud (50.01 ms, 0.1).
	if len(p.Points) != 2 {
		t.Fatalf("%+v", p.Points)
	}
	for i, want := range [][2]float64{{61.7, 5.6}, {101.61, 5.2}} {
		if got := p.Points[i]; math.Abs(float64(got.DelayEach)-want[0]) > 1e-9 || math.Abs(float64(got.Cost)-want[1]) > 1e-9 {
			t.Errorf("point %d is %v ms, %v per hour, expected %v", i, got.DelayEach, got.Cost, want)
		}
	}
	if len(p.Points[0].Presets) != 3 {
		t.Errorf("all presets choose the edge; found %v", p.Points[0].Presets)
	}
	var b strings.Builder
	if err := p.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, b.String(), "circle", 2)
}

func TestSVGOfOddFrontiers(t *testing.T) {
	for _, points := range [][]Point{{}, {point(0, 0, 0)}, {point(5, 5, 1)}, {point(1e-9, 1e12, 1), point(1e12, 1e-9, 1)}} {
		// What is infinite has no place on the picture.
		f := &Frontier{File: "<&>", Points: append([]Point{point(math.Inf(1), 3, 1)}, points...)}
		var b strings.Builder
		if err := f.WriteSVG(&b); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, b.String(), "circle", len(points))
	}
}

func wellFormed(t *testing.T, svg, element string, want int) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	n := 0
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == element {
			n++
		}
	}
	if n != want || strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("%d %ss, expected %d:\n%s", n, element, want, svg)
	}
}

func TestCompareNames(t *testing.T) {
	f := &fleetfile.File{Baselines: []fleetfile.Baseline{{Name: "all-cloud", Tier: "cloud", OnePer: "robot"}, {Name: "rented", Tier: "edge"}}}
	got, err := Compare(f, []string{"all-cloud", "all-edge", "hybrid", "rented"})
	if err != nil || len(got) != 4 || got[0].OnePer != "robot" || got[1].Tier != "edge" || got[2].Name != "hybrid" || got[3].Name != "rented" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Compare(f, []string{"all-moon"}); err == nil || !strings.Contains(err.Error(), "allowed are hybrid, all-cloud, all-edge, all-robot, rented") {
		t.Error(err)
	}
}
