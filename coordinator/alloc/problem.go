package alloc

import "github.com/fleetbus/fleetbus/messages"

// Problem is one allocation to solve. Order never matters: permuted problems give
// equal plans.
type Problem struct {
	Environments []Environment
	Replicas     []Replica
	Settings     messages.Settings

	// Current is the environment of each replica in the plan that is in force, by
	// replica id; a replica that is absent has none.
	Current map[string]string
	// MovePrice is added to the score of a replica that leaves its Current environment,
	// where neither the replica nor its task says another.
	MovePrice float64
	// Measured are delays that were measured, ms. In mode adaptive they stand in place of
	// the modelled ones, for the score and for the limit; in other modes nothing reads
	// them. Whoever measures decides what is enough to be believed.
	Measured map[Pair]float64
}

// Environment is an environment as the plan may use it.
type Environment struct {
	messages.Environment
	Foreign messages.Resources // what others use of it; its free capacity is the rest
	// Closed says why nothing may be placed here ("draining", "lost"); "" means open.
	Closed string
}

// Replica is one replica to place.
type Replica struct {
	ID   string
	Task messages.Task
	Pin  string // the only environment that it may run on; "" means any
	Site string // the only site that it may run in; "" means any

	MovePrice *float64 // score; nil: that of the task, else of the problem
}

// Plan is a solution. All slices are sorted by replica id.
type Plan struct {
	Assignments []Assignment
	Waiting     []Waiting

	Delay   float64 // Σ delay of the assigned, ms
	Cost    float64 // Σ cost, per hour, whole-billed environments counted once
	Penalty float64 // Σ penalty of preferences that are not met
	Score   float64 // weight_latency · Delay + weight_cost · Cost + Penalty
	Bound   float64 // no plan that places the same replicas scores less

	Prices Prices // of the capacities; nil where none is scarce
}

// Assignment places a replica.
type Assignment struct {
	Replica     string
	Task        string
	Environment string
	Delay       float64 // ms; the measured one where it counts
	Cost        float64 // per hour, by share of the formula; with whole billing the first replica (by id) carries the price
	Penalty     float64 // score, for what it prefers and has not got
}

// Waiting is a replica that fits nowhere.
type Waiting struct {
	Replica string
	Task    string
	Reasons []Reason // per environment, sorted by environment
	Fix     string   // the smallest change that would place it, for people
}

// Reason is why a replica cannot run on an environment.
type Reason struct {
	Environment string
	Constraint  Constraint
	Need, Have  float64 // in the constraint's unit; 0 where it has none
	Text        string  // one line for people: what is needed, what there is
}

// Constraint names what stands in the way.
type Constraint string

// The constraints.
const (
	ConstraintCompute Constraint = "compute" // TFLOPS
	ConstraintStorage Constraint = "storage" // GB
	ConstraintNetwork Constraint = "network" // Mbps
	ConstraintLimit   Constraint = "limit"   // ms
	ConstraintTier    Constraint = "tier"
	ConstraintSite    Constraint = "site"
	ConstraintLabels  Constraint = "labels"
	ConstraintPinned  Constraint = "pinned"  // to another environment
	ConstraintApart   Constraint = "apart"   // another replica of the task is there
	ConstraintHandler Constraint = "handler" // the agent has no such handler
	ConstraintClosed  Constraint = "closed"  // draining, lost
	ConstraintCost    Constraint = "cost"    // beyond what a plan can weigh
)
