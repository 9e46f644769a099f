package packing

import "math"

// master is the linear programme over the packings known so far, in revised simplex form
// with the whole inverse. Its rows are the kinds, each to be covered as often as there are
// items of it, the bins, each used once at most, and the number of items outside, which is
// free until branching bounds it.
type master struct {
	kinds, bins, rows int

	inv     []float64 // rows × rows
	right   []float64 // right sides, but of the last row
	x       []float64 // of the basis
	y       []float64 // dual values by row: of a kind 0 or more, of a bin 0 or less
	basis   []int     // variable of each row, see below
	columns []column
	outside []float64 // of a kind
	unused  []float64 // of a bin: 0, but where it is decided that it is used
	out     float64   // the number that the last row compares with
	banned  float64   // the price of what is decided against
	extra   float64   // the price of each item outside above it: 0 or banned
	short   float64   // and of each below
	enter   []float64 // scratch: inverse · column
}

// A variable is a column from 0 on, else −1−x, where x is
//   - a kind: one of it outside
//   - kinds + a kind: one of it covered too often
//   - 2·kinds + a bin: unused
//   - 2·kinds + bins: more outside than the number of the last row, or, with 1 more, less

// column is a packing.
type column struct {
	bin    int32
	kinds  []int32 // with repetition, ascending
	cost   float64
	banned bool // by a decision
}

func newMaster(many []float64, outside []float64, bins int, banned float64) *master {
	kinds := len(many)
	rows := kinds + bins + 1
	p := &master{kinds: kinds, bins: bins, rows: rows, inv: make([]float64, rows*rows), x: make([]float64, rows),
		y: make([]float64, rows), basis: make([]int, rows), outside: outside, unused: make([]float64, bins), banned: banned, enter: make([]float64, rows)}
	p.right = make([]float64, rows)
	for i := range rows - 1 {
		// Right sides that differ a little keep the simplex method from going in circles.
		p.right[i] = 1 + 1e-7*float64((i*7919)%rows+1)/float64(rows)
		if i < kinds {
			p.right[i] *= many[i]
		}
	}
	p.begin()
	return p
}

// begin makes the basis in which all are outside.
func (p *master) begin() {
	last := p.rows - 1
	clear(p.inv)
	copy(p.x, p.right)
	for i := range last {
		p.inv[i*p.rows+i] = 1
		p.basis[i] = -1 - i
		if i >= p.kinds {
			p.basis[i] -= p.kinds
		}
	}
	p.inv[last*p.rows+last], p.x[last], p.basis[last] = -1, -p.out, -1-2*p.kinds-p.bins
	for k := range p.kinds {
		p.inv[last*p.rows+k] = 1
		p.x[last] += p.x[k]
	}
	p.settle()
	p.revalue()
}

// settle makes what compares the number of items outside with the last row's positive.
func (p *master) settle() {
	extra, short := -1-2*p.kinds-p.bins, -2-2*p.kinds-p.bins
	for i, v := range p.basis {
		if p.x[i] < 0 && (v == extra || v == short) {
			p.x[i] = -p.x[i]
			p.basis[i] = extra + short - v
			for k := range p.rows {
				p.inv[i*p.rows+k] *= -1
			}
		}
	}
}

// check looks whether the many updates of the inverse have added up to an error, and
// begins anew if so. It is called where all limits are set.
func (p *master) check() {
	sum := p.enter
	for i, v := range p.right {
		sum[i] = -v
	}
	sum[p.rows-1] = -p.out
	low := 0.0
	for i, v := range p.basis {
		low = min(low, p.x[i])
		p.each(v, func(row int, f float64) { sum[row] += f * p.x[i] })
	}
	for _, v := range sum {
		if v > 1e-6 || v < -1e-6 || low < -1e-6 {
			p.begin()
			return
		}
	}
}

// each calls f with the rows of a variable, and what it has there.
func (p *master) each(v int, f func(row int, by float64)) {
	switch x := -1 - v; {
	case v >= 0:
		for _, k := range p.columns[v].kinds {
			f(int(k), 1)
		}
		f(p.kinds+int(p.columns[v].bin), 1)
	case x < p.kinds:
		f(x, 1)
		f(p.rows-1, 1)
	case x < 2*p.kinds:
		f(x-p.kinds, -1)
	case x < 2*p.kinds+p.bins:
		f(x-p.kinds, 1)
	case x == 2*p.kinds+p.bins:
		f(p.rows-1, -1)
	default:
		f(p.rows-1, 1)
	}
}

// limit asks for at least or at most so many items outside; neither: any number.
func (p *master) limit(out float64, least, most bool) {
	for i := range p.x {
		p.x[i] += p.inv[i*p.rows+p.rows-1] * (out - p.out)
	}
	p.settle()
	p.out, p.extra, p.short = out, 0, 0
	if least {
		p.short = p.banned
	}
	if most {
		p.extra = p.banned
	}
	p.check()
	p.revalue()
}

// outsiders is how many items are outside.
func (p *master) outsiders() float64 {
	var sum float64
	for i, v := range p.basis {
		if v < 0 && -1-v < p.kinds {
			sum += p.x[i]
		}
	}
	return sum
}

// reduced is by how much the objective changes with each unit of column c.
func (p *master) reduced(c *column) float64 {
	v := c.cost - p.y[p.kinds+int(c.bin)]
	if c.banned {
		v += p.banned
	}
	for _, k := range c.kinds {
		v -= p.y[k]
	}
	return v
}

// objective of the programme, by the dual values.
func (p *master) objective(many []float64) float64 {
	var sum float64
	for i, v := range p.y {
		switch {
		case i < p.kinds:
			v *= many[i]
		case i == p.rows-1:
			v *= p.out
		}
		sum += v
	}
	return sum
}

// pivot brings a variable into the basis, whose reduced cost is given; false where
// nothing can leave.
func (p *master) pivot(v int, reduced float64) bool {
	n := p.rows
	d := p.enter
	clear(d)
	p.each(v, func(row int, f float64) {
		for i, at := 0, row; i < n; i, at = i+1, at+n {
			d[i] += f * p.inv[at]
		}
	})
	out, least := -1, math.Inf(1)
	for i, f := range d {
		if f > 1e-7 {
			if q := p.x[i] / f; q < least-1e-12 || q < least+1e-12 && f > d[out] {
				out, least = i, q
			}
		}
	}
	if out < 0 {
		return false
	}
	least = max(0, least)
	row := p.inv[out*n : out*n+n]
	for i := range row {
		row[i] /= d[out]
	}
	for i, f := range d {
		if i == out || f == 0 {
			continue
		}
		dst := p.inv[i*n : i*n+n]
		for k, v := range row {
			dst[k] -= f * v
		}
		p.x[i] -= f * least
	}
	p.x[out] = least
	for k, v := range row {
		p.y[k] += reduced * v
	}
	p.basis[out] = v
	return true
}

// solve pivots until nothing known helps, at most so often, and returns how often.
func (p *master) solve(most int) int {
	for done := range most {
		best, who := -1e-7, math.MaxInt
		for c := range p.columns {
			if v := p.reduced(&p.columns[c]); v < best {
				best, who = v, c
			}
		}
		omega := p.y[p.rows-1]
		if v := p.extra + omega; v < best {
			best, who = v, -1-2*p.kinds-p.bins
		}
		if v := p.short - omega; v < best {
			best, who = v, -2-2*p.kinds-p.bins
		}
		for k := range p.kinds {
			if v := p.outside[k] - p.y[k] - omega; v < best {
				best, who = v, -1-k
			}
			if v := p.y[k]; v < best {
				best, who = v, -1-p.kinds-k
			}
		}
		for i := range p.bins {
			if v := p.unused[i] - p.y[p.kinds+i]; v < best {
				best, who = v, -1-2*p.kinds-i
			}
		}
		if who == math.MaxInt || !p.pivot(who, best) {
			return done
		}
	}
	return most
}

// price is the cost of a variable.
func (p *master) price(v int) float64 {
	switch x := -1 - v; {
	case v >= 0 && p.columns[v].banned:
		return p.columns[v].cost + p.banned
	case v >= 0:
		return p.columns[v].cost
	case x < p.kinds:
		return p.outside[x]
	case x < 2*p.kinds:
		return 0
	case x < 2*p.kinds+p.bins:
		return p.unused[x-2*p.kinds]
	case x == 2*p.kinds+p.bins:
		return p.extra
	default:
		return p.short
	}
}

// revalue computes the dual values afresh, after costs have changed.
func (p *master) revalue() {
	clear(p.y)
	for i, v := range p.basis {
		if c := p.price(v); c != 0 {
			for k, f := range p.inv[i*p.rows : (i+1)*p.rows] {
				p.y[k] += c * f
			}
		}
	}
}
