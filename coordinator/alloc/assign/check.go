package assign

import (
	"fmt"
	"math"

	"github.com/fleetbus/fleetbus/messages"
)

// limit is the largest amount that is taken: sums of millions of them are still exact
// enough to compare.
const limit = 1e15

// check returns an error that names the field of p or o that is wrong.
func check(p *Instance, o *Options) error {
	if p.Open != nil && len(p.Open) != len(p.Capacity) {
		return bad("open", "has %d prices for %d bins; give one for each bin, or none", len(p.Open), len(p.Capacity))
	}
	for i, c := range p.Capacity {
		for k, v := range c {
			if !amount(v) {
				return bad(fmt.Sprintf("bin %d: capacity %d", i, k), "is %v; allowed is 0 to %g", v, limit)
			}
		}
		if p.Open != nil && !amount(p.Open[i]) {
			return bad(fmt.Sprintf("bin %d: opening price", i), "is %v; allowed is 0 to %g", p.Open[i], limit)
		}
	}
	seen := make([]int, len(p.Capacity)) // the last item, counted from 1, that has an option there
	for j, item := range p.Items {
		if !amount(item.Wait) {
			return bad(fmt.Sprintf("item %d: price of waiting", j), "is %v; allowed is 0 to %g", item.Wait, limit)
		}
		if item.Apart < 0 {
			return bad(fmt.Sprintf("item %d: group", j), "is %d; allowed is 0 (none) or more", item.Apart)
		}
		for i, opt := range item.Options {
			at := fmt.Sprintf
			switch {
			case opt.Bin < 0 || opt.Bin >= len(p.Capacity):
				return bad(at("item %d: option %d: bin", j, i), "is %d; there are %d bins, counted from 0", opt.Bin, len(p.Capacity))
			case seen[opt.Bin] == j+1:
				return bad(at("item %d: option %d: bin", j, i), "is %d, as in another option of the item; give every bin once", opt.Bin)
			case !amount(math.Abs(opt.Cost)):
				return bad(at("item %d: option %d: cost", j, i), "is %v; allowed is %g to %g", opt.Cost, -limit, limit)
			}
			seen[opt.Bin] = j + 1
			for k, v := range opt.Need {
				if !amount(v) {
					return bad(at("item %d: option %d: need %d", j, i, k), "is %v; allowed is 0 to %g", v, limit)
				}
			}
		}
	}
	return checkOptions(p, o)
}

func checkOptions(p *Instance, o *Options) error {
	if o.Budget < 0 {
		return bad("budget", "is %d; allowed is 0 (%d) or more", o.Budget, DefaultBudget)
	}
	if !amount(o.MovePrice) {
		return bad("move price", "is %v; allowed is 0 to %g", o.MovePrice, limit)
	}
	if o.Start != nil && len(o.Start) != len(p.Items) {
		return bad("start", "has %d places for %d items; give one for each item, or none", len(o.Start), len(p.Items))
	}
	for j, b := range o.Start {
		if b < -1 || b >= len(p.Capacity) {
			return bad("start", "has item %d in bin %d; there are %d bins, counted from 0, and -1 for none", j, b, len(p.Capacity))
		}
	}
	if o.Prices != nil && len(o.Prices) != len(p.Capacity) {
		return bad("prices", "are %d for %d bins; give them for each bin, or none", len(o.Prices), len(p.Capacity))
	}
	for i, list := range o.Prices {
		for k, v := range list {
			if !amount(v) {
				return bad(fmt.Sprintf("bin %d: price %d", i, k), "is %v; allowed is 0 to %g", v, limit)
			}
		}
	}
	return nil
}

// amount reports whether v can be computed with: NaN fails both comparisons.
func amount(v float64) bool { return v >= 0 && v <= limit }

func bad(field, format string, args ...any) error {
	return messages.Errorf(messages.CodeBadRequest, "%s %s", field, fmt.Sprintf(format, args...))
}
