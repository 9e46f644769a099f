package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/messages"
)

// fall is one SIGKILL of an edge agent and what came of it.
type fall struct {
	agent  string
	leader bool            // whether a coordinator was alive
	moved  []time.Duration // ascending: from the kill to the answer from elsewhere, per request that it held
	by     []string        // who answered them
	back   time.Duration   // from the restart to the first answer
}

// with prepends the flags that every child needs to find the demo's server and fleet.
func (d *demo) with(args ...string) []string {
	level := "info"
	if d.verbose {
		level = "debug"
	}
	return append(args, "--server", d.url, "--fleet", demoFleet, "--log-level", level)
}

func (d *demo) startCoordinator(life int) error {
	return d.procs.start("coordinator", d.with("coordinator", "--id", fmt.Sprintf("coordinator-%d", life), "--lease-ttl", demoLeaseTTL.String())...)
}

// exact prints a number with all its digits.
func exact(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// startAgent starts the agent of an environment; every life of it writes a history of
// its own, so that a line that SIGKILL tore stands at the end of a file.
func (d *demo) startAgent(e messages.Environment, life int) error {
	args := d.with("agent",
		"--id", e.ID, "--tier", string(e.Tier),
		"--compute", exact(e.Capacity.Compute)+"TFLOPS", "--storage", exact(e.Capacity.Storage)+"GB", "--network", exact(e.Capacity.Network)+"Mbps",
		"--latency", exact(e.Latency)+"ms", "--price", exact(e.Price), "--simulate",
		"--history", d.historyPath(fmt.Sprintf("%s-%d", e.ID, life)))
	return d.procs.start(e.ID, args...)
}

// pause lets traffic flow for a while.
func pause(ctx context.Context, t time.Duration) error {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compare asks the cloud for what the edges and robots will do afterwards. What fails is
// in the history.
func (d *demo) compare(ctx context.Context) {
	const each = 10
	var wg sync.WaitGroup
	for _, r := range d.fleet {
		wg.Go(func() {
			for range each {
				_ = r.infer(ctx, "cloud-inference", "", r.body)
				_ = r.infer(ctx, "cloud-action", "", r.body[:actionBytes])
			}
		})
	}
	wg.Wait()
	d.out.say("all on the cloud: inference %s, action %s (median of %d)", ms(quantile(d.board.delays("cloud-inference", anyAgent), 0.5)),
		ms(quantile(d.board.delays("cloud-action", anyAgent), 0.5)), each*len(d.fleet))
}

func anyAgent(string) bool { return true }

// faults kills the busiest edge agent again and again, the last time while no
// coordinator is alive.
func (d *demo) faults(ctx context.Context) error {
	if err := pause(ctx, d.calm); err != nil {
		return err
	}
	for n := 1; n < d.kills; n++ {
		if err := d.killEdge(ctx, n, true); err != nil {
			return err
		}
		if err := pause(ctx, demoBetween); err != nil {
			return err
		}
	}
	if d.kills == 0 {
		return nil
	}
	_, badBefore, _ := d.board.counts()
	answeredBefore, _, _ := d.board.counts()
	killed := d.procs.get("coordinator").kill()
	d.out.say("SIGKILL coordinator: nobody leads")
	if err := pause(ctx, demoBetween); err != nil {
		return err
	}
	if err := d.killEdge(ctx, d.kills, false); err != nil {
		return err
	}
	if err := d.startCoordinator(2); err != nil {
		return err
	}
	err := d.until(ctx, demoStartWait, "the second coordinator to lead", func() (bool, string) {
		s, err := coordinator.ReadState(ctx, d.bus)
		if err != nil {
			return false, err.Error()
		}
		return s.Leader == "coordinator-2", "leader is " + s.Leader
	})
	if err != nil {
		return err
	}
	answered, bad, _ := d.board.counts()
	d.out.say("coordinator-2 leads after %.1f s without one; meanwhile %d requests were answered, %d failed", time.Since(killed).Seconds(), answered-answeredBefore, bad-badBefore)
	return pause(ctx, demoBetween)
}

// killEdge kills the busiest edge agent in the middle of its work, watches who takes
// over, and brings it back.
func (d *demo) killEdge(ctx context.Context, n int, leader bool) error {
	victim := d.busiestEdge()
	select {
	case <-d.board.atWork(victim):
	case <-time.After(2 * time.Second): // thirty requests' time: it is not being asked at all
		return fmt.Errorf("%s was chosen as the busiest edge agent, but accepts no request", victim)
	case <-ctx.Done():
		return ctx.Err()
	}
	held := d.board.heldBy(victim)
	at := d.procs.get(victim).kill()
	f := fall{agent: victim, leader: leader}
	err := d.until(ctx, 5*time.Second, "the requests of "+victim+" to end", func() (bool, string) {
		_, open := d.board.settled(held)
		return open == 0, fmt.Sprintf("%d are open", open)
	})
	if err != nil {
		return err
	}
	now, _ := d.board.settled(held)
	for _, r := range now {
		// What it answered itself just before it died was not moved; what ended in an error
		// is the checker's business.
		if r.agent != "" && r.agent != victim && r.end.After(at) {
			f.moved = append(f.moved, r.end.Sub(at))
			if !slices.Contains(f.by, r.agent) {
				f.by = append(f.by, r.agent)
			}
		}
	}
	slices.Sort(f.moved)
	slices.Sort(f.by)
	d.out.say("kill %d: SIGKILL %s while it held %d: %s", n, victim, len(held), f.text())
	restarted := time.Now()
	if err := d.startAgent(d.env(victim), n+1); err != nil {
		return err
	}
	err = d.until(ctx, demoReturnWait, victim+" to serve again", func() (bool, string) {
		return d.board.servedBy("inference", restarted)[victim] > 0, "it has answered nothing; its log says: " + tail(filepath.Join(d.dir, victim+".log"), 2)
	})
	if err != nil {
		return err
	}
	f.back = time.Since(restarted)
	d.falls = append(d.falls, f)
	how := ""
	if !leader {
		how = ", from its own saved placement: no coordinator is alive"
	}
	d.out.say("kill %d: %s serves again %s after its restart%s", n, victim, ms(f.back), how)
	return nil
}

func (f fall) text() string {
	if len(f.moved) == 0 {
		return "it had answered all of it"
	}
	return fmt.Sprintf("%s answered instead, %s after the kill at the latest", strings.Join(f.by, ", "), ms(f.moved[len(f.moved)-1]))
}

// busiestEdge is the edge agent with the most answers of the last two seconds.
func (d *demo) busiestEdge() string {
	served := d.board.servedBy("inference", time.Now().Add(-2*time.Second))
	best := ""
	for _, e := range d.envs {
		if e.Tier == messages.Edge && (best == "" || served[e.ID] > served[best]) {
			best = e.ID
		}
	}
	return best
}

// lower stops everything in order: agents drain while coordinator and server are there.
func (d *demo) lower(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoStopWait)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(d.envs))
	for i, e := range d.envs {
		wg.Go(func() { errs[i] = d.procs.get(e.ID).stop(ctx) })
	}
	wg.Wait()
	for _, name := range []string{"router", "coordinator", "server"} {
		errs = append(errs, d.procs.get(name).stop(ctx))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	d.out.say("all processes ended by themselves on SIGTERM")
	return nil
}
