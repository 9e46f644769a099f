// Package monitor reads what a machine does: its cores, memory, disk, network, GPUs,
// temperature and battery, and how much of it others than the agent use.
//
// A [Source] reads counters and levels; [Reckon] makes readings of two of them, and is pure,
// so that what is decided needs no machine to be tested. A [Monitor] reads twice a second and
// looks at the last second: a load that begins shows within one and a half, and the agent
// beats at once when it does.
//
// # What counts as what
//
// The cores that count are those that the agent may use: its affinity, and the quota of its
// control groups (v2 and v1), the tightest on the way up. What others use is what they take
// of that: in the same group, or on the machine where it leaves less than the quota. What the agent
// and its descendants use is its own; what a model server outside of them does for the agent's
// tasks is taken for their rate times their work, because nobody can tell it from others.
//
// On a machine with a GPU that compute is said to be of, its use counts in place of the
// cores'. With NVIDIA's driver it comes from nvidia-smi, which tells what each process holds,
// on a Jetson from the kernel. docs/adr/0029 says why nothing is linked.
package monitor
