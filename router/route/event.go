package route

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// EventKind says what happened.
type EventKind uint8

// The events. Fields of [Event] that a kind does not name are ignored.
const (
	Start         EventKind = iota + 1 // the caller asks
	Published                          // the stream has the message (inference: the queue, action: the journal)
	PublishFailed                      // the stream certainly does not have it: Err
	Accepted                           // Agent holds it as Attempt
	Result                             // Agent answered Attempt: Err, or nil where it went well
	NoResponders                       // Agent had no connection when Attempt was sent, or (with Err) it could not be sent
	HolderLost                         // Agent has no connection now
	HolderHung                         // Agent is connected and silent
	Absent                             // Agent is well and does not hold the request
	Timer                              // the time of the last WakeAt has come
	Cancel                             // the caller gave up; Err says why where it is not the caller
)

// Event is one thing that happened to a request.
type Event struct {
	Kind    EventKind
	Agent   string
	Inc     messages.Incarnation // the life of Agent whose word it is; zero where that is not known
	Attempt int
	Err     *messages.Error
}

// EffectKind says what is to be done.
type EffectKind uint8

// The effects, and the fields of [Effect] that they use.
const (
	PublishWork EffectKind = iota + 1 // put it into the queue of Site as Attempt
	WriteIntent                       // write the action into the journal of Site
	SendDirect                        // send it to Agent in Site as Attempt, because of Cause; Inc where it must be that life
	ProbeOn                           // watch Agent in Site; Attempt > 0: it holds the request, 0: it may
	ProbeOff                          // stop watching Agent
	CancelAt                          // tell Agent in Site to drop it
	Finish                            // the end: Err, or the result of (Agent, Attempt) that was just stepped
	WakeAt                            // step a Timer at At; replaces the one before
)

// Cause says why a request is sent straight to an agent.
type Cause string

// The causes.
const (
	CauseFirst   Cause = "first"     // its task is delivered that way
	CauseStream  Cause = "stream"    // the queue did not take it
	CauseStuck   Cause = "stuck"     // the queue has it and delivers nothing
	CauseNoAck   Cause = "no_ack"    // the queue said nothing in time
	CauseRefused Cause = "refused"   // the agent before was busy, draining, or not serving it any more
	CauseFailed  Cause = "failed"    // the backend before failed
	CauseAway    Cause = "away"      // the agent before had no connection
	CauseLost    Cause = "lost"      // the holder lost its connection
	CauseHung    Cause = "hung"      // the holder went silent
	CauseHedge   Cause = "hedge"     // it is unusually late; the holder goes on
	CauseMissing Cause = "missing"   // the holder is well and does not have it
	CauseIntent  Cause = "journaled" // action: the journal has the intent
)

// Effect is one thing to do.
type Effect struct {
	Kind    EffectKind
	Agent   string
	Site    string
	Inc     messages.Incarnation
	Attempt int
	Cause   Cause
	Err     *messages.Error
	At      time.Time
}

// The times that the machines keep. They depend on one another and on bus and prober:
//
//   - AckWait: a stream that answers does so in well under a millisecond (R3 on disk,
//     synced: 1 ms), one without a leader not for 4 to 9 s. 250 ms is far from the
//     first and leaves most of a deadline of 1 s.
//   - SuspectAfter: an idle executor accepts within 1 ms. A request that waits longer
//     either waits for a slot, which is as it should be, or sits in the pull of an
//     agent that is dead or frozen; so the agents are watched from then on. The queue
//     itself would deliver again only after its ack wait of 300 ms.
//   - StuckEvery: a request that the queue has had for AckWait, and nobody has taken, asks
//     so often whether the queue delivers at all: when a server was killed the queue
//     may have a leader again and take requests in long before its consumer has one, and
//     before executors know that their pulls are gone.
//   - AbsentGrace: a result and the probe's answer that no longer names the request
//     leave the agent in this order but arrive on two subscriptions.
//     An action that another life of its robot refuses waits as long for the word of
//     the life that it is for, which had the same message in the same moment.
//   - AcceptWait: a request sent straight that its agent, well as it is, does not hold
//     by then was lost on the way. Its probes normally follow it on the same
//     connections and cannot overtake it; an agent that answers probes on a connection
//     of their own has this long to read a body (301 kB at 10 Mbit/s).
//   - PauseMin, PauseMax: how long a request rests when every candidate has refused. It
//     begins with the first, or with the least RetryAfter, and doubles up to the
//     second, which is short against the second in which routes change.
//   - QueueAckWait: after this time the queue delivers again what was not accepted
//     (bus.InferenceAckWait; this package cannot import it, a test compares the two).
const (
	AckWait      = 250 * time.Millisecond
	SuspectAfter = 20 * time.Millisecond
	StuckEvery   = 100 * time.Millisecond
	AbsentGrace  = 50 * time.Millisecond
	AcceptWait   = 250 * time.Millisecond
	PauseMin     = 5 * time.Millisecond
	PauseMax     = 100 * time.Millisecond
	QueueAckWait = 300 * time.Millisecond
)
