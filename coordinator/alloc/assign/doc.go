// Package assign solves the sparse generalised assignment problem with several
// resources: every item goes to one bin of its few options, at a cost and with a need
// that depend on the pair, so that no bin is over its capacity in any resource and the
// sum of the costs is small. It is the core of package alloc, where items are replicas
// and bins are environments, but it knows neither.
//
// The package is pure: no I/O, no clock, no goroutine, no state between calls. Effort
// is a count of steps ([Options.Budget]); a deadline comes from outside, as a function
// ([Options.Stop]). Equal instances with equal budgets give equal results, in whatever
// order the items and their options stand, and a larger budget never gives a worse
// one. Every function may be called from several goroutines at once.
//
// # How
//
// Prices for the capacities come from the Lagrangian dual, by a deflected subgradient:
// they bound the cost from below, and cost + price · need, the reduced cost, says what
// an item really takes where capacity is dear. A first plan is constructed by regret
// on reduced costs. Where that leaves somebody out, items are put in over capacity
// at a penalty, and the search moves others until the excess is gone. Then rounds of
// search improve the plan: shifts, swaps and ejection chains among the best options of
// every item by reduced cost, at a falling temperature, over capacity at a penalty that
// adapts so that the search goes back and forth over the edge of feasibility, where the
// good plans are. Each round is longer than the last, so that a larger budget only
// continues what a smaller one did.
package assign
