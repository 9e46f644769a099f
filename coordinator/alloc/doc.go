// Package alloc decides which replica of which task runs on which environment. It
// is the pure optimiser of fleetbus: no I/O, no clock, no randomness, no shared
// state, so that equal problems give equal plans, in whatever order their parts
// stand. Every function may be called from several goroutines at once.
//
// # The model
//
// For a task j on an environment i (units as in package messages):
//
//	delay = work_j / compute_i + transfer_j / network_i + latency_i     ms
//	cost  = price_i · compute_j / compute_i + cost_j                    per hour
//	score = weight_latency · delay + weight_cost · cost + penalty       lower is better
//
// The penalty is 0 without a preference that is not met (see [messages.Preference]), and
// in mode adaptive a delay that was measured stands in place of the formula. A
// whole-billed environment costs its price in full, once, as soon as anything is
// placed there. A plan puts every replica on one environment, keeps the sum of
// the demands within (1 − reserve) · capacity − foreign use for compute, storage
// and network alike, passes no limit, and has a small total score.
//
// # Who waits
//
// What fits nowhere is in [Plan.Waiting], with the reason for every environment
// and the smallest change that would place it. Where there is a choice, the lower
// priority waits, then the looser limit; among equals as many as possible are
// placed, and the last by id wait. Whoever stands higher in that order never waits
// for the sake of whoever stands lower, but may have to move aside for it.
//
// # How
//
// [Solve] builds a first plan by regret: the replica that would lose most by not
// getting its best environment chooses first. What then waits is placed by moving
// others aside where that is possible, and shifts, swaps, and the opening and closing
// of whole-billed environments improve it.
//
// Then the fleet is divided. Environments that hold many replicas are hubs, described by
// prices for their capacities; what the others tie together is a cell, mostly a site,
// which package packing solves nearly exactly at these prices. Who leaves the cells is
// put on the hubs by the search of package assign, which gives new prices. What that
// leaves open, or a budget asks for, the same search improves over all. Of two plans the
// better one is taken, so that effort never makes a plan worse. The order of who waits is
// the first plan's, and the search may only place more.
//
// [Plan.Bound] certifies the plan: no plan that places the same replicas scores less.
// It is the largest of three bounds: by what everybody would pay alone, by the prices of
// the capacities, and by what the cells cost at least at the prices of the hubs; after a
// repair the last one alone, where there is one.
//
// [Repair] changes the plan in force by as little as it can where the fleet changes,
// and a [Solver] does so in milliseconds for a fleet of thousands. Who moves away from its
// [Problem.Current] environment must gain the price of that: each replica has its own.
package alloc
