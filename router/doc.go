// Package router takes requests to where they are served, and brings the answer back
// once, or a clear error, whatever dies meanwhile. It is the way in:
//
//   - [Client] for Go programs: [Client.Infer], [Client.Act], [Client.Submit].
//   - [Service] for every other NATS client: a NATS micro service that answers plain
//     requests. docs/protocol.md describes it.
//
// Both pass on partial results and progress, before the answer, to callers who ask for
// them (Inference.OnPartial, header Fb-Stream).
//
// Neither needs a coordinator while it works: both follow the plan that the last one
// wrote.
//
// # What is promised
//
//	               training                   inference                     action
//	delivered      at least once; the         retried elsewhere within its  at most once, to the robot
//	               result is stored once      deadline; the first result    and the life of its agent
//	                                          is the answer                 that the plan names
//	stored first   record, then work, on      queue in memory, in parallel  the intent, in the journal,
//	               disk                       with the answer               before it is sent
//	of one key     the same job               only the newest counts: one   –
//	                                          is on its way, the newest
//	                                          waits beside it
//	deadline       none                       as asked, or the task's       as asked, or the task's;
//	                                                                        counted on the robot
//	its executor   begins again elsewhere     goes to the next candidate    unknown_outcome; never
//	dies                                      at once                       sent again
//	its executor   after 9 s                  after 0.2 s                   as above, at the deadline
//	hangs
//	nobody takes   it waits in the queue      not_placed, no_capacity or    not_connected: it
//	it                                        busy, early                   certainly did not run;
//	                                                                        with Queue it waits for
//	                                                                        the robot in the journal
//	too many wait  it waits in the queue      another site, or busy, at     busy
//	before it                                 once, with RetryAfter
//	it is late     –                          where the task is idempotent  –
//	                                          a second replica is asked
//	                                          too, 5 % of all at most, and
//	                                          one that has become slow
//	                                          hands it over
//	the stream is  Submit tries again, then   straight to an agent, after   unavailable: nothing was
//	away           says unavailable           0.25 s at the latest          sent
//	ctx ends       the job goes on            canceled, and its holder is   the same, but
//	                                          told                          unknown_outcome once sent
//
// Every error that these functions return is an [*messages.Error] with a code and a
// line that says what was found and what to do.
//
// # How it knows who is dead
//
// While a request is under way, its holder is asked every 20 ms whether it still has it,
// one message for all requests at an agent. "Nobody listens" means that its connection
// is closed; ten silent rounds in a row, while our own way to the server is fast, mean
// that it hangs. A request that the queue has confirmed and nobody has accepted after
// 20 ms may sit in the pull of a dead or frozen agent, so all replicas of its site are
// watched from then on. One that nobody has accepted after a quarter of a second goes straight
// where the queue delivers nothing: its consumer does not answer, nobody has a request
// and nobody pulls, or none was delivered for long. All this works on the server's default settings.
//
// # Whom it asks
//
// A queue is late binding: whoever has a free slot takes the request. A client looks
// only at whether it would come in time: once a request has waited for 20 ms, the state
// of that queue is read, at most ten times a second, and own requests since are added.
// Straight requests go to one of two of the nearest replicas that are taken at random: the
// one that is likely done sooner, by own requests there and the service time that its
// replies carry. Who was silent or away a moment ago, or failed three times in a row, or
// would be too late, is asked after the others.
//
// # How it is built
//
// What becomes of a request is decided by the pure machines of package route. Here is
// what they need: the plan (table.go), messages out and in (wire.go), the watch over
// agents (prober.go), one flight per request, which is stepped by its caller's own
// goroutine (flight.go). A request costs no goroutine, no subscription, and no timer but
// its deadline's.
package router
