package packing

import (
	"cmp"
	"slices"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// finish makes a plan for the items from a packing of each bin: what is covered too often
// leaves where it is dearest, who is not covered goes where it costs least.
func (s *solver) finish(plan []int) (objective float64, assigned []int, lost bool) {
	md := s.md
	room := slices.Clone(md.room)
	in := make([][]int32, len(room)) // kinds in each bin
	left := make([]int, len(md.kinds))
	for x := range md.kinds {
		left[x] = len(md.kinds[x].items)
	}
	type seat struct {
		kind int32
		bin  int
		cost float64
	}
	var seats []seat
	for b, v := range plan {
		if v < 0 {
			continue
		}
		for _, k := range s.ms.columns[v].kinds {
			i, _ := slices.BinarySearchFunc(md.byBin[b], k, func(p place, k int32) int { return int(p.kind - k) })
			seats = append(seats, seat{k, b, md.byBin[b][i].cost})
		}
	}
	slices.SortStableFunc(seats, func(a, b seat) int { return cmp.Compare(a.cost, b.cost) })
	put := func(k int32, b int) {
		i, _ := slices.BinarySearchFunc(md.byBin[b], k, func(p place, k int32) int { return int(p.kind - k) })
		for r, v := range md.byBin[b][i].need {
			room[b][r] -= v
		}
		in[b] = append(in[b], k)
		left[k]--
	}
	for _, x := range seats {
		if left[x.kind] > 0 {
			put(x.kind, x.bin)
		}
	}
	// Who stays outside at the highest price first.
	var order []int32
	for x := range md.kinds {
		if left[x] > 0 {
			order = append(order, int32(x))
		}
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(md.kinds[b].outside, md.kinds[a].outside) })
	for _, k := range order {
		kd := &md.kinds[k]
		for left[k] > 0 {
			best, at := kd.outside, -1
			for _, o := range kd.options {
				r := &room[o.Bin]
				if o.Need[0] > r[0] || o.Need[1] > r[1] || o.Need[2] > r[2] || kd.group > 0 && s.grouped(in[o.Bin], kd.group) {
					continue
				}
				c := o.Cost
				if len(in[o.Bin]) == 0 {
					c += md.open[o.Bin]
				}
				if c < best {
					best, at = c, o.Bin
				}
			}
			if at < 0 {
				break
			}
			put(k, at)
		}
	}
	assigned = make([]int, s.items)
	copy(assigned, md.settled)
	objective = md.base
	for b := range in {
		if len(in[b]) > 0 {
			objective += md.open[b]
		}
	}
	bins := make([][]int, len(md.kinds)) // of each kind, one for each that is placed
	for b, list := range in {
		for _, k := range list {
			bins[k] = append(bins[k], b)
		}
	}
	for x := range md.kinds {
		objective += s.hand(&md.kinds[x], bins[x], s.start, assigned)
		lost = lost || md.kinds[x].must && left[x] > 0
	}
	return objective, assigned, lost
}

// grouped says that one of the group is among the kinds.
func (s *solver) grouped(kinds []int32, group int) bool {
	return slices.ContainsFunc(kinds, func(k int32) bool { return s.md.kinds[k].group == group })
}

// hand gives the items of a kind the bins, who is there already first, and returns what
// they cost.
func (s *solver) hand(k *kind, bins []int, start, assigned []int) float64 {
	free := slices.Clone(k.items)
	cost := 0.0
	rest := bins[:0:0]
	for _, b := range bins {
		i, _ := slices.BinarySearchFunc(k.options, b, func(o assign.Option, b int) int { return o.Bin - b })
		cost += k.options[i].Cost
		at := -1
		if start != nil {
			at = slices.IndexFunc(free, func(j int) bool { return start[j] == b })
		}
		if at < 0 {
			rest = append(rest, b)
			continue
		}
		assigned[free[at]] = b
		free = slices.Delete(free, at, at+1)
	}
	for _, b := range rest {
		assigned[free[0]] = b
		free = free[1:]
	}
	for range free {
		cost += k.outside
	}
	return cost
}
