package alloc

// parts splits the replicas listed into groups that have nothing to do with each
// other: the plan of one leaves the others all their choices. A fleet is mostly sites
// that share no more than a cloud with room for all of them, and many small searches
// are better and faster than a large one. Each part is sorted, and they are sorted by
// their first replica. Environments that are not named by only, if it is given, do not count.
// loose says of each environment that it has room for everybody
// who could go there.
func (in *instance) parts(who []int, only []bool) (out [][]int, loose []bool) {
	kind := make([]int, len(who)) // equal replicas are one node
	var first []int               // replica of each node
	var many []float64
	index := make(map[*candidate]int)
	for i, r := range who {
		cands := in.reps[r].cands
		if len(cands) == 0 {
			kind[i] = -1
			continue
		}
		n, ok := index[&cands[0]]
		if !ok {
			n = len(first)
			index[&cands[0]] = n
			first, many = append(first, r), append(many, 0)
		}
		kind[i] = n
		many[n]++
	}
	loose = in.loose(first, many)

	parent := make([]int, len(first))
	for n := range parent {
		parent[n] = n
	}
	root := func(n int) int {
		for parent[n] != n {
			parent[n] = parent[parent[n]]
			n = parent[n]
		}
		return n
	}
	at := make([]int, len(in.envs)) // a node that can go there, counted from 1
	apart := make(map[[2]int]int)   // the same per (task, environment), where nothing else counts
	for n, r := range first {
		for _, c := range in.reps[r].cands {
			if only != nil && !only[c.env] {
				continue
			}
			other := &at[c.env]
			if loose[c.env] {
				t := in.reps[r].task
				if !in.apart[t] {
					continue
				}
				if x, ok := apart[[2]int{t, c.env}]; ok {
					parent[root(n)] = root(x)
				} else {
					apart[[2]int{t, c.env}] = n
				}
				continue
			}
			if *other > 0 {
				parent[root(n)] = root(*other - 1)
			}
			*other = n + 1
		}
	}
	part := make(map[int]int)
	for i, r := range who {
		if kind[i] < 0 {
			continue
		}
		n := root(kind[i])
		p, ok := part[n]
		if !ok {
			p = len(out)
			part[n] = p
			out = append(out, nil)
		}
		out[p] = append(out[p], r)
	}
	return out, loose
}

// loose says of each environment whether it has room for everybody who could go there,
// at no price of its own.
func (in *instance) loose(first []int, many []float64) []bool {
	total := make([][resources]float64, len(in.envs))
	for n, r := range first {
		rep := &in.reps[r]
		for _, c := range rep.cands {
			for k := range rep.need {
				total[c.env][k] += many[n] * rep.need[k]
			}
		}
	}
	out := make([]bool, len(in.envs))
	for e := range in.envs {
		env := &in.envs[e]
		out[e] = !env.whole || env.price == 0
		for k, t := range total[e] {
			out[e] = out[e] && t <= env.cap[k]
		}
	}
	return out
}
