package alloc

// hubPrices looks for prices of the hubs at which what the cells send there just fits. Those
// of the search are a guess: it knows nothing of what the cells would do at others.
type hubPrices struct {
	low, high [][resources]float64 // too low and too high, as far as is known; 0 for unknown
}

func newHubPrices(in *instance) *hubPrices {
	return &hubPrices{make([][resources]float64, len(in.envs)), make([][resources]float64, len(in.envs))}
}

// What counts as a hub that is fuller than its price says, or emptier, and the first step
// where a price is 0, in scores of who found no room.
const (
	firstPrice = 0.2
	stillRoom  = 0.9
)

// next returns the prices for the next round: t came of planned, and says others. changed is
// whether a hub has another price than in planned.
func (h *hubPrices) next(t *state, d *cells, who []int, planned [][resources]float64) (prices [][resources]float64, changed []bool) {
	in := t.in
	lacks := make([][resources]float64, len(in.envs)) // the largest first step of those that found no room
	for _, r := range who {
		if t.at[r] >= 0 {
			continue
		}
		for _, c := range in.reps[r].cands {
			if !d.hub[c.env] {
				continue
			}
			for k, n := range in.reps[r].need {
				if !fits(t.used[c.env][k]+n, in.envs[c.env].cap[k]) {
					lacks[c.env][k] = max(lacks[c.env][k], firstPrice*c.score/n)
				}
			}
		}
	}
	prices, changed = make([][resources]float64, len(in.envs)), make([]bool, len(in.envs))
	for e, hub := range d.hub {
		if !hub {
			continue
		}
		for k := range prices[e] {
			was, low, high := planned[e][k], &h.low[e][k], &h.high[e][k]
			v := t.shadow[e][k]
			switch have := in.envs[e].cap[k]; {
			case lacks[e][k] > 0:
				if *low = max(*low, was); *high > 0 {
					v = (*low + *high) / 2
				} else {
					v = max(v, 2*was, lacks[e][k])
				}
			case was > 0 && t.used[e][k] < stillRoom*have:
				if *high == 0 || was < *high {
					*high = was
				}
				v = min(v, (*low+*high)/2)
			}
			prices[e][k] = v
			changed[e] = changed[e] || v-was > 0.01*was || was-v > 0.01*was
		}
	}
	return prices, changed
}
