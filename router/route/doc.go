// Package route decides what becomes of a request: whom to ask, when to ask somebody
// else, when to give up, and with which answer. It is pure: no clock, no network, no
// goroutine, no randomness. The router's shell feeds events with the time they came at
// and performs the effects that it gets back, so every order in which replies, losses,
// timers and cancellations can arrive can be tested without a server.
//
//   - [Machine] is one inference request: a queue first, then, where that fails, one
//     agent after the other, until there is an answer or the deadline.
//   - [Action] is one action: journal, send, accepted, outcome; sent at most once.
//   - [Candidates] and [Site] order the replicas of a task.
//   - [Health], [Backlog] and [Hedge] are what a client remembers of a replica, a queue
//     and a task, to choose well, to refuse early and to ask twice.
//   - [Newest] keeps, per key, one observation on the wire and the newest beside it.
//
// # What always holds
//
//   - A request has exactly one [Finish], at its deadline at the latest; after it
//     nothing is asked for but [CancelAt].
//   - An action is sent at most once, and only after its intent is in the journal.
//     Where it may have run and nobody knows, it ends as unknown_outcome.
//   - An inference is begun at most Params.Attempts times. What was certainly not begun
//     (no responders, a refusal before it was accepted) does not count.
//   - It is asked of a second agent while the first goes on (a hedge) at most once, and
//     only where Params.MayHedge says so.
//   - The first result that arrives is the answer, whichever attempt it is of.
//
// Values of these types belong to one goroutine at a time.
package route
