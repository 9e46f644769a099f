package planreport

import (
	"math"
	"strconv"
)

// Num is a number of a report. It is written without the noise that sums of float64 end
// in.
type Num float64

// digits is how many significant digits are kept: fewer than the 15 that a float64
// carries faithfully, more than any figure in a plan means.
const digits = 12

// MarshalJSON writes the number rounded; null where it is infinite or not a number,
// which JSON cannot say.
func (n Num) MarshalJSON() ([]byte, error) {
	v := float64(n)
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return []byte("null"), nil
	}
	return []byte(render(v, digits)), nil
}

// String writes the number for people, with nine significant digits at most.
func (n Num) String() string {
	if math.IsInf(float64(n), 1) {
		return "∞"
	}
	return render(float64(n), 9)
}

// render keeps to plain decimals where they are readable.
func render(v float64, digits int) string {
	s := strconv.FormatFloat(v, 'g', digits, 64)
	r, err := strconv.ParseFloat(s, 64)
	if err != nil || r == 0 {
		return "0" // also for -0
	}
	if a := math.Abs(r); a >= 1e15 || a < 1e-6 {
		return strconv.FormatFloat(r, 'g', -1, 64)
	}
	return strconv.FormatFloat(r, 'f', -1, 64)
}

// percent writes a part of a hundred with one decimal.
func percent(n Num) string {
	if math.IsInf(float64(n), 0) || math.IsNaN(float64(n)) {
		return "–"
	}
	s := strconv.FormatFloat(float64(n), 'f', 1, 64)
	if s == "-0.0" {
		s = "0.0"
	}
	return s + " %"
}
