package assign

// state is an assignment, perhaps over capacity, with what is needed to change it.
type state struct {
	c     *core
	at    []int32   // option of each item
	load  []float64 // by bin·k + resource
	in    [][]int32 // items of a bin
	pos   []int32   // of an item in its bin's list
	pen   []float64 // per unit over capacity, by bin·k + resource
	scale float64   // of all penalties
	under float64   // of the prices of room left over, 0 to 1
	price []float64 // per unit of capacity: what room left over is worth
	over  int       // how many capacities are exceeded
	cost  float64   // objective without penalties
	wait  int       // items that wait
}

func newState(c *core) *state {
	s := &state{c: c, at: make([]int32, c.n), load: make([]float64, len(c.cap)), in: make([][]int32, c.m+1),
		pos: make([]int32, c.n), price: make([]float64, len(c.cap)), pen: make([]float64, len(c.cap)), scale: 1, under: 1}
	for j := range c.n {
		s.at[j] = c.wait(int32(j))
	}
	s.refresh()
	return s
}

// set takes over an assignment.
func (s *state) set(at []int32) {
	copy(s.at, at)
	s.refresh()
}

// refresh computes all sums afresh: sums that are only added to and taken from drift.
func (s *state) refresh() {
	c := s.c
	clear(s.load)
	for b := range s.in {
		s.in[b] = s.in[b][:0]
	}
	s.cost, s.over = 0, 0
	for j, o := range s.at {
		b := c.bin[o]
		s.pos[j] = int32(len(s.in[b]))
		s.in[b] = append(s.in[b], int32(j))
		s.cost += c.cost[o]
		for k := range c.k {
			s.load[int(b)*c.k+k] += c.need[int(o)*c.k+k]
		}
	}
	for b := range c.m {
		if len(s.in[b]) > 0 {
			s.cost += c.open[b]
		}
	}
	for x, l := range s.load {
		if l > c.room[x] {
			s.over++
		}
	}
	s.wait = len(s.in[c.m])
}

// move changes the option of item j to o.
func (s *state) move(j, o int32) {
	c := s.c
	from := s.at[j]
	a, b := c.bin[from], c.bin[o]
	s.at[j] = o
	s.cost += c.cost[o] - c.cost[from]
	list := s.in[a]
	last := list[len(list)-1]
	list[s.pos[j]] = last
	s.pos[last] = s.pos[j]
	s.in[a] = list[:len(list)-1]
	if len(s.in[a]) == 0 {
		s.cost -= c.open[a]
	}
	if len(s.in[b]) == 0 {
		s.cost += c.open[b]
	}
	s.pos[j] = int32(len(s.in[b]))
	s.in[b] = append(s.in[b], j)
	for k := range c.k {
		x := int(a)*c.k + k
		if s.load[x] > c.room[x] {
			s.over--
		}
		s.load[x] -= c.need[int(from)*c.k+k]
		if s.load[x] > c.room[x] {
			s.over++
		}
		x = int(b)*c.k + k
		if s.load[x] > c.room[x] {
			s.over--
		}
		s.load[x] += c.need[int(o)*c.k+k]
		if s.load[x] > c.room[x] {
			s.over++
		}
	}
	if int(a) == c.m {
		s.wait--
	}
	if int(b) == c.m {
		s.wait++
	}
}

// relief is by how much the excess in the bin of option o falls if it goes, weighed by
// the penalties.
func (s *state) relief(o int32) float64 {
	c := s.c
	b, at := int(c.bin[o])*c.k, int(o)*c.k
	var d float64
	for k := range c.k {
		l, room := s.load[b+k], c.room[b+k]
		d += (max(0, l-room) - max(0, l-c.need[at+k]-room)) * s.pen[b+k]
	}
	return d
}

// excess is what is over capacity in all, weighed by the penalties.
func (s *state) excess() float64 {
	var sum float64
	for x, l := range s.load {
		sum += max(0, l-s.c.room[x]) * s.pen[x]
	}
	return sum
}

// fits says that option o has room as it is.
func (s *state) fits(o int32) bool {
	c := s.c
	b := int(c.bin[o]) * c.k
	for k := range c.k {
		if s.load[b+k]+c.need[int(o)*c.k+k] > c.room[b+k] {
			return false
		}
	}
	return true
}

// fitsFor says that option in has room if out, in the same bin, goes.
func (s *state) fitsFor(out, in int32) bool {
	c := s.c
	b, from, to := int(c.bin[in])*c.k, int(out)*c.k, int(in)*c.k
	for k := range c.k {
		if s.load[b+k]+c.need[to+k]-c.need[from+k] > c.room[b+k] {
			return false
		}
	}
	return true
}

// opening is the change of opening prices if an item goes from bin a to bin b.
func (s *state) opening(a, b int32) float64 {
	var d float64
	if len(s.in[a]) == 1 {
		d -= s.c.open[a]
	}
	if len(s.in[b]) == 0 {
		d += s.c.open[b]
	}
	return d
}

// apart says that item j may be in bin b beside those that are there, without item
// except, which goes.
func (s *state) apart(j, b, except int32) bool {
	c := s.c
	g := c.group[j]
	if g < 0 || int(b) == c.m {
		return true
	}
	if len(s.in[b]) < len(c.members[g]) {
		for _, i := range s.in[b] {
			if c.group[i] == g && i != except && i != j {
				return false
			}
		}
		return true
	}
	for _, i := range c.members[g] {
		if i != j && i != except && c.bin[s.at[i]] == b {
			return false
		}
	}
	return true
}

// worth is what a resource with load l costs by reduced cost: the room left over at its
// price, and what is over at the penalty, less a constant.
func (s *state) worth(x int, l float64) float64 {
	e := l - s.c.room[x]
	if e > 0 {
		return e * s.pen[x] * s.scale
	}
	return -e * s.price[x] * s.under
}

// shed is the change of worth in the bin of option o if it goes, gain if it comes, and
// swapped if out goes and in comes, both in one bin.
func (s *state) shed(o int32) float64 {
	c := s.c
	b, at := int(c.bin[o])*c.k, int(o)*c.k
	var d float64
	for k := range c.k {
		l := s.load[b+k]
		d += s.worth(b+k, l-c.need[at+k]) - s.worth(b+k, l)
	}
	return d
}

func (s *state) gain(o int32) float64 {
	c := s.c
	b, at := int(c.bin[o])*c.k, int(o)*c.k
	var d float64
	for k := range c.k {
		l := s.load[b+k]
		d += s.worth(b+k, l+c.need[at+k]) - s.worth(b+k, l)
	}
	return d
}

func (s *state) swapped(out, in int32) float64 {
	c := s.c
	b, from, to := int(c.bin[in])*c.k, int(out)*c.k, int(in)*c.k
	var d float64
	for k := range c.k {
		l := s.load[b+k]
		d += s.worth(b+k, l+c.need[to+k]-c.need[from+k]) - s.worth(b+k, l)
	}
	return d
}
