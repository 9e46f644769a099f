package alloc

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// FuzzSolve puts any number into any field of a random problem: the result is an
// error, or a plan that keeps every constraint. It never panics and never hangs.
func FuzzSolve(f *testing.F) {
	for field := range uint8(20) {
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 0, 1e12, 1e300, 5e-324, math.MaxFloat64} {
			f.Add(uint64(field), uint8(3), uint8(3), field, v)
		}
	}
	f.Add(uint64(1), uint8(0), uint8(0), uint8(0), 0.0)
	f.Add(uint64(1), uint8(0), uint8(4), uint8(0), 1.0)
	f.Add(uint64(1), uint8(4), uint8(0), uint8(0), 1.0)
	f.Fuzz(func(t *testing.T, seed uint64, envs, tasks, field uint8, v float64) {
		rng := rand.New(rand.NewPCG(seed, 5))
		p := random(rng, int(envs%8), int(tasks%8))
		if fields := fieldsOf(&p, rng); len(fields) > 0 {
			*fields[int(field)%len(fields)] = v
		}
		plan, err := Solve(p)
		if err != nil {
			if messages.CodeOf(err) != messages.CodeBadRequest {
				t.Fatal(err)
			}
			return
		}
		verify(t, p, plan)
		if _, err := Matrix(p); err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Replicas {
			if _, err := Explain(p, plan, r.ID); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// fieldsOf are numbers of p: the settings', those of one environment, of one task.
func fieldsOf(p *Problem, rng *rand.Rand) []*float64 {
	out := []*float64{&p.Settings.WeightLatency, &p.Settings.WeightCost, &p.Settings.Reserve, &p.MovePrice}
	if n := len(p.Environments); n > 0 {
		e := &p.Environments[rng.IntN(n)]
		out = append(out, &e.Capacity.Compute, &e.Capacity.Storage, &e.Capacity.Network, &e.Latency, &e.Price,
			&e.Foreign.Compute, &e.Foreign.Storage, &e.Foreign.Network)
	}
	if n := len(p.Replicas); n > 0 {
		task := &p.Replicas[rng.IntN(n)].Task
		task.Work, task.Transfer = new(float64), new(float64)
		out = append(out, &task.Demand.Compute, &task.Demand.Storage, &task.Demand.Network, &task.Limit, &task.Cost, task.Work, task.Transfer)
	}
	return out
}
