// Package agent runs on every robot, edge box and cloud node of a fleet: it announces
// what the machine has, runs the tasks that the coordinator places there, and serves
// their requests.
//
//	agent.New(nc, agent.Config{Fleet: "factory", Environment: env}, handlers...).Run(ctx)
//
// A handler serves the tasks that name it: a Go function ([Func]), a child process
// (package backend/execio), the service time of the model (package backend/simulate),
// or anything that implements [Handler]. Tasks that bring what serves them are for a
// [Deployer] (package backend/deploy), which an agent has where its owner gives it one. Run blocks until ctx ends; [New] starts
// nothing.
//
// # How requests come
//
// An action whose caller asked for it waits in the journal for a robot that is away. The
// robot takes it when it is back, before it executes it, and what is older than its time or
// its last release it refuses.
//
// An inference or training request waits in the server's queue until a replica has a
// free slot; of several replicas the nearest one with a free slot has it. A replica
// never holds what it cannot serve. An action, a retry, and every request of a task
// with direct delivery comes straight to the agent, and is refused with busy where no
// slot is free. Both ways share the slots (Task.Slots).
//
// A task with max_batch is served in batches: the handler, a [Batcher], gets with one call
// what came within max_wait, up to max_batch requests. While it is called, nothing more is
// taken.
//
// While it runs, a handler may send parts of its answer and report how far it is
// (Request.Partial, Request.Progress); they reach the callers who ask for them.
//
// What is promised, by class:
//
//   - Inference runs at least once if it is answered: where an agent or a connection
//     dies it may run again elsewhere. Its time counts from when the server stored it.
//     An observation older than the newest of its key is not run.
//   - An action runs at most once: it is refused unless it names this life of the agent
//     and counts up within its episode. Its outcome is in the journal before it is
//     answered. What may have waited unseen in a cut or frozen connection is expired.
//   - A training job runs at least once and its result is stored once: its record is
//     changed by compare and set only, and the job leaves the queue when the result is
//     in the record. A failed attempt is begun again, here or elsewhere, with a growing
//     pause, up to Task.MaxAttempts times. The record counts every beginning, also one
//     that ended because its agent did.
//
// # What a handler must do
//
// It returns when its context ends: at the request's deadline, when the caller gives
// up, when the agent must leave. An error that is a [*messages.Error] reaches the
// caller as it is, any other and a panic as backend_failed. Results over the server's
// max_payload become payload_too_large. OnServe, Foreign and handlers are called from
// many goroutines.
//
// # Faults
//
// The agent serves without a coordinator: it reads its own placement document when it
// starts, and keeps the last one. After a server's restart it announces itself at
// once, makes missing streams and consumers again, and goes on. Of two processes with
// one agent id the newer one wins, and the older one's Run returns an error with code
// conflict. A handler that does not open, or dies, is opened again with growing pauses.
// Malformed messages are counted ([Agent.Counts]), logged at most once a minute per
// kind, and dropped.
//
// # Stops
//
// A robot (an agent of that tier) can be stopped by an operator: actions that run end,
// new ones are refused with code stopped, until it is released. It hears that on a
// connection of its own (Config.SafetyConn), and holds it over restarts
// (Config.StateDir). When its own pings there fail, 250 ms × 2, it does as the tasks'
// OnLinkLoss says: stop (the default), continue, or a hook of Config.LinkHooks; then only
// a release, or Config.ReEngage, makes it act again. Package agent/latch decides, this
// one acts. It supplements a hardware stop and never replaces it: a handler that ignores
// its context goes on.
//
// # Leaving
//
// When ctx ends, heartbeats say that the agent drains. It serves on until the
// coordinator has moved its replicas or Config.HandoverWait is over, then takes nothing
// new, finishes what it has, says goodbye and returns nil. Before Config.DrainTimeout
// is over it ends the contexts of what still runs: jobs go back to the queue, inference
// is answered with draining so that its caller goes elsewhere, actions with
// unknown_outcome. A handler that ignores its context is left behind, and Run returns
// an error that names it: the program should exit.
//
// # Memory
//
// Large bodies are garbage soon, and with a small heap they have Go collect all the time.
// `fleetbus agent` keeps Go from it; in a program of your own set GOGC, or debug.SetGCPercent.
package agent
