// Package check judges the histories of a fleet under faults. It is apart from what it
// judges: of fleetbus it knows the names of classes and error codes and nothing else. It
// sees what the users on both ends saw, clients and executors, and who was killed when.
//
// Its rules are those of package history made for faults. There a request is lost
// unless it is answered or refused early; here machines die, and a request may end as
// its deadline says, as long as it ends in exactly one way that is true.
//
// Records of different processes are compared by the wall clock of the one host that all
// of them run on, with [Slack] where it matters; whoever steps that clock during a run
// makes the verdict on late actions worthless.
package check
