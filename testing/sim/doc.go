// Package sim plays whole fleets in one process and in virtual time, without NATS: several
// coordinators (each a real [placement.Machine] in a small shell with a simulated lease),
// up to thousands of agents, and clients that send requests by the routes. The network
// between them delays, loses, repeats and reorders; links are cut, processes are killed
// and stopped, clocks run at different speeds.
//
// Everything comes out of a seed. Invariants are checked after every step by a ledger that
// believes nobody: it looks at what agents really run, which documents really reached
// whom, and who really served a request. A failure prints its seed and what led to it:
//
//	make sim SEED=42 STEPS=60
//
// The plays are in plays.go, the invariants in ledger.go. Each invariant has a planted
// fault (faults.go) and a test that sees it caught: a checker that cannot fail proves
// nothing.
package sim
