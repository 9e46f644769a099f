// Package placement decides, event by event, which agent is to run what. It is the
// coordinator's heart and it is pure: no I/O, no clock, no randomness, no goroutine.
// [Machine.Step] takes the time and one [Event] and returns [Effect]s for the shell to
// perform, in order: what is to be saved first, then what is to be sent, then records
// and the time of the next wake. Equal histories give equal effects, so that a
// transcript is a test and a seed is a bug report.
//
// One goroutine owns a Machine.
//
// # What it keeps
//
//   - Agents: ready, draining, stale, lost, by evidence (see evidence.go).
//   - Replicas: each has at most one home, which serves; while it moves also a next,
//     which loads; and leftovers, which finish what they have and stop.
//   - One document for each agent: saved, then sent, then sent again until the agent
//     confirms it (docs.go).
//   - Rollouts: new versions of tasks on their way (rollout.go).
//   - Trails: the last decisions about each replica and agent, with their reasons
//     (history.go, explain.go).
//   - Routes: what clients need to know of all that (routes.go).
//
// # What it promises
//
//   - Nothing is placed where it does not fit: while a replica moves it counts on both
//     sides, and a leftover counts until it has stopped.
//   - Make before break: a home that serves is drained only when its successor is ready;
//     where both do not fit it is stopped first only if its task allows that.
//     What cannot serve any more (lost, failed, stopped) is replaced without waiting.
//   - A lost agent is in no route from the Step that declares it lost.
//   - An election moves nothing: the new leader adopts what is there and gives the same
//     documents out again under its own term.
//   - A new version that fails takes nothing down.
//   - An agent that comes and goes is left, once, and not trusted again before it is steady.
//   - Nothing comes to an agent of which it is not known what it still runs.
//   - Whoever waits, and whoever moves, has a reason.
//
// A Machine that does not lead folds all events, so that it is warm when it is
// elected, and returns no effects but WakeAt.
package placement
