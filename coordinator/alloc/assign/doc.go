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
// on reduced costs. Where that leaves somebody out, items are put in over capacity at a
// penalty that rises, and the search moves others until the excess is gone.
//
// Then come rounds. Each begins with capacities that count for little in both directions,
// so that every item sits at its best reduced cost, and makes them count more and more,
// what is left over up to its price and what is over without end, at a low and falling
// temperature. The moves are shifts, swaps with the best partner, and ejection chains of
// three items through three bins, whose last item takes the place of the first; each item
// moves among its best options by reduced cost. Rounds grow longer and differ in heat, and
// a larger budget only continues what a smaller one did.
package assign
