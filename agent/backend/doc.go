// Package backend says what serves a task on an agent. A [Handler] offers a name; the
// agent opens it when a replica whose task asks for that name is placed there, and
// sends requests to the [Server] that it returns until the replica is stopped.
//
// Packages below this one are the kinds that fleetbus ships: execio (a child process
// on stdin and stdout), httpio (a model server that speaks HTTP), openpi (a policy server)
// and simulate (the service time of the model). [Func] makes a handler of a Go function.
// Package deploy starts what tasks bring and serves it with these; proc runs processes for it.
// backendtest is the suite that all of them pass.
//
// A [Server] that is a [Dying] says when its model is gone, a [Describer] what its model
// server says of itself, a [Batcher] that it takes several requests with one call.
package backend
