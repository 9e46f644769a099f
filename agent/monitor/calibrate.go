package monitor

import (
	"context"
	"math"
	"sync"
	"time"
)

// perTick is how many operations a core does in one tick of its clock in the loop below: two
// additions and two multiplications, as compilers make them without vectors.
const perTick = 4

// The measurement is the best of several: what disturbs a machine makes it slower, never
// faster.
const calibrateTries = 5

// Calibrate measures the compute of this machine, TFLOPS: multiplications and additions of 32
// bits on so many cores at once, in loops as a compiler makes them, the best of a few tries
// that take so long together. A library that uses vectors does several times as much, and a GPU
// far more; figures of machines that were measured so can be compared with each other. The
// error is that of ctx.
func Calibrate(ctx context.Context, cores float64, took time.Duration) (float64, error) {
	workers := max(1, int(math.Ceil(cores)))
	best := 0.0
	for range calibrateTries {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		var all sync.WaitGroup
		done := make([]float64, workers)
		begun := time.Now()
		until := begun.Add(took / calibrateTries)
		for i := range workers {
			all.Go(func() {
				for time.Now().Before(until) && ctx.Err() == nil {
					done[i] += grind(1 << 16)
				}
			})
		}
		all.Wait()
		sum := 0.0
		for _, d := range done {
			sum += d
		}
		best = max(best, sum/time.Since(begun).Seconds()/1e12)
	}
	// Of a core that is granted in part the loops have had all that there is.
	return best, ctx.Err()
}

// ground keeps the compiler from leaving out what nobody reads.
var ground struct {
	sync.Mutex
	v float32
}

// grind does n rounds of eight independent chains, and returns how many operations that was.
func grind(n int) float64 {
	a, b, c, d := float32(1), float32(2), float32(3), float32(4)
	e, f, g, h := float32(5), float32(6), float32(7), float32(8)
	const x, y = 0.999, 0.001
	for range n {
		a, b, c, d = a*x+y, b*x+y, c*x+y, d*x+y
		e, f, g, h = e*x+y, f*x+y, g*x+y, h*x+y
	}
	ground.Lock()
	ground.v = a + b + c + d + e + f + g + h
	ground.Unlock()
	return float64(n) * 16
}
