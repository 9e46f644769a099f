package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// largest is how many agents times jobs a file may have: what fits in memory.
const largest = 1 << 26

// gapFile is a public instance of the generalised assignment problem: one resource,
// every job may go to every agent.
type gapFile struct {
	agents, jobs int
	cost, weight [][]float64 // by agent, then job
	capacity     []float64
}

// readGap reads `m n`, m×n costs, m×n weights and m capacities, separated by white
// space. Errors name the line.
func readGap(r io.Reader) (*gapFile, error) {
	in := &numbers{scan: bufio.NewScanner(r)}
	in.scan.Buffer(nil, 1<<24)
	m, n := in.count("the number of agents"), in.count("the number of jobs")
	if in.err == nil && m*n > largest {
		return nil, fmt.Errorf("line %d: %d agents with %d jobs are over the %d pairs that are allowed", in.line, m, n, largest)
	}
	g := &gapFile{agents: m, jobs: n}
	table := func(what string) (rows [][]float64) {
		for i := 0; i < m && in.err == nil; i++ {
			rows = append(rows, in.row(n, fmt.Sprintf("%s of agent %d", what, i+1)))
		}
		return rows
	}
	if in.err == nil {
		g.cost, g.weight = table("cost"), table("weight")
		g.capacity = in.row(m, "capacity")
	}
	if word, ok := in.next(); ok && in.err == nil {
		return nil, fmt.Errorf("line %d: %q is more than the %d numbers that %d agents and %d jobs have", in.line, word, 2+2*m*n+m, m, n)
	}
	if in.err == nil {
		in.err = in.scan.Err()
	}
	return g, in.err
}

// numbers reads words one after the other and keeps the first error.
type numbers struct {
	scan  *bufio.Scanner
	words []string
	line  int
	err   error
}

func (in *numbers) next() (string, bool) {
	for len(in.words) == 0 {
		if !in.scan.Scan() {
			return "", false
		}
		in.line++
		in.words = strings.Fields(in.scan.Text())
	}
	w := in.words[0]
	in.words = in.words[1:]
	return w, true
}

func (in *numbers) number(what string) float64 {
	if in.err != nil {
		return 0
	}
	word, ok := in.next()
	if !ok {
		if in.err = in.scan.Err(); in.err == nil {
			in.err = fmt.Errorf("line %d: the file ends before %s", in.line, what)
		}
		return 0
	}
	v, err := strconv.ParseFloat(word, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > 1e15 {
		in.err = fmt.Errorf("line %d: %s is %q; allowed is a number from 0 to 1e15", in.line, what, word)
		return 0
	}
	return v
}

func (in *numbers) count(what string) int {
	v := in.number(what)
	if in.err == nil && (v < 1 || v != math.Trunc(v) || v > largest) {
		in.err = fmt.Errorf("line %d: %s is %v; allowed is 1 to %d", in.line, what, v, largest)
	}
	return int(v)
}

func (in *numbers) row(n int, what string) (out []float64) {
	for i := 0; i < n && in.err == nil; i++ {
		out = append(out, in.number(fmt.Sprintf("%s, number %d", what, i+1)))
	}
	return out
}

// instance is the file for the engine.
func (g *gapFile) instance() *assign.Instance {
	p := &assign.Instance{Capacity: make([][assign.Resources]float64, g.agents), Items: make([]assign.Item, g.jobs)}
	for i, v := range g.capacity {
		p.Capacity[i][0] = v
	}
	for j := range p.Items {
		opts := make([]assign.Option, g.agents)
		for i := range opts {
			opts[i] = assign.Option{Bin: i, Cost: g.cost[i][j], Need: [assign.Resources]float64{g.weight[i][j]}}
		}
		p.Items[j].Options = opts
	}
	return p
}

// verify recomputes from the file what a plan costs and whether it keeps the
// capacities; nothing of the engine is used.
func (g *gapFile) verify(plan []int) (cost float64, feasible bool) {
	load := make([]float64, g.agents)
	feasible = len(plan) == g.jobs
	for j, i := range plan {
		if i < 0 || i >= g.agents {
			feasible = false
			continue
		}
		cost += g.cost[i][j]
		load[i] += g.weight[i][j]
	}
	for i, l := range load {
		// A sum of decimal fractions may be off in the last digit.
		feasible = feasible && l <= g.capacity[i]*(1+1e-9)
	}
	return cost, feasible
}

// readBest reads the best known values: a table with a header that has the columns
// instance and best.
func readBest(r io.Reader) (map[string]float64, error) {
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, err
	}
	name, best := -1, -1
	if len(rows) > 0 {
		for i, h := range rows[0] {
			switch h {
			case "instance":
				name = i
			case "best":
				best = i
			}
		}
	}
	if name < 0 || best < 0 {
		return nil, fmt.Errorf("line 1: the header has to have the columns instance and best")
	}
	out := make(map[string]float64)
	for i, row := range rows[1:] {
		v, err := strconv.ParseFloat(row[best], 64)
		if err != nil || !(v > 0) || math.IsInf(v, 1) {
			return nil, fmt.Errorf("line %d: best is %q; allowed is a number over 0", i+2, row[best])
		}
		out[row[name]] = v
	}
	return out, nil
}
