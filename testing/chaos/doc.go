// Chaos runs a whole fleet in real processes, breaks it, and judges what its users saw:
//
//	go run ./testing/chaos --seed 1 --duration 180s    # make chaos SEED=1 DURATION=180s
//	go run ./testing/chaos --soak --duration 20m       # make soak DURATION=20m
//
// Three NATS servers, two coordinators, two routers, six agents and three clients are
// processes of their own, and each but the servers has a link of its own to them that can
// be stalled and severed. The clients ask for all three classes, through the library and
// through the routers' door, and two of them put a body that all agents are to hold; the
// agents send each other messages. Meanwhile processes are killed, frozen and restarted and
// links are cut, as a seed says (--list prints the schedule): one fault at a time among
// the servers, one among the agents, one among the others. At most one server is down,
// and the next one goes only when all replicas of all streams are current.
//
// After the load, what was acknowledged has its time to arrive: jobs end, messages come, and
// a last body reaches everybody.
//
// Clients and executors write histories, which survive the SIGKILL of their writers, and
// package check judges them. The last line is one JSON object. The exit status is 1 where
// a rule was broken or the run was too small to prove anything; histories and logs are
// kept then. --plant plants a fault of each kind, which must be found.
//
// A soak has the load without the faults, and samples the goroutines and the heap of
// every process: see [judgeTrend] for what counts as flat.
package main
