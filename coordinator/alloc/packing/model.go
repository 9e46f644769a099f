package packing

import (
	"cmp"
	"math"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

const resources = assign.Resources

// tolerance forgives the rounding of float64 sums, as in package alloc.
const tolerance = 5e-10

// farAbove is a cost, scaled, that is left to other methods.
const farAbove = 1e6

// model is an instance without what is settled: items that have only one place are in it,
// and equal items are one kind.
type model struct {
	room    [][resources]float64 // by bin, less what is settled there
	open    []float64            // by bin; 0 where something is settled there
	kinds   []kind
	byBin   [][]place // what each bin could hold
	settled []int     // the bin of an item that has no choice, -1 for all others
	scale   float64   // of all costs here to those of the instance, see scaleOf
	banned  float64   // more than any plan costs
	odd     bool      // some cost is so far above the others that they would drown in it
	base    float64   // what the settled cost
	held    map[[2]int]bool
	lost    bool // somebody who must not be outside can be nowhere else
	full    bool // there is no room for what has no choice
}

// kind is a set of equal items.
type kind struct {
	items   []int // of the instance, ascending
	options []assign.Option
	group   int     // 0 for none
	outside float64 // the price of leaving one out
	must    bool    // which stands for more than any plan can save
}

// place is a kind in a bin.
type place struct {
	kind int32
	cost float64
	need [resources]float64

	limit       int32 // how many of it there can be
	least, most int32 // and may be, by what is decided
}

func newModel(p *assign.Instance) *model {
	md := &model{room: make([][resources]float64, len(p.Capacity)), open: make([]float64, len(p.Capacity)),
		settled: make([]int, len(p.Items)), held: make(map[[2]int]bool), scale: scaleOf(p)}
	for i, c := range p.Capacity {
		for r, v := range c {
			md.room[i][r] = v + tolerance*max(1, v)
		}
		if p.Open != nil {
			md.open[i] = p.Open[i] * md.scale
		}
	}
	for j := range p.Items {
		md.settled[j] = -1
		if it := &p.Items[j]; len(it.Options) == 1 && it.Wait == 0 {
			md.settle(j, it)
		}
	}
	order := make([]int, 0, len(p.Items))
	for j := range p.Items {
		if md.settled[j] < 0 {
			order = append(order, j)
		}
	}
	lists := make([][]assign.Option, len(p.Items))
	order = slices.DeleteFunc(order, func(j int) bool {
		lists[j] = md.usable(&p.Items[j])
		none := len(lists[j]) == 0 && p.Items[j].Wait == 0
		md.lost = md.lost || none
		return none
	})
	compare := func(a, b int) int {
		x, y := &p.Items[a], &p.Items[b]
		return cmp.Or(cmp.Compare(x.Apart, y.Apart), cmp.Compare(x.Wait, y.Wait), slices.CompareFunc(lists[a], lists[b], compareOptions))
	}
	slices.SortStableFunc(order, compare)
	var span, top float64
	for _, v := range md.open {
		span += v
	}
	for x, j := range order {
		lo, hi := math.Inf(1), math.Inf(-1)
		for _, o := range lists[j] {
			lo, hi = min(lo, o.Cost), max(hi, o.Cost)
		}
		if w := p.Items[j].Wait * md.scale; w > 0 {
			lo, hi = min(lo, w), max(hi, w)
		}
		if !math.IsInf(hi, -1) {
			top, span = max(top, hi), span+hi-lo
		}
		if x > 0 && compare(order[x-1], j) == 0 {
			k := &md.kinds[len(md.kinds)-1]
			k.items = append(k.items, j)
			continue
		}
		it := &p.Items[j]
		md.kinds = append(md.kinds, kind{items: []int{j}, options: lists[j], group: it.Apart, outside: it.Wait * md.scale, must: it.Wait == 0})
	}
	md.odd = top > farAbove || span > farAbove
	md.banned = max(1e7, 100*(top+span+1)*float64(len(p.Items)))
	md.byBin = make([][]place, len(p.Capacity))
	for x := range md.kinds {
		k := &md.kinds[x]
		if k.must {
			k.outside = top + span + 1
		}
		for _, o := range k.options {
			most := int32(len(k.items))
			if k.group > 0 {
				most = 1
			}
			md.byBin[o.Bin] = append(md.byBin[o.Bin], place{kind: int32(x), cost: o.Cost, need: o.Need, limit: most, most: most})
		}
	}
	return md
}

// scaleOf makes costs of any size such as the tolerances of the simplex method are for: the
// largest of what each item costs at least is 100, or else of what anything costs.
func scaleOf(p *assign.Instance) float64 {
	top, most := 0.0, 0.0
	for _, v := range p.Open {
		most = max(most, v)
	}
	for j := range p.Items {
		least := math.Inf(1)
		if w := p.Items[j].Wait; w > 0 {
			least, most = w, max(most, w)
		}
		for _, o := range p.Items[j].Options {
			least, most = min(least, o.Cost), max(most, o.Cost)
		}
		if !math.IsInf(least, 1) {
			top = max(top, least)
		}
	}
	switch { // below, the quotient has no room in a float64
	case top > 1e-200:
		return 100 / top
	case most > 1e-200:
		return 100 / most
	}
	return 1
}

// settle puts an item where alone it can be.
func (md *model) settle(j int, it *assign.Item) {
	o := it.Options[0]
	for r, v := range o.Need {
		if md.room[o.Bin][r] -= v; md.room[o.Bin][r] < 0 {
			md.full = true
		}
	}
	if it.Apart > 0 {
		key := [2]int{it.Apart, o.Bin}
		md.full = md.full || md.held[key]
		md.held[key] = true
	}
	md.settled[j] = o.Bin
	md.base += o.Cost*md.scale + md.open[o.Bin]
	md.open[o.Bin] = 0
}

// usable returns the options of an item that has room beside what is settled, by bin.
func (md *model) usable(it *assign.Item) []assign.Option {
	out := make([]assign.Option, 0, len(it.Options))
	for _, o := range it.Options {
		room := &md.room[o.Bin]
		if o.Need[0] <= room[0] && o.Need[1] <= room[1] && o.Need[2] <= room[2] && !(it.Apart > 0 && md.held[[2]int{it.Apart, o.Bin}]) {
			o.Cost *= md.scale
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b assign.Option) int { return cmp.Compare(a.Bin, b.Bin) })
	return out
}

func compareOptions(a, b assign.Option) int {
	return cmp.Or(cmp.Compare(a.Bin, b.Bin), cmp.Compare(a.Cost, b.Cost), slices.Compare(a.Need[:], b.Need[:]))
}
