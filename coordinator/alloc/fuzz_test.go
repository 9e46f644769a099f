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
	for field := range uint8(23) {
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 0, 1e12, 1e300, 5e-324, math.MaxFloat64} {
			f.Add(uint64(field), uint8(3), uint8(3), field, v)
		}
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), -1, 0, 1e12, 1e300, math.MaxFloat64} {
		f.Add(uint64(7), uint8(3), uint8(3), measuredField, v)
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
		if field >= measuredField && len(p.Replicas) > 0 {
			p.Measured = map[Pair]float64{{p.Replicas[0].Task.Name, "e0"}: v}
		}
		plan, err := Solve(p)
		if v != v && err == nil && field >= measuredField && len(p.Replicas) > 0 {
			t.Error("a measured delay that is no number is no error")
		}
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

// measuredField and more stand for a measured delay, which is not a field of a struct.
const measuredField = uint8(200)

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
		task.Work, task.Transfer, task.MovePrice = new(float64), new(float64), new(float64)
		task.Prefer = &messages.Preference{Labels: map[string]string{"gpu": "yes"}, Penalty: new(float64)}
		price := &p.Replicas[rng.IntN(n)].MovePrice
		*price = new(float64)
		out = append(out, &task.Demand.Compute, &task.Demand.Storage, &task.Demand.Network, &task.Limit, &task.Cost, task.Work, task.Transfer,
			task.MovePrice, task.Prefer.Penalty, *price)
	}
	return out
}
