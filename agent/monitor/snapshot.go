package monitor

import (
	"context"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// A Source reads a machine. Read is called by one goroutine at a time; what it cannot read it
// leaves out, and an error says that it could read nothing that counts.
type Source interface {
	Read(ctx context.Context) (Snapshot, error)
}

// Snapshot is what was read of a machine at one moment. Counters count from any beginning.
type Snapshot struct {
	At time.Time

	Cores float64 // that the agent may use by its affinity
	Busy  float64 // counter: seconds of them in use by anybody
	Own   float64 // counter: seconds of CPU that the agent and its descendants used

	Quota float64 // cores that the tightest control group grants; 0: there is none
	Group float64 // counter: seconds of CPU used in that group

	Memory, MemSize float64 // GB in use, and GB that may be
	Disk, DiskSize  float64 // GB, where the agent keeps its data

	Link      string  // the interface to the server; "": not known
	Speed     float64 // Mbps of it; 0: not known
	In, Out   uint64  // counters: bytes that came in and went out by it
	OwnIn     uint64  // counters: bytes of the agent's own connections
	OwnOut    uint64
	Temp      float64 // °C; 0: not known
	Power     string  // as in messages.Readings
	Battery   float64
	GPUs      []messages.GPU
	GPUOwn    bool // one of the agent's processes holds memory of a GPU
	GPUOthers bool // another's does, or nobody can tell
}

// Ours is what the agent knows of its own doing and the machine cannot tell.
type Ours struct {
	Work    float64 // TFLOPS that its replicas do: rate · work
	Outside float64 // those of them that are done by servers which are not its children
	Storage float64 // GB that its replicas declare
	In, Out uint64  // counters: bytes of its connections
}

// Use is what others use of a machine.
type Use struct {
	Compute float64 // part of what there is, 0 to 1: cores
	GPU     float64 // part of the GPUs, ours included where others are there too; negative: compute is that of the cores
	Storage float64 // GB, ours included
	Network float64 // Mbps, the busier direction
}

// Reckon makes readings of two snapshots of a machine, the older one first. gpu says that
// compute is that of the GPUs. Where no time has passed between them there are no rates.
func Reckon(a, b Snapshot, gpu bool) (messages.Readings, Use) {
	cores := b.Cores
	if b.Quota > 0 && (cores == 0 || b.Quota < cores) {
		cores = b.Quota
	}
	r := messages.Readings{
		Cores: cores, Memory: b.Memory, MemSize: b.MemSize, Disk: b.Disk, DiskSize: b.DiskSize,
		Temp: b.Temp, Power: b.Power, Battery: b.Battery, GPUs: b.GPUs,
	}
	u := Use{Storage: b.Disk, GPU: -1}
	if gpu && len(b.GPUs) > 0 {
		u.GPU = othersOfGPUs(b)
	}
	passed := b.At.Sub(a.At).Seconds()
	if passed <= 0 {
		return r, u
	}
	if cores > 0 {
		own := min(cores, counted(a.Own, b.Own)/passed)
		others := others(a, b, cores, own, passed)
		r.Own, r.CPU = own/cores, min(1, (own+others)/cores)
		u.Compute = others / cores
	}
	if a.Link == b.Link {
		r.In, r.Out = mbps(a.In, b.In, passed), mbps(a.Out, b.Out, passed)
		u.Network = max(0, r.In-mbps(a.OwnIn, b.OwnIn, passed), r.Out-mbps(a.OwnOut, b.OwnOut, passed))
	}
	return r, u
}

// others is how many cores others use of those that the agent may use. What is left for the
// agent is what its group leaves it, and no more than the machine has idle.
func others(a, b Snapshot, cores, own, passed float64) float64 {
	idle := max(0, b.Cores-counted(a.Busy, b.Busy)/passed)
	left := min(cores, idle)
	if b.Quota > 0 && a.Quota > 0 {
		left = min(left, max(0, b.Quota-counted(a.Group, b.Group)/passed))
	}
	return max(0, cores-own-left)
}

// othersOfGPUs is the part of the GPUs' time that is not ours. A GPU does not say whose time it
// is; where both are there it is anybody's, and what we do is taken off with Ours.Outside.
func othersOfGPUs(b Snapshot) float64 {
	if b.GPUOwn && !b.GPUOthers {
		return 0
	}
	sum := 0.0
	for _, g := range b.GPUs {
		sum += g.Use
	}
	return sum / float64(len(b.GPUs))
}

// counted is by how much a counter grew; one that was set back counts for nothing.
func counted(a, b float64) float64 { return max(0, b-a) }

func mbps(a, b uint64, seconds float64) float64 {
	if b < a {
		return 0
	}
	return float64(b-a) * 8 / 1e6 / seconds
}

// Foreign is what others use of a machine of that capacity, where ours is known.
func (u Use) Foreign(capacity messages.Resources, ours Ours) messages.Resources {
	compute := u.Compute*capacity.Compute - ours.Outside
	if u.GPU >= 0 {
		compute = u.GPU*capacity.Compute - ours.Work
	}
	return messages.Resources{
		Compute: min(capacity.Compute, max(0, compute)),
		Storage: min(capacity.Storage, max(0, u.Storage-ours.Storage)),
		Network: min(capacity.Network, u.Network),
	}
}
