// Command bench runs the benchmarks of fleetbus: `go run ./testing/bench NAME [flags]`,
// a table for people, or with --json one object a line for programs.
//
//	balance [--case mixed80,one-gpu,uplink10] [--seed 1] [--rounds 6] [--time …] [--uneven 0] [--json]
//	                                                   who serves what: misses against a twin that knows everything, and against one that
//	                                                   learns as agents do (miss_pct_learning); eight robots on one
//	                                                   GPU (both in virtual time: no machine is too busy for them), and a camera on a
//	                                                   10 Mbit/s uplink
//	gap [--time 1s] [--best best.csv] [--json] FILE…   the allocation engine on public instances
//	multi [--time 1s] [--seeds 3] [--items 0] [--update FILE] [--json]
//	                                                   the same on own instances with three resources
//	placement [--environments 10000] [--replicas 30000] [--seed 1] [--runs 0] [--clouds tight] [--growth] [--json]
//	                                                   a whole fleet: a plan, and its repair when an edge dies
//	request [--time 8s] [--case …] [--json]            straight requests, and through a router, against core request-reply
//	durable [--time 15s] [--json]                      inference through the queue, against a pull loop written by hand
//	failover [--kills 30] [--leader-kills 1] [--case …] [--json]
//	                                                   agents killed and frozen: until the answer from elsewhere; the server
//	                                                   that leads the queue killed: the longest time without an answer
//	openpi [--time 50s] [--clients 8] [--rate 15] [--kill 10s] [--json]
//	                                                   policy clients through the gateway, while backends are killed, against direct WebSocket
//	oip [--time 15s] [--json]                          the conformance run of the Open Inference Protocol through the gateway, and what it
//	                                                   costs against direct HTTP
//	exec [--time 20s] [--json]                         a child process in Python against a Go handler, alone and in a fleet
//	jobs [--time 12s] [--case loop,asynq] [--json]     jobs from submission to result, 64 under way: against a loop written by
//	                                                   hand that stores work and result, and against asynq on Redis (peers/; make deps)
//	powercut [--time 8s] [--case default,always] [--json]
//	                                                   jobs acknowledged and lost when the server's machine loses power; as root, on Linux
//	stop [--robots 50] [--rounds 5] [--cuts 10] [--json]    robots in real processes under load: until all have acknowledged a
//	                                                   stop, and until one whose link is cut has stopped by itself
//	sync [--environments 20] [--away 5] [--mb 200] [--json]
//	                                                   named data to environments in processes, some of which are away or killed in the
//	                                                   midst of it: until all hold it, the bytes that took, memory, and what others feel
//	deploy [--agents 5] [--mb 200] [--json]             an artifact to agents in processes, one of which is killed in the midst of it: until
//	                                                   all their models serve, bytes, memory; then all are killed: what is left, for how long
//	heartbeat [--agents 50000] [--seconds 20] [--json]  what the beats of a fleet cost a coordinator
//	acks [--agents 1000] [--away 50] [--json]           one apply that touches all, until all have confirmed it
//
// # The own set
//
// multi generates its instances from type, size and seed; multi.csv, which is built in,
// says what is known of each: a checksum of the instance, so that a generator that has
// changed is noticed, the cost of the best plan that was ever found, and the highest
// bound. The optimum lies between the two. Beside the gap to its own bound, which
// certifies a plan, a run prints the gap to the best cost, and says where it found a
// better cost or bound. A plan that is none, a cost under a bound, and a checksum that
// does not hold are errors.
//
// With --update FILE a run compares with FILE and keeps there what is better, instance by
// instance; what it does not solve stays. One that finds another checksum there begins
// that instance anew. The set was made, and is bettered, by
//
//	go run ./testing/bench multi --time 6s --update testing/bench/multi.csv
//
// powercut keeps the server's store on a file system of its own, in a file, and shuts it down under
// the server without writing its journal (FS_IOC_SHUTDOWN, with which file systems are tested),
// mounts it again and starts the server on what is left. It shows what is lost of what was not
// synced. It does not show disks that say that they have written what they have not.
//
// request, durable, jobs and failover run in processes of their own over TCP: a server, agents, the client, beside the
// loop that one would write by hand, in turns. They end with an error where an answer is missing or
// is to another request; --fault plants such a fault in the agents.
package main
