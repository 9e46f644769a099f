// Command bench runs the benchmarks of fleetbus: `go run ./testing/bench NAME [flags]`,
// a table for people, or with --json one object a line for programs.
//
//	gap [--time 1s] [--best best.csv] [--json] FILE…   the allocation engine on public instances
//	multi [--time 1s] [--seeds 3] [--items 0] [--json]  the same on own instances with three resources
//	placement [--environments 10000] [--replicas 30000] [--seed 1] [--runs 0] [--clouds tight] [--growth] [--json]
//	                                                   a whole fleet: a plan, and its repair when an edge dies
//	request [--time 8s] [--case …] [--json]            straight requests, and through a router, against core request-reply
//	durable [--time 15s] [--json]                      inference through the queue, against a pull loop written by hand
//	failover [--kills 30] [--leader-kills 1] [--case …] [--json]
//	                                                   agents killed and frozen: until the answer from elsewhere; the server
//	                                                   that leads the queue killed: the longest time without an answer
//	stop [--robots 50] [--rounds 5] [--cuts 10] [--json]    robots in real processes under load: until all have acknowledged a
//	                                                   stop, and until one whose link is cut has stopped by itself
//
// request, durable and failover run in processes of their own over TCP: a server, agents, the client, beside the
// loop that one would write by hand, in turns. They end with an error where an answer is missing or
// is to another request; --fault plants such a fault in the agents.
package main
