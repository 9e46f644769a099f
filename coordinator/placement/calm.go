package placement

import "time"

// Calm holds the times and bounds that keep the fleet steady. The zero value of a field
// means its default, and only tests have a reason to change one. The defaults depend on
// one another.
type Calm struct {
	// LostAfter is how long an agent may be silent: three beats at their latest (1 s and
	// 10 % splay each) and 0.2 s for the network. It is also the window of the blindness
	// gate: how long the own link must have been up before silence means anything.
	LostAfter time.Duration
	// Beat is the longest time between two beats of an agent that is well: 1 s, 10 %
	// splay, 0.1 s for the network. After a closed connection or no-responders an agent
	// has this long to show that it lives: a living one beats within it.
	Beat time.Duration
	// StaleAfter is the age of the data connection's last round trip from which an agent
	// is stale. After another StaleAfter its replicas are moved: a data connection needs
	// 4 to 6 s to notice its own death and may be back before.
	StaleAfter time.Duration
	// LateWake is how much later than asked for a Step may come before the Machine
	// suspects that its own process stood still, and grants every agent a new window.
	// It is well over a garbage collection or a busy host, and well under LostAfter.
	LateWake time.Duration

	// Over HotOver of its planned capacity for HotFor an environment is hot and a plan is
	// made; it is cool again when it was under CoolUnder for CoolFor. The thresholds are
	// 20 points apart so that a move's own effect (one replica's load) does not cross
	// both; CoolFor is six times HotFor because leaving late costs latency and coming
	// back early costs two moves.
	HotOver, CoolUnder float64
	HotFor, CoolFor    time.Duration

	// Dwell is how long a replica stays before it may be moved for gain alone: longer
	// than HotFor and LostAfter, so that one disturbance does not move it twice.
	Dwell time.Duration
	// Cycle and Moves: at most Moves moves for gain begin in one Cycle (or one in fifty
	// replicas, where that is more), so that a wrong model moves a part of the fleet
	// before its consequences are seen, not all of it.
	Cycle time.Duration
	Moves int
	// Margin is how much better, as a part of what they score today, the replicas that
	// would move must score after it.
	Margin float64
	// MoveDelay (ms) and MoveCost (per hour), weighted like every other delay and cost,
	// are the price of one move in the objective: gains below it are noise.
	MoveDelay, MoveCost float64

	// Resend and ResendMax: a document that is not confirmed is sent again after 1 s,
	// doubling to 10 s. A beat that shows an older document sends it at once, so that
	// the doubling is only for agents that say nothing.
	Resend, ResendMax time.Duration
	// SaveRetry and SaveRetryMax: a save that failed is tried again; a raft group elects
	// its leader in 4 to 9 s, so 4 s at most are lost after that.
	SaveRetry, SaveRetryMax time.Duration
	// SaveLost is after what time without a word a save counts as failed. The shell
	// answers within its own timeout (1 s) or is deposed; this is for a word that was lost.
	SaveLost time.Duration

	// FailBackoff, FailBackoffMax: how long a replica that fails is left to its agent's
	// own retries before it is placed anew: 1 s, doubling to 60 s.
	FailBackoff, FailBackoffMax time.Duration
	// FailLimit failures on one environment, or one failure that lasts FailedFor, send a
	// replica elsewhere; the environment is avoided for AvoidFor. SteadyAfter being ready
	// its failures are forgotten: as long as the longest back-off, so that what fails
	// at every second try is not forgiven.
	FailLimit                        int
	FailedFor, AvoidFor, SteadyAfter time.Duration
	// AvoidForMax: an environment where a replica fails is avoided for AvoidFor, twice as
	// long with every environment that failed it too.
	AvoidForMax time.Duration

	// FlapLimit comings and goings with less than FlapWindow between them make an agent
	// unsteady, for FlapHold, doubling to FlapHoldMax; see flap.go. Three in a minute are
	// no accident: a lost beat or two happen once an hour on a bad network, a crash loop
	// or a loose plug every few seconds. FlapHold is three times Dwell, so that leaving
	// and coming back never follow on each other's heels.
	FlapLimit                         int
	FlapWindow, FlapHold, FlapHoldMax time.Duration

	// Slack is how much more than planned, as a part of it, the load measured on an
	// environment may be before something moves for it: the reserve is there for that,
	// and one change of load of 5 % is to move nothing.
	Slack float64

	// Soak is how long a new version must have been ready on a replica before the next
	// one gets it, and before its failure is no longer the update's: a version that
	// crashes at its first requests does so within seconds. As long as Dwell, so that an
	// update of many costs no more than moving them would.
	Soak time.Duration

	// LoadFor is how long a replica may load. A large model takes minutes from a slow disk;
	// after this a move is given up and the old one goes on, and a first place is left for
	// another, if there is one.
	LoadFor time.Duration
}

// DefaultCalm returns the defaults; see [Calm] for their reasons.
func DefaultCalm() Calm {
	return Calm{
		LostAfter: 3500 * time.Millisecond, Beat: 1200 * time.Millisecond,
		StaleAfter: 3 * time.Second, LateWake: time.Second,
		HotOver: 0.85, CoolUnder: 0.65, HotFor: 5 * time.Second, CoolFor: 30 * time.Second,
		Dwell: 10 * time.Second, Cycle: 10 * time.Second, Moves: 4, Margin: 0.05, MoveDelay: 2, MoveCost: 0.2,
		Resend: time.Second, ResendMax: 10 * time.Second,
		SaveLost:  10 * time.Second,
		SaveRetry: 500 * time.Millisecond, SaveRetryMax: 4 * time.Second,
		FailBackoff: time.Second, FailBackoffMax: time.Minute,
		FailLimit: 3, FailedFor: 30 * time.Second, AvoidFor: 5 * time.Minute, SteadyAfter: time.Minute,
		AvoidForMax: time.Hour,
		FlapLimit:   3, FlapWindow: time.Minute, FlapHold: 30 * time.Second, FlapHoldMax: 5 * time.Minute,
		Slack: 0.05, Soak: 10 * time.Second, LoadFor: 10 * time.Minute,
	}
}

func (c Calm) normal() Calm {
	d := DefaultCalm()
	for _, p := range []struct{ v, def *time.Duration }{
		{&c.LostAfter, &d.LostAfter}, {&c.Beat, &d.Beat}, {&c.StaleAfter, &d.StaleAfter}, {&c.LateWake, &d.LateWake},
		{&c.HotFor, &d.HotFor}, {&c.CoolFor, &d.CoolFor}, {&c.Dwell, &d.Dwell}, {&c.Cycle, &d.Cycle},
		{&c.Resend, &d.Resend}, {&c.ResendMax, &d.ResendMax}, {&c.SaveRetry, &d.SaveRetry}, {&c.SaveRetryMax, &d.SaveRetryMax},
		{&c.SaveLost, &d.SaveLost},
		{&c.FailBackoff, &d.FailBackoff}, {&c.FailBackoffMax, &d.FailBackoffMax}, {&c.FailedFor, &d.FailedFor},
		{&c.AvoidFor, &d.AvoidFor}, {&c.SteadyAfter, &d.SteadyAfter}, {&c.LoadFor, &d.LoadFor}, {&c.Soak, &d.Soak},
		{&c.AvoidForMax, &d.AvoidForMax}, {&c.FlapWindow, &d.FlapWindow}, {&c.FlapHold, &d.FlapHold}, {&c.FlapHoldMax, &d.FlapHoldMax},
	} {
		if *p.v == 0 {
			*p.v = *p.def
		}
	}
	for _, p := range []struct{ v, def *float64 }{
		{&c.HotOver, &d.HotOver}, {&c.CoolUnder, &d.CoolUnder}, {&c.Margin, &d.Margin},
		{&c.MoveDelay, &d.MoveDelay}, {&c.MoveCost, &d.MoveCost}, {&c.Slack, &d.Slack},
	} {
		if *p.v == 0 {
			*p.v = *p.def
		}
	}
	if c.Moves == 0 {
		c.Moves = d.Moves
	}
	if c.FlapLimit == 0 {
		c.FlapLimit = d.FlapLimit
	}
	if c.FailLimit == 0 {
		c.FailLimit = d.FailLimit
	}
	return c
}

// backoff doubles from first with every try (from 0), up to most.
func backoff(first, most time.Duration, tries int) time.Duration {
	for range tries {
		if first >= most {
			break
		}
		first *= 2
	}
	return min(first, most)
}
