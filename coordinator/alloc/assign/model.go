package assign

// Resources is how many capacities a bin has. Those that nobody needs cost nothing.
const Resources = 3

// Instance is a problem. It is not changed by solving.
type Instance struct {
	// Capacity is what each bin has of each resource, 0 or more, in any unit.
	Capacity [][Resources]float64
	// Open is the price of each bin, 0 or more, paid once as soon as anything is in
	// it. Nil: nothing costs anything.
	Open []float64
	// Items are to be put in bins.
	Items []Item
}

// Item is one thing to be placed, whole, in one bin.
type Item struct {
	// Options are the bins that it may go to, each bin at most once, in any order. An
	// option whose need is over the capacity of the bin is never taken. None: it waits.
	Options []Option
	// Apart is a group, 1 or more: two items of one group never share a bin. 0: none.
	Apart int
	// Wait is what it costs to leave the item out, 0 or more. 0 stands for more than
	// any plan can save, so that as many as possible are placed.
	Wait float64
}

// Option is an item in a bin.
type Option struct {
	Bin  int                // index into Capacity
	Cost float64            // of either sign
	Need [Resources]float64 // 0 or more, in the units of Capacity
}

// Options say how to solve. The zero value is right for a full solve with
// [DefaultBudget].
type Options struct {
	// Budget is the number of steps, each about as long as a comparison of an item with
	// a place; 0 is DefaultBudget. The prices and the first plan are made in any case.
	Budget int
	// Stop is asked every few thousand steps; true ends the search, and the best plan so
	// far is returned. Nil: only the budget ends it. With it, results depend on when it
	// says so.
	Stop func() bool
	// Improved is told of every better plan, the first included: its objective, and how
	// many wait in it. Nil: nobody wants to know.
	Improved func(objective float64, waiting int)
	// Start is a plan to start from, a bin or -1 per item; a bin where the item cannot be
	// stands for -1. Nil: from nothing.
	Start []int
	// MovePrice, 0 or more, is added to the cost of every item that is not where Start
	// has it, unless that is nowhere.
	MovePrice float64
	// Prices are those of an earlier result for the same or nearly the same bins. Nil:
	// from zero.
	Prices [][Resources]float64
}

// DefaultBudget is a budget that takes about a second of one core.
const DefaultBudget = 20_000_000

// Result is a plan.
type Result struct {
	// Assign is the bin of each item, -1 where it waits.
	Assign []int
	// Cost is the sum of the costs of those that are placed and of the bins that are
	// open. Objective is that, and the price of what moved, and of those that wait.
	Cost, Objective float64
	// Bound is at most the Objective of any plan.
	Bound float64
	// Waiting is how many items wait. Feasible says that there are none.
	Waiting  int
	Feasible bool
	// Prices are per unit of each resource of each bin, 0 or more.
	Prices [][Resources]float64
	// Steps is how much of the budget was used.
	Steps int
}
