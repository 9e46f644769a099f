package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// multiSizes are the sizes of the set: bins and items.
var multiSizes = [][2]int{{5, 100}, {10, 100}, {20, 200}, {10, 400}, {20, 400}, {20, 900}, {60, 900}, {20, 1600}, {40, 1600}, {80, 1600}}

// multiClasses are the types of the set.
var multiClasses = []string{"c", "d", "e"}

// filled is which part of what the items need on average the bins have of their tight
// resource: the first in bins of even number, the second in the others.
const filled = 0.92

// generate makes an instance with three resources, in the manner of the public types: in
// C costs have nothing to do with needs, in D they are at odds, in E they are so over
// orders of magnitude. Equal arguments give equal instances.
func generate(class string, m, n int, seed uint64) (*assign.Instance, error) {
	if !slices.Contains(multiClasses, class) {
		return nil, fmt.Errorf("there is no type %q; there are c, d and e", class)
	}
	rng := rand.New(rand.NewPCG(seed, uint64(class[0])<<40|uint64(m)<<20|uint64(n)))
	p := &assign.Instance{Capacity: make([][assign.Resources]float64, m), Items: make([]assign.Item, n)}
	between := func(lo, hi int) float64 { return float64(lo + rng.IntN(hi-lo+1)) }
	for j := range p.Items {
		for b := range m {
			o := assign.Option{Bin: b}
			var mean float64
			for k := range o.Need {
				switch class {
				case "c":
					o.Need[k] = between(5, 25)
				case "d":
					o.Need[k] = between(1, 100)
				case "e":
					// The conversions keep a machine that multiplies and adds in one go from
					// rounding otherwise than the rest.
					o.Need[k] = math.Ceil(1 - float64(10*math.Log(1-rng.Float64())))
				}
				mean += o.Need[k] / assign.Resources
				p.Capacity[b][k] += o.Need[k] / float64(m)
			}
			switch class {
			case "c":
				o.Cost = between(10, 50)
			case "d":
				o.Cost = math.Round(111-mean) + between(-10, 10)
			case "e":
				o.Cost = math.Round(1000/mean - float64(10*rng.Float64()))
			}
			p.Items[j].Options = append(p.Items[j].Options, o)
		}
	}
	for b := range p.Capacity {
		for k := range p.Capacity[b] {
			room := filled
			if k != b%2 {
				room += 0.1
			}
			p.Capacity[b][k] = math.Floor(room * p.Capacity[b][k])
		}
	}
	return p, nil
}
