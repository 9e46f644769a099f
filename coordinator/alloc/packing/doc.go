// Package packing solves small assignment problems to within a fraction of a percent, and
// certifies it, where bins are so small that a handful of items fills one: a robot, an
// edge box. It takes the [assign.Instance] of package assign, and is pure like it: no I/O,
// no clock, no goroutine, no state between calls.
//
// # How
//
// Prices per unit of capacity, which package assign bounds by, pretend that an item could
// be cut in two; of a bin that holds three items and a half, that is far from the truth.
// Here a plan is a choice of whole packings: sets of items that fit into a bin together,
// at most one for each bin, so that every item is covered or stays outside at its price
// of waiting. Its linear programme is solved by column generation (Dantzig and Wolfe,
// 1960; for this problem Savelsbergh, 1997): the simplex method over the packings known
// so far gives every item a value, and for each bin a knapsack problem finds the packing
// that is worth most at these values, until none is worth its bin. Equal items are one row
// with a count.
//
// Any values give a bound: the sum of what items are worth, less what each bin can gain.
// Plans come from a branch and bound: what the programme does by halves is decided one way
// and the other, first how many items are outside, then which bins with an opening price are
// in use, then how many of a kind are in a bin. In every part of all plans that it looks at,
// the packings that the programme wants most make a plan, and who remains is put where it
// costs least.
//
// The work grows with the third power of the size: it is for parts of a fleet, and bounded.
package packing
