package planreport

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The picture's size and the room around the plot, in SVG units.
const (
	svgWidth, svgHeight                 = 720, 440
	plotLeft, plotRight                 = 80, 690
	plotTop, plotBottom                 = 60, 380
	svgInk, svgGrid, svgLine, svgPreset = "#1f2933", "#d9e2ec", "#0967d2", "#c65d07"
)

// WriteSVG draws the frontier: delay to the right, cost upwards; better is to the left
// and below. Between two points no pair of weights chooses anything, so the line has
// steps.
func (f *Frontier) WriteSVG(w io.Writer) error {
	var b strings.Builder
	points := slices.DeleteFunc(slices.Clone(f.Points), func(p Point) bool {
		return math.IsInf(float64(p.DelayEach+p.Cost), 0) || math.IsNaN(float64(p.DelayEach+p.Cost)) // no place on paper
	})
	x, y := newAxis(points, func(p Point) Num { return p.DelayEach }), newAxis(points, func(p Point) Num { return p.Cost })
	px := func(p Point) float64 { return x.place(float64(p.DelayEach), plotLeft, plotRight) }
	py := func(p Point) float64 { return y.place(float64(p.Cost), plotBottom, plotTop) }
	text := func(x, y float64, anchor, fill string, size int, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" font-size="%d">%s</text>`+"\n", x, y, anchor, fill, size, html.EscapeString(s))
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" role="img">`+"\n", svgWidth, svgHeight)
	fmt.Fprintf(&b, "<title>%s</title>\n", html.EscapeString("Delay against cost: "+f.File))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", svgWidth, svgHeight)
	text(plotLeft, 30, "start", svgInk, 16, "Delay against cost: "+f.File)
	for _, t := range x.ticks() {
		at := x.place(t, plotLeft, plotRight)
		fmt.Fprintf(&b, `<path d="M%.1f %d V%d" stroke="%s"/>`+"\n", at, plotTop, plotBottom, svgGrid)
		text(at, plotBottom+18, "middle", svgInk, 12, label(t))
	}
	for _, t := range y.ticks() {
		at := y.place(t, plotBottom, plotTop)
		fmt.Fprintf(&b, `<path d="M%d %.1f H%d" stroke="%s"/>`+"\n", plotLeft, at, plotRight, svgGrid)
		text(plotLeft-8, at+4, "end", svgInk, 12, label(t))
	}
	text((plotLeft+plotRight)/2, plotBottom+44, "middle", svgInk, 13, "delay of one request of each task, ms")
	fmt.Fprintf(&b, `<text transform="translate(22 %d) rotate(-90)" text-anchor="middle" fill="%s" font-size="13">cost per hour</text>`+"\n", (plotTop+plotBottom)/2, svgInk)

	for i, p := range points {
		if i == 0 {
			fmt.Fprintf(&b, `<path fill="none" stroke="%s" stroke-width="2" d="M%.1f %.1f`, svgLine, px(p), py(p))
			continue
		}
		fmt.Fprintf(&b, " H%.1f V%.1f", px(p), py(p))
	}
	if len(points) > 0 {
		b.WriteString(`"/>` + "\n")
	}
	for i, p := range points {
		fill := svgLine
		if len(p.Presets) > 0 {
			fill = svgPreset
			anchor, dx := "start", 9.0
			if px(p) > (plotLeft+plotRight)/2 {
				anchor, dx = "end", -9
			}
			// Labels of neighbours alternate, above and below the line.
			text(px(p)+dx, py(p)-9+float64(i%2)*26, anchor, svgPreset, 13, strings.Join(p.Presets, ", "))
		}
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="5" fill="%s"><title>%s ms, %s per hour</title></circle>`+"\n", px(p), py(p), fill, p.DelayEach, p.Cost)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// axis maps values to a line.
type axis struct{ lo, hi, step float64 }

// newAxis spans the points with some room at both ends, on round numbers.
func newAxis(points []Point, of func(Point) Num) axis {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, p := range points {
		lo, hi = min(lo, float64(of(p))), max(hi, float64(of(p)))
	}
	if lo > hi {
		lo, hi = 0, 1
	}
	span := hi - lo
	if span <= 0 {
		span = max(math.Abs(hi)/5, 1e-9)
	}
	// The smallest of 1, 2, 5 and 10 times a power of ten that leaves six lines or fewer.
	base := math.Pow(10, math.Floor(math.Log10(span/6)))
	step := 10 * base
	for _, m := range []float64{5, 2, 1} {
		if span/(m*base) <= 6 {
			step = m * base
		}
	}
	return axis{lo: math.Floor((lo-span/10)/step) * step, hi: math.Ceil((hi+span/10)/step) * step, step: step}
}

func (a axis) place(v float64, from, to float64) float64 {
	return from + (v-a.lo)/(a.hi-a.lo)*(to-from)
}

func (a axis) ticks() []float64 {
	var list []float64
	for i := range 25 { // far more than newAxis makes
		if v := a.lo + float64(i)*a.step; v <= a.hi+a.step/2 {
			list = append(list, v)
		}
	}
	return list
}

func label(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)
}
