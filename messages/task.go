package messages

import (
	"math"
	"slices"
	"time"
)

// Task is a service to be placed: what it needs, where it may run, how many of
// it there are to be, and what one request of it costs.
type Task struct {
	Name        string            `msgpack:"n" json:"name"`
	Class       Class             `msgpack:"c" json:"class"`
	Demand      Resources         `msgpack:"d" json:"demand"`
	Work        *float64          `msgpack:"w,omitempty" json:"work_gflop,omitempty"`      // GFLOP a request; nil: the number of Demand.Compute
	Transfer    *float64          `msgpack:"x,omitempty" json:"transfer_kbit,omitempty"`   // kbit a request; nil: the number of Demand.Storage
	Limit       float64           `msgpack:"l" json:"limit_ms"`                            // ms; the delay it must not pass; 0: none
	Cost        float64           `msgpack:"fc,omitempty" json:"cost"`                     // fixed cost per hour
	Replicas    int               `msgpack:"r,omitempty" json:"replicas"`                  // with PerFleet; 0 means 1
	Per         Per               `msgpack:"pe,omitempty" json:"per,omitempty"`            // one replica for each …
	Priority    int               `msgpack:"pr,omitempty" json:"priority,omitempty"`       // the higher keeps its place longer
	Tiers       []Tier            `msgpack:"t,omitempty" json:"tiers,omitempty"`           // where it may run; empty: everywhere
	Sites       []string          `msgpack:"s,omitempty" json:"sites,omitempty"`           // likewise
	Labels      map[string]string `msgpack:"lb,omitempty" json:"labels,omitempty"`         // labels that an environment must have
	Prefer      *Preference       `msgpack:"pf,omitempty" json:"prefer,omitempty"`         // where it would rather run; nil: no matter
	Robot       string            `msgpack:"ro,omitempty" json:"robot,omitempty"`          // pinned to this agent
	Colocate    bool              `msgpack:"co,omitempty" json:"colocate,omitempty"`       // two replicas may share an environment
	MovePrice   *float64          `msgpack:"mp,omitempty" json:"move_price,omitempty"`     // score that moving a replica must gain; nil: the coordinator's
	Interrupt   Interrupt         `msgpack:"in,omitempty" json:"interrupt,omitempty"`      // whether it may pause where old and new do not both fit
	Delivery    Delivery          `msgpack:"dl,omitempty" json:"delivery,omitempty"`       // inference: "" means Durable
	Handler     string            `msgpack:"h,omitempty" json:"handler,omitempty"`         // what serves it; "" means the task's name
	Concurrency int               `msgpack:"cc,omitempty" json:"concurrency,omitempty"`    // requests at once per replica; 0 means 1
	MaxAttempts int               `msgpack:"ma,omitempty" json:"max_attempts,omitempty"`   // 0 means DefaultMaxAttempts
	Deadline    float64           `msgpack:"dd,omitempty" json:"deadline_ms,omitempty"`    // ms a caller waits by default; 0: see CallerDeadline
	Idempotent  bool              `msgpack:"ip,omitempty" json:"idempotent,omitempty"`     // inference: a late request may be sent to a second replica as well, or handed over
	OnLinkLoss  string            `msgpack:"ll,omitempty" json:"on_link_loss,omitempty"`   // action: LinkStop ("" too), LinkContinue, or the name of a hook of the agent
	MaxBatch    int               `msgpack:"mb,omitempty" json:"max_batch,omitempty"`      // inference: requests that the handler takes at once; 0 and 1: one by one
	MaxWait     float64           `msgpack:"mw,omitempty" json:"max_wait_ms,omitempty"`    // ms that the first of a batch waits for others; 0 means DefaultMaxWait
	RetryPause  float64           `msgpack:"rp,omitempty" json:"retry_pause_ms,omitempty"` // training: ms before a job that failed is begun again, doubling; 0 means DefaultRetryPause
	RetryMost   float64           `msgpack:"rm,omitempty" json:"retry_most_ms,omitempty"`  // training: ms that this pause grows to; 0 means DefaultRetryMost
	Run         *Run              `msgpack:"ru,omitempty" json:"run,omitempty"`            // what the agent starts to serve it; nil: it has a handler
	Revision    uint64            `msgpack:"rv,omitempty" json:"revision,omitempty"`       // of the KV entry that it was read from; filled in by the reader
}

// Per says for what there is to be one replica each.
type Per string

// PerFleet: Task.Replicas in the whole fleet. PerRobot: one on each robot, pinned
// to it. PerSite: one within each site that has an environment.
const (
	PerFleet Per = ""
	PerRobot Per = "robot"
	PerSite  Per = "site"
)

// What a robot does with an action when it loses its link. LinkStop (the default): it
// cancels the running one and takes no more until it is released. LinkContinue: it
// finishes what it has, for tasks that are safe to finish without a link. Any other name
// is that of a hook in the configuration of the robot's agent, which runs after what
// LinkStop does; a task cannot say what a hook does.
const (
	LinkStop     = "stop"
	LinkContinue = "continue"
)

// GoesOn reports whether a lost link does not stop the task.
func (t Task) GoesOn() bool { return t.Class != Action || t.OnLinkLoss == LinkContinue }

// LinkHook is the hook that the task asks for when the link is lost, "" for none.
func (t Task) LinkHook() string {
	if t.OnLinkLoss == LinkStop || t.OnLinkLoss == LinkContinue {
		return ""
	}
	return t.OnLinkLoss
}

// DefaultMaxAttempts bounds how often a request or job is begun, so that a body
// that kills its executor cannot travel through the whole fleet.
const DefaultMaxAttempts = 5

// MaxReplicas and MaxConcurrency bound what one task may ask for: a typing error
// (replicas: 10000000) must not exhaust a coordinator. At most about 200 pulls may
// wait on one consumer before they slow every publish.
const (
	MaxReplicas    = 10_000
	MaxConcurrency = 200
)

// DefaultMaxWait is how long the first request of a batch waits for others where the task
// does not say: little beside the tens of milliseconds that a model worth batching takes,
// and enough for the requests that wait in the queue already to arrive. MaxBatchWait bounds
// what a task may say; no caller's deadline is meant to be spent on waiting for company.
const (
	DefaultMaxWait = 5 * time.Millisecond
	MaxBatchWait   = 10 * time.Second
)

// The pauses before a job that failed is begun again, where the task does not say: a body
// that fails at once must not spin, and what helps (a disk that is full, a dataset that is
// not there yet) takes minutes.
const (
	DefaultRetryPause = time.Second
	DefaultRetryMost  = time.Minute
)

// MaxRetryPause bounds what a task may say, ms: a day.
const MaxRetryPause = 86_400_000

// RetryAfter is the pause after the n-th attempt that failed, n from 1.
func (t Task) RetryAfter(n int) time.Duration {
	first, most := DefaultRetryPause, DefaultRetryMost
	if t.RetryPause > 0 {
		first = Millis(t.RetryPause)
	}
	if t.RetryMost > 0 {
		most = Millis(t.RetryMost)
	} else {
		most = max(most, first)
	}
	d := first
	for i := 1; i < n && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}

// WorkGFLOP is the work of one request.
func (t Task) WorkGFLOP() float64 {
	if t.Work != nil {
		return *t.Work
	}
	return t.Demand.Compute
}

// TransferKbit is what one request moves over the network.
func (t Task) TransferKbit() float64 {
	if t.Transfer != nil {
		return *t.Transfer
	}
	return t.Demand.Storage
}

// HandlerName is the handler that an agent must have to serve t.
func (t Task) HandlerName() string {
	if t.Handler != "" {
		return t.Handler
	}
	return t.Name
}

// Slots is how many requests one replica serves at once, at least 1: Lanes times Batch.
func (t Task) Slots() int { return t.Lanes() * t.Batch() }

// Lanes is how often one replica is called at once, at least 1.
func (t Task) Lanes() int { return max(1, t.Concurrency) }

// Batch is how many requests one call of a replica may serve, at least 1.
func (t Task) Batch() int { return max(1, t.MaxBatch) }

// BatchWait is how long the first request of a batch waits for others; 0 where the task
// is served one by one.
func (t Task) BatchWait() time.Duration {
	switch {
	case t.Batch() == 1:
		return 0
	case t.MaxWait > 0:
		return Millis(t.MaxWait)
	}
	return DefaultMaxWait
}

// Attempts is how often a request of t may be begun, at least 1.
func (t Task) Attempts() int {
	if t.MaxAttempts > 0 {
		return t.MaxAttempts
	}
	return DefaultMaxAttempts
}

// CallerDeadline is how long a caller that names no deadline waits: the task's
// own, else ten times its limit (a limit is the planned delay, and a queue and a
// failover must fit in too) but at least one second, else 30 s.
func (t Task) CallerDeadline() time.Duration {
	switch {
	case t.Deadline > 0:
		return Millis(t.Deadline)
	case t.Limit > 0:
		return max(time.Second, Millis(10*t.Limit))
	}
	return 30 * time.Second
}

// Normal returns t with the defaults filled in.
func (t Task) Normal() Task {
	if t.Robot != "" && t.Per == PerRobot {
		t.Per = PerFleet // pinned to one robot is one replica
	}
	if t.Per == PerFleet && t.Replicas == 0 {
		t.Replicas = 1
	}
	if t.Delivery == "" {
		t.Delivery = Durable
	}
	return t
}

// Check returns the first thing wrong with t, naming the field under the prefix.
func (t Task) Check(prefix string) error {
	t = t.Normal()
	if err := CheckName(prefix+"name", t.Name); err != nil {
		return err
	}
	if err := t.Class.Check(prefix + "class"); err != nil {
		return err
	}
	if err := t.Demand.Check(prefix); err != nil {
		return err
	}
	for _, a := range []struct {
		field, unit string
		v, hi       float64
	}{
		{"work", "GFLOP", t.WorkGFLOP(), math.MaxFloat64},
		{"transfer", "kbit", t.TransferKbit(), math.MaxFloat64},
		{"limit", "ms", t.Limit, 1e12},
		{"cost", "per hour", t.Cost, math.MaxFloat64},
		{"deadline", "ms", t.Deadline, 1e12},
		{"replicas", "", float64(t.Replicas), MaxReplicas},
		{"concurrency", "", float64(t.Concurrency), MaxConcurrency},
		{"max_attempts", "", float64(t.MaxAttempts), 1000},
		{"max_batch", "", float64(t.MaxBatch), MaxConcurrency},
		{"retry_pause", "ms", t.RetryPause, MaxRetryPause},
		{"retry_most", "ms", t.RetryMost, MaxRetryPause},
		{"max_wait", "ms", t.MaxWait, float64(MaxBatchWait / time.Millisecond)},
	} {
		if err := CheckAmount(prefix+a.field, a.v, 0, a.hi, a.unit); err != nil {
			return err
		}
	}
	switch t.Per {
	case PerFleet, PerRobot, PerSite:
	default:
		return Errorf(CodeBadRequest, "%sper: found %q, allowed are robot, site", prefix, shorten(string(t.Per)))
	}
	if t.Per != PerFleet && t.Replicas != 0 {
		return Errorf(CodeBadRequest, "%sreplicas: found %d beside per: %s, which sets the number; leave one of the two out", prefix, t.Replicas, t.Per)
	}
	if err := t.Interrupt.Check(prefix + "interrupt"); err != nil {
		return err
	}
	if t.Delivery == Direct && t.Class == Training {
		return Errorf(CodeBadRequest, "%sdelivery: found direct on a training task, whose jobs must wait in a queue; allowed is durable", prefix)
	}
	for _, tier := range t.Tiers {
		if err := tier.Check(prefix + "tiers"); err != nil {
			return err
		}
	}
	if t.Class == Action && len(t.Tiers) > 0 && !slices.Contains(t.Tiers, Robot) {
		return Errorf(CodeBadRequest, "%stiers: an action runs on a robot, found %v; add robot or leave tiers out", prefix, t.Tiers)
	}
	if err := t.Prefer.check(prefix+"prefer", t); err != nil {
		return err
	}
	if t.MovePrice != nil {
		if err := CheckAmount(prefix+"move_price", *t.MovePrice, 0, MaxScore, ""); err != nil {
			return err
		}
	}
	for _, s := range t.Sites {
		if err := CheckName(prefix+"sites", s); err != nil {
			return err
		}
	}
	if t.Robot != "" {
		if err := CheckName(prefix+"robot", t.Robot); err != nil {
			return err
		}
	}
	if t.Handler != "" {
		if err := CheckName(prefix+"handler", t.Handler); err != nil {
			return err
		}
	}
	if t.Run != nil {
		if t.Handler != "" {
			return Errorf(CodeBadRequest, "%shandler: found %q beside run, which says what serves the task; leave one of the two out", prefix, t.Handler)
		}
		if err := t.Run.Check(prefix + "run."); err != nil {
			return err
		}
		if t.Run.Kind() != ServeExec && t.Batch() > 1 {
			return Errorf(CodeBadRequest, "%smax_batch: found %d with serve: %s, which takes one request at a time; leave it out, or serve with exec", prefix, t.MaxBatch, t.Run.Kind())
		}
	}
	if t.Idempotent && t.Class != Inference {
		return Errorf(CodeBadRequest, "%sidempotent: found it on a task of class %s; only late inferences are sent twice, so leave it out", prefix, t.Class)
	}
	if err := t.checkBatch(prefix); err != nil {
		return err
	}
	if (t.RetryPause > 0 || t.RetryMost > 0) && t.Class != Training {
		return Errorf(CodeBadRequest, "%sretry_pause, retry_most: found them on a task of class %s; only jobs wait before they are begun again, so leave them out", prefix, t.Class)
	}
	if t.OnLinkLoss != "" {
		if t.Class != Action {
			return Errorf(CodeBadRequest, "%son_link_loss: found it on a task of class %s; only actions are stopped when a robot loses its link, so leave it out", prefix, t.Class)
		}
		if err := CheckName(prefix+"on_link_loss", t.OnLinkLoss); err != nil {
			return err
		}
	}
	return t.Delivery.Check(prefix + "delivery")
}

// checkBatch returns what is wrong with how t is batched.
func (t Task) checkBatch(prefix string) error {
	switch {
	case t.Batch() == 1 && t.MaxWait > 0:
		return Errorf(CodeBadRequest, "%smax_wait: found %v ms without max_batch; say how many requests may be served together (2 to %d), or leave it out", prefix, t.MaxWait, MaxConcurrency)
	case t.Batch() == 1:
		return nil
	case t.Class != Inference:
		return Errorf(CodeBadRequest, "%smax_batch: found %d on a task of class %s; only inference is served in batches, so leave it out", prefix, t.MaxBatch, t.Class)
	case t.Slots() > MaxConcurrency:
		return Errorf(CodeBadRequest, "%smax_batch: found %d with concurrency %d, which is %d requests at once per replica; allowed are %d", prefix, t.MaxBatch, t.Lanes(), t.Slots(), MaxConcurrency)
	}
	return nil
}

// Millis converts milliseconds, as the model counts, to a duration; what would
// overflow becomes the longest duration.
func Millis(ms float64) time.Duration {
	if ns := ms * float64(time.Millisecond); ns < math.MaxInt64 {
		return time.Duration(ns)
	}
	return math.MaxInt64
}
