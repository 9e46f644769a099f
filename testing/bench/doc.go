// Command bench runs the benchmarks of fleetbus: `go run ./testing/bench NAME [flags]`,
// a table for people, or with --json one object a line for programs.
//
//	gap [--time 1s] [--best best.csv] [--json] FILE…   the allocation engine on public instances
//	multi [--time 1s] [--seeds 3] [--items 0] [--json]  the same on own instances with three resources
//	placement [--environments 10000] [--replicas 30000] [--seed 1] [--runs 0] [--clouds tight] [--growth] [--json]
//	                                                   a whole fleet: a plan, and its repair when an edge dies
//	stop [--robots 50] [--rounds 5] [--cuts 10] [--json]    robots in real processes under load: until all have acknowledged a
//	                                                   stop, and until one whose link is cut has stopped by itself
//	heartbeat [--agents 50000] [--seconds 20] [--json]  what the beats of a fleet cost a coordinator
//	acks [--agents 1000] [--away 50] [--json]           one apply that touches all, until all have confirmed it
package main
