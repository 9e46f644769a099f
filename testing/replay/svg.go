package main

import (
	"bytes"
	"fmt"
	"html"
)

// The picture: a panel for each figure, a row for each case, and in it a bar for each hour.
const (
	svgWidth                = 860
	labelWidth              = 130
	panelGap                = 16
	rowHeight               = 34
	barHeight               = 12
	svgTop                  = 70
	svgInk, svgGrid         = "#1f2933", "#d9e2ec"
	svgBar, svgBar2         = "#0967d2", "#c65d07"
	svgFont                 = "system-ui, sans-serif"
	panels                  = 5
	panelWidth              = (svgWidth - labelWidth - panels*panelGap) / panels
	longest         float64 = panelWidth - 48 // the rest is for the number
)

var barColours = []string{svgBar, svgBar2}

// draw makes a picture of the figures.
func draw(list []result) []byte {
	var hours, cases []string
	for _, r := range list {
		hours, cases = appendNew(hours, r.hour), appendNew(cases, r.scheme.name)
	}
	show := []struct {
		title  string
		of     func(*figures) float64
		format string
	}{
		{"used of paid, %", func(f *figures) float64 { return f.Utilisation }, "%.1f"},
		{"mean delay, ms", func(f *figures) float64 { return f.Mean }, "%.1f"},
		{"p99 delay, ms", func(f *figures) float64 { return f.P99 }, "%.0f"},
		{"cost per hour", func(f *figures) float64 { return f.Cost }, "%.1f"},
		{"deadlines missed, %", func(f *figures) float64 { return f.Missed }, "%.2f"},
	}
	height := svgTop + rowHeight*len(cases) + 16
	var b bytes.Buffer
	text := func(x, y float64, anchor string, size int, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" font-size="%d">%s</text>`+"\n", x, y, anchor, svgInk, size, html.EscapeString(s))
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="%s" role="img">`+"\n", svgWidth, height, svgFont)
	fmt.Fprintln(&b, "<title>An hour of requests, by where the services run</title>")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", svgWidth, height)
	text(16, 26, "start", 16, "An hour of requests, by where the services run")
	x := 400.0
	for i, h := range hours {
		fmt.Fprintf(&b, `<rect x="%.1f" y="16" width="12" height="12" fill="%s"/>`+"\n", x, barColours[i%len(barColours)])
		text(x+18, 26, "start", 13, h+" hour")
		x += 110
	}
	for i, c := range cases {
		text(labelWidth-8, float64(svgTop+i*rowHeight+rowHeight/2+2), "end", 12, c)
	}
	for p, s := range show {
		left := float64(labelWidth + p*(panelWidth+panelGap))
		text(left, svgTop-12, "start", 12, s.title)
		fmt.Fprintf(&b, `<path d="M%.1f %d V%d" stroke="%s"/>`+"\n", left, svgTop-4, height-12, svgGrid)
		most := 0.0
		for _, r := range list {
			most = max(most, s.of(r.figures))
		}
		for _, r := range list {
			v := s.of(r.figures)
			y := float64(svgTop + index(cases, r.scheme.name)*rowHeight + 3 + index(hours, r.hour)*(barHeight+2))
			width := 0.0
			if most > 0 {
				width = v / most * longest
			}
			number := fmt.Sprintf(s.format, v)
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"><title>%s, %s hour: %s</title></rect>`+"\n",
				left, y, width, barHeight, barColours[index(hours, r.hour)%len(barColours)], html.EscapeString(r.scheme.name), r.hour, number)
			text(left+width+4, y+barHeight-2, "start", 11, number)
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func appendNew(list []string, s string) []string {
	if index(list, s) < 0 {
		list = append(list, s)
	}
	return list
}

func index(list []string, s string) int {
	for i, v := range list {
		if v == s {
			return i
		}
	}
	return -1
}
