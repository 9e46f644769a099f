// Package bus names the streams, consumers and buckets that fleetbus keeps in NATS,
// and holds their settings: no other package of ours has the name of one or makes
// one. It also maps what NATS returns to errors that a person can act on
// ([Explain]), opens connections with the options that all our programs need
// ([Connect]), reckons the age of a stored message on the server's clock ([Clock]), and
// keeps the time of many requests ([Alarms]).
//
// # Streams, per site
//
//   - inference: a work queue in memory, one message per (task, origin, key). A newer
//     observation takes the place of an older one that still waits.
//   - jobs: training, on disk, one message a job. A sweeper removes it after the job's end.
//   - journal: intents and outcomes of actions, on disk, for a day.
//   - mail: messages that wait for their receiver, on disk; and mailed, what became of them.
//
// # Kept once per fleet
//
//   - events: what happened, for people; bounded. Likewise joblogs: what jobs say.
//   - checkpoints: an Object Store with what jobs have done so far.
//   - buckets: desired (tasks, settings, drains), agents (registrations), placements
//     (one document an agent), lease (who leads), routes (the plan for clients), jobs,
//     data (records of named bodies), acks (who holds them).
//   - bodies: an object store.
//
// # Create if missing, never update
//
// Everything is made by whoever misses it first, and never updated by a program that
// starts: an update of a work queue has lost delayed messages before. A memory stream
// is gone when its only server restarts; the next call makes it again.
//
// The functions may be called from many goroutines. Nothing here starts one
// that stays.
package bus
