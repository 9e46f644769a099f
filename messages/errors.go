package messages

import (
	"errors"
	"fmt"
	"time"
)

// Code names the reason of an error on the wire. Codes are only ever added: a
// program that meets one it does not know treats it as internal.
type Code string

// The codes. Each says what a caller should do: see [Code.Advice].
const (
	CodeNoCapacity      Code = "no_capacity"       // the task is placed nowhere for lack of room
	CodeNotPlaced       Code = "not_placed"        // the task is known, no replica of it is ready yet
	CodeNotFound        Code = "not_found"         // no such task, agent or job
	CodeDeadline        Code = "deadline_exceeded" // no answer within the caller's deadline
	CodeExpired         Code = "expired"           // an executor got it after its time and did not run it
	CodeBusy            Code = "busy"              // refused early; RetryAfter says when to try again
	CodePayloadTooLarge Code = "payload_too_large" // the body is over the server's max_payload
	CodeBadRequest      Code = "bad_request"       // malformed; sending it again does not help
	CodeBackendFailed   Code = "backend_failed"    // the user's handler returned an error or died
	CodeUnknownOutcome  Code = "unknown_outcome"   // an action may or may not have run; look before acting again
	CodeUnauthorized    Code = "unauthorized"      // NATS refused the credentials or the subject
	CodeSuperseded      Code = "superseded"        // a newer observation of the same key took its place
	CodeNotConnected    Code = "not_connected"     // the robot that an action names is not there
	CodeStale           Code = "stale"             // old episode, sequence, incarnation or term: refused, not run
	CodeDraining        Code = "draining"          // the agent finishes its work and takes no more
	CodeCanceled        Code = "canceled"          // the caller gave up
	CodeUnavailable     Code = "unavailable"       // no NATS server, or JetStream does not answer
	CodeConflict        Code = "conflict"          // somebody else changed it first
	CodeInternal        Code = "internal"          // a defect of fleetbus, or a code newer than this program
	CodeStopped         Code = "stopped"           // the robot was stopped, or lost its link, and takes no actions until it is released
)

// Advice is what a caller should do about an error.
type Advice uint8

// The advices.
const (
	Stop           Advice = iota // do not send it again
	RetryHere                    // the same request may succeed later, at the same place
	RetryElsewhere               // another replica may answer it now
)

func (a Advice) String() string {
	return [...]string{"stop", "retry here", "retry elsewhere"}[min(a, RetryElsewhere)]
}

// Advice returns what a caller should do about an error of this code.
func (c Code) Advice() Advice {
	switch c {
	case CodeNoCapacity, CodeNotPlaced, CodeBusy, CodeNotConnected, CodeUnavailable, CodeConflict:
		return RetryHere
	case CodeBackendFailed, CodeDraining:
		return RetryElsewhere
	}
	return Stop
}

// Codes lists every code, in the order in which they were added.
func Codes() []Code {
	return []Code{CodeNoCapacity, CodeNotPlaced, CodeNotFound, CodeDeadline, CodeExpired, CodeBusy, CodePayloadTooLarge,
		CodeBadRequest, CodeBackendFailed, CodeUnknownOutcome, CodeUnauthorized, CodeSuperseded, CodeNotConnected,
		CodeStale, CodeDraining, CodeCanceled, CodeUnavailable, CodeConflict, CodeInternal, CodeStopped}
}

// Known reports whether this program knows the code.
func (c Code) Known() bool {
	for _, k := range Codes() {
		if k == c {
			return true
		}
	}
	return false
}

// Error is the one error type that crosses the wire and reaches users.
type Error struct {
	Code       Code          // what kind
	Message    string        // one line: what was found, what is allowed, what to do
	RetryAfter time.Duration // with busy: how long to wait; 0 where not known
}

// Errorf makes an [*Error] of the code with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Is makes errors.Is(err, &Error{Code: c}) compare by code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// CodeOf returns the code of err: "" for nil, internal for an error that is not
// an [*Error].
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// AsError returns err as an [*Error]; an error of another type becomes one of
// the code given. It returns nil for nil.
func AsError(err error, code Code) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: code, Message: err.Error()}
}
