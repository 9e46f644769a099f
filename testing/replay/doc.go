// Command replay plays an hour of real requests against a fleet, by several ways to place
// its services, and says what each comes to: how much of the compute is used, how long
// requests take, what it costs, and how many deadlines are missed. `make replay` writes
// the table into the README and draws docs/replay.svg; a test compares both with what the
// program makes.
//
//	go run ./testing/replay [--hour calm,rough] [--case all-cloud,…] [--seed 1] [--trace FILE] [--json] [-v]
//
// Time is virtual, chance comes from the seed: equal arguments give equal figures, on
// however many cores. A run is checked before its figures count; see check.go.
//
// # What is real
//
// Who runs where is decided by the coordinator's own machine, [placement.Machine] with its
// default calm and settings, and so by package alloc: placed, moved make-before-break with
// dwell, margin and budget, from heartbeats once a second. Who serves a request is decided
// by package route: sites, queues that refuse early, candidates, retries, the times of a
// request's life; ten routers, each with its own memory. Around them stand shells that
// mirror those of packages coordinator, router and agent without NATS: queues give the
// oldest message to the nearest pull, agents pull as many as they have slots free, refuse
// what they cannot finish, and smooth what their beats say as package agent does.
//
// # What is played
//
// The trace is an hour of requests to a language model in Azure (trace/NOTICE.md), which is
// built in. Each of ten robots sends all of it, at a phase of its own within a minute:
// 193,660 requests. What a request asks follows from its tokens of context, as its caller
// knows them, and its work from all its tokens:
//
//	reflex  up to 400     0.2 GFLOP a token (a model of 0.1 billion parameters)   within 100 ms   sent straight
//	see     up to 1,200   2 GFLOP (1 billion)                                     within 250 ms   by the queue
//	study   the rest      6 GFLOP (3 billion)                                     within 1 s      by the queue
//
// The fleet is that of configs/ten-robots.yaml: a cloud, billed by share, ten edge boxes and
// ten robots, billed whole. Robots are sites of their own, the rest is the site main. Each
// service has ten replicas with one slot; the planner is told the means of the hour.
//
// A machine gives all of its compute to what it serves, in equal parts, so that a request
// alone takes what the model says. To a machine and back it takes its latency, bodies are
// four bytes a token, and another robot's machine is 10 ms further, of which the plan knows
// nothing.
//
// # The cases
//
//   - all-cloud and all-edge: the services may only run on that tier.
//   - all-cloud-each: every robot has a whole cloud of its own, as in the model's comparison.
//   - hybrid-…: each robot serves its own reflexes, as its actions in the model; all else runs
//     where the plan puts it, and moves as the mode allows:
//     static places once, and again only what was on a machine that is lost;
//     dynamic also moves away from machines whose load, as rates times work and what others
//     use, is over what may be planned;
//     adaptive also counts the service times that agents measured in place of modelled ones;
//     adaptive-20 is that with a move_price of 20 on each task, about ten times what a move
//     costs else.
//
// In the calm hour every machine does what it declares. In the rough hour half of the edge
// boxes, those that plans fill first, meet one trouble of each kind: others take 60 of their
// 100 TFLOPS, for ten minutes, and they say so; they run at 40 % of what they declare, for
// fifteen, and nobody is told; and the first one is killed and is back after five. After
// that every cloud is gone for two minutes, as when an uplink is cut.
//
// # The figures
//
//   - used of paid: work that was served, of the compute that is paid for: a machine that is
//     billed whole while anything is placed there, else the share that its replicas hold.
//   - of machines: the same of the whole machines on which anything is placed.
//   - mean, p50, p99: from the call to the answer. Who got none in time counts with its
//     deadline, so that losing the slow ones makes nothing look quick.
//   - cost/h: what is paid, by the formulas of the plan, over the hour.
//   - missed: not answered in time. refused: those of them that were told so before that.
//   - moves: replicas that changed their machine.
package main
