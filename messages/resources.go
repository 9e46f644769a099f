package messages

import "math"

// Resources is an amount of the three things a plan keeps within bounds.
type Resources struct {
	Compute float64 `msgpack:"c" json:"compute"` // TFLOPS
	Storage float64 `msgpack:"s" json:"storage"` // GB
	Network float64 `msgpack:"n" json:"network"` // Mbps
}

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	return Resources{r.Compute + o.Compute, r.Storage + o.Storage, r.Network + o.Network}
}

// Sub returns r − o; amounts may become negative.
func (r Resources) Sub(o Resources) Resources {
	return Resources{r.Compute - o.Compute, r.Storage - o.Storage, r.Network - o.Network}
}

// Scale returns every amount times f.
func (r Resources) Scale(f float64) Resources {
	return Resources{r.Compute * f, r.Storage * f, r.Network * f}
}

// Max returns the larger of r and o, amount by amount.
func (r Resources) Max(o Resources) Resources {
	return Resources{max(r.Compute, o.Compute), max(r.Storage, o.Storage), max(r.Network, o.Network)}
}

// tolerance forgives the rounding of sums of float64: ten tasks of 0.1 fit on 1.
const tolerance = 1e-9

// Within reports whether r fits into capacity, all three amounts at once. A
// relative rounding error of 1e-9 is forgiven.
func (r Resources) Within(capacity Resources) bool {
	return fits(r.Compute, capacity.Compute) && fits(r.Storage, capacity.Storage) && fits(r.Network, capacity.Network)
}

func fits(need, have float64) bool { return need <= have+tolerance*max(1, math.Abs(have)) }

// Check returns an error that names the amount under field that is negative,
// infinite or not a number.
func (r Resources) Check(field string) error {
	for _, a := range []struct {
		name, unit string
		v          float64
	}{{"compute", "TFLOPS", r.Compute}, {"storage", "GB", r.Storage}, {"network", "Mbps", r.Network}} {
		if a.v >= 0 && a.v <= math.MaxFloat64 {
			continue // without making the name that only the error needs: heartbeats come often
		}
		if err := CheckAmount(field+a.name, a.v, 0, math.MaxFloat64, a.unit); err != nil {
			return err
		}
	}
	return nil
}

// CheckAmount returns an error that names field, the value found and the range
// allowed unless lo ≤ v ≤ hi and v is a finite number.
func CheckAmount(field string, v, lo, hi float64, unit string) error {
	if v >= lo && v <= hi && v <= math.MaxFloat64 && v >= -math.MaxFloat64 {
		return nil
	}
	if unit != "" {
		unit = " " + unit
	}
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return Errorf(CodeBadRequest, "%s: found %v, allowed is a finite number%s", field, v, unit)
	case v < lo && hi == math.MaxFloat64:
		return Errorf(CodeBadRequest, "%s: found %v%s, allowed is %v%s or more", field, v, unit, lo, unit)
	case v < lo || v > hi:
		return Errorf(CodeBadRequest, "%s: found %v%s, allowed are %v to %v%s", field, v, unit, lo, hi, unit)
	}
	return nil
}
