package messages

import "math"

// Readings are what an agent has measured of its machine, for people and for the plan.
// Amounts of what the machine has not, or what could not be read, are 0.
type Readings struct {
	CPU      float64 `msgpack:"c,omitempty" json:"cpu"`                 // part of the cores in use by anybody, 0 to 1
	Own      float64 `msgpack:"o,omitempty" json:"cpu_own"`             // part of them that the agent and its children use
	Cores    float64 `msgpack:"n,omitempty" json:"cores"`               // that it may use: a container may have a part of one
	Memory   float64 `msgpack:"m,omitempty" json:"memory_gb"`           // GB in use
	MemSize  float64 `msgpack:"M,omitempty" json:"memory_size_gb"`      // GB that it may use
	Disk     float64 `msgpack:"d,omitempty" json:"disk_gb"`             // GB in use where the agent keeps its data
	DiskSize float64 `msgpack:"D,omitempty" json:"disk_size_gb"`        // GB there
	In       float64 `msgpack:"i,omitempty" json:"network_in_mbps"`     // Mbps that come in by the link to the server
	Out      float64 `msgpack:"e,omitempty" json:"network_out_mbps"`    // Mbps that go out
	Temp     float64 `msgpack:"t,omitempty" json:"temperature_celsius"` // of the hottest sensor
	Power    string  `msgpack:"p,omitempty" json:"power,omitempty"`     // battery or mains; "": it has no battery
	Battery  float64 `msgpack:"b,omitempty" json:"battery,omitempty"`   // charge, 0 to 1, where there is one
	Latency  float64 `msgpack:"l,omitempty" json:"latency_ms"`          // ms to the server and back, to be counted as L; 0: what the registration says
	GPUs     []GPU   `msgpack:"g,omitempty" json:"gpus,omitempty"`
}

// The kinds of power.
const (
	PowerBattery = "battery"
	PowerMains   = "mains"
)

// GPU is what was measured of one.
type GPU struct {
	Name    string  `msgpack:"n" json:"name"`
	Use     float64 `msgpack:"u" json:"use"`                                // part of the time in which it computed, 0 to 1
	Memory  float64 `msgpack:"m,omitempty" json:"memory_gb,omitempty"`      // GB in use
	MemSize float64 `msgpack:"M,omitempty" json:"memory_size_gb,omitempty"` // GB; 0 where it shares the machine's
	Temp    float64 `msgpack:"t,omitempty" json:"temperature_celsius,omitempty"`
}

// maxGPUs bounds what a heartbeat says: no machine has as many.
const maxGPUs = 64

func (r *Readings) check() error {
	if r == nil {
		return nil
	}
	for _, a := range []struct {
		name, unit string
		v, lo, hi  float64
	}{
		{"cpu", "", r.CPU, 0, 1}, {"cpu_own", "", r.Own, 0, 1}, {"cores", "", r.Cores, 0, math.MaxFloat64},
		{"memory", "GB", r.Memory, 0, math.MaxFloat64}, {"memory_size", "GB", r.MemSize, 0, math.MaxFloat64},
		{"disk", "GB", r.Disk, 0, math.MaxFloat64}, {"disk_size", "GB", r.DiskSize, 0, math.MaxFloat64},
		{"network_in", "Mbps", r.In, 0, math.MaxFloat64}, {"network_out", "Mbps", r.Out, 0, math.MaxFloat64},
		{"temperature", "°C", r.Temp, -math.MaxFloat64, math.MaxFloat64}, {"battery", "", r.Battery, 0, 1},
		{"latency", "ms", r.Latency, 0, math.MaxFloat64},
	} {
		if a.v >= a.lo && a.v <= a.hi && a.v <= math.MaxFloat64 {
			continue // without making the name that only the error needs: heartbeats come often
		}
		if err := CheckAmount("readings."+a.name, a.v, a.lo, a.hi, a.unit); err != nil {
			return err
		}
	}
	if len(r.GPUs) > maxGPUs {
		return Errorf(CodeBadRequest, "readings: found %d GPUs, allowed are %d", len(r.GPUs), maxGPUs)
	}
	for _, g := range r.GPUs {
		for _, a := range []struct {
			name, unit string
			v, lo, hi  float64
		}{
			{"use", "", g.Use, 0, 1}, {"memory", "GB", g.Memory, 0, math.MaxFloat64},
			{"memory_size", "GB", g.MemSize, 0, math.MaxFloat64}, {"temperature", "°C", g.Temp, -math.MaxFloat64, math.MaxFloat64},
		} {
			if err := CheckAmount("readings.gpu."+a.name, a.v, a.lo, a.hi, a.unit); err != nil {
				return err
			}
		}
	}
	return nil
}
