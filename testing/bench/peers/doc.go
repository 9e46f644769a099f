// Command peers plays the part of another product in `go run ./testing/bench jobs`: a
// worker, or a client, of asynq. It is a module of its own, so that what those products
// need is not among what fleetbus needs, and runs in processes of its own.
//
//	peers worker ADDRESS MANY           executes tasks out of Redis until its input ends
//	peers client ADDRESS MANY BYTES     for each line with a number of milliseconds on its
//	                                    input: keeps MANY tasks under way for so long, and
//	                                    prints how many ended, and in what time
//
// The client waits for the result as it would be done by hand: the worker publishes the
// task's id when the result is stored, and the client, which has subscribed, takes it.
package main
