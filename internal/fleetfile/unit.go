package fleetfile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// Unit is what a quantity is measured in: a base unit, and others that a value may be
// written in.
type Unit struct {
	base   string
	others []scale
}

// scale: one of the named unit is mul/div of the base. Division keeps 100us exact.
type scale struct {
	name     string
	mul, div float64
}

// The units. A bare number counts in the base, which stands first.
var (
	Compute  = Unit{"TFLOPS", []scale{{"GFLOPS", 1, 1000}, {"TFLOPS", 1, 1}, {"PFLOPS", 1000, 1}}}
	Work     = Unit{"GFLOP", []scale{{"MFLOP", 1, 1000}, {"GFLOP", 1, 1}, {"TFLOP", 1000, 1}, {"PFLOP", 1e6, 1}}}
	Storage  = Unit{"GB", []scale{{"MB", 1, 1000}, {"GB", 1, 1}, {"TB", 1000, 1}}}
	Network  = Unit{"Mbps", []scale{{"kbps", 1, 1000}, {"Mbps", 1, 1}, {"Gbps", 1000, 1}}}
	Transfer = Unit{"kbit", []scale{{"kbit", 1, 1}, {"Mbit", 1000, 1}, {"Gbit", 1e6, 1}, {"kB", 8, 1}, {"MB", 8000, 1}}}
	Duration = Unit{"ms", []scale{{"us", 1, 1000}, {"ms", 1, 1}, {"s", 1000, 1}, {"min", 60_000, 1}, {"h", 3_600_000, 1}}}
)

// Base is the unit of a bare number and of what Parse returns.
func (u Unit) Base() string { return u.base }

// Names lists the units that a value may be written in, the smallest first.
func (u Unit) Names() []string {
	out := make([]string, len(u.others))
	for i, s := range u.others {
		out[i] = s.name
	}
	return out
}

// Parse reads a number with or without a unit, like "500", "0.5PFLOPS" or "10 Gbps",
// and returns it in the base unit. The error is a [*messages.Error] that says what was
// found and which units are allowed; naming the field is the caller's part.
func (u Unit) Parse(s string) (float64, error) {
	number, unit := splitNumber(s)
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, messages.Errorf(messages.CodeBadRequest, "found %q, allowed is a number with one of the units %s; a bare number is in %s",
			shorten(s), strings.Join(u.Names(), ", "), u.base)
	}
	if unit == "" {
		return v, nil
	}
	for _, o := range u.others {
		if o.name == unit {
			return v * o.mul / o.div, nil
		}
	}
	hint := ""
	if n := nearest(unit, u.Names()); n != "" {
		hint = fmt.Sprintf(" (did you mean %s%s?)", number, n)
	}
	return 0, messages.Errorf(messages.CodeBadRequest, "found %q with the unit %q, allowed are %s; a bare number is in %s%s",
		shorten(s), shorten(unit), strings.Join(u.Names(), ", "), u.base, hint)
}

// splitNumber splits "1.5e3 Mbps" into "1.5e3" and "Mbps".
func splitNumber(s string) (number, unit string) {
	s = strings.TrimSpace(s)
	end := 0
	for end < len(s) {
		c := s[end]
		exponent := (c == 'e' || c == 'E') && end > 0 && end+1 < len(s) && strings.IndexByte("+-0123456789", s[end+1]) >= 0
		sign := (c == '+' || c == '-') && (end == 0 || s[end-1] == 'e' || s[end-1] == 'E')
		if !exponent && !sign && c != '.' && (c < '0' || c > '9') {
			break
		}
		end++
	}
	return s[:end], strings.TrimSpace(s[end:])
}
