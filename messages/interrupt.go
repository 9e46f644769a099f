package messages

// Interrupt says whether a replica may be stopped before its successor serves, where
// both do not fit at once: one GPU, or one robot that it is pinned to.
type Interrupt string

// InterruptPinned, the default: a replica that is pinned to one environment may pause
// for a new version of its task, because there is no other way, and nothing else may.
// InterruptAllow: every replica of the task may pause. InterruptNever: none may; what
// would need it waits, and says so.
const (
	InterruptPinned Interrupt = ""
	InterruptAllow  Interrupt = "allow"
	InterruptNever  Interrupt = "never"
)

// Check returns an error that names field unless i is one of the interrupts.
func (i Interrupt) Check(field string) error {
	switch i {
	case InterruptPinned, InterruptAllow, InterruptNever:
		return nil
	}
	return Errorf(CodeBadRequest, "%s: found %q, allowed are allow, never, or nothing for replicas that are pinned only", field, shorten(string(i)))
}

// Service is the part of t that a handler and the serving of it depend on: where two
// versions of a task have equal Services, a replica that was opened for one serves the
// other, too. The list is of what does not matter, so that a new field restarts
// replicas rather than being overlooked.
func (t Task) Service() Task {
	work, transfer := t.WorkGFLOP(), t.TransferKbit()
	t = t.Normal()
	t.Work, t.Transfer = &work, &transfer
	t.Handler, t.Concurrency, t.MaxAttempts = t.HandlerName(), t.Lanes(), t.Attempts()
	t.MaxBatch, t.MaxWait = t.Batch(), float64(t.BatchWait())
	t.Demand, t.Cost, t.Replicas, t.Per, t.Priority = Resources{}, 0, 0, "", 0
	t.Tiers, t.Sites, t.Labels, t.Robot, t.Colocate = nil, nil, nil, "", false
	t.Limit, t.Deadline, t.Revision, t.Interrupt, t.Prefer, t.MovePrice = 0, 0, 0, "", nil, nil
	t.Idempotent = false // routers alone read it
	return t
}
