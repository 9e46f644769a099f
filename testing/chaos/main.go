package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/chaos/check"
)

// What a run of fullLength must have at least to prove anything; a shorter one has its
// share.
const (
	fullLength   = 180 * time.Second
	leastAsked   = 10_000
	leastFaults  = 30
	leastServed  = 1.0 / 3 // of the requests of each class
	shownAtMost  = 20      // violations that are printed
	shortest     = 10 * time.Second
	soakSampling = 5 * time.Second
)

// options are the flags.
type options struct {
	seed     uint64
	duration time.Duration
	plants   []string
	keep     string
	soak     bool
	list     bool
	sample   time.Duration
}

// errFound says that the verdict, which has been printed, is bad.
var errFound = errors.New("found")

func main() {
	if code, child := playPart(); child {
		os.Exit(code)
	}
	switch err := run(os.Args[1:], os.Stdout); {
	case errors.Is(err, errFound):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
}

func run(args []string, out io.Writer) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.list {
		for _, l := range []lane{serverLane, agentLane, otherLane} {
			for _, f := range schedule(o.seed, o.duration, cast())[l] {
				fmt.Fprintln(out, f)
			}
		}
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return o.run(ctx, out)
}

func parse(args []string) (options, error) {
	var o options
	var plant string
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano())%100_000, "fixes the schedule of faults; without it one is made up and printed")
	f.DurationVar(&o.duration, "duration", fullLength, "how long there are faults, at least 10s")
	f.StringVar(&plant, "plant", "", "plant faults for the checker to find, a list of: "+strings.Join(slices.Sorted(maps.Keys(plants)), ", ")+", "+plantAll)
	f.StringVar(&o.keep, "keep", "", "keep histories and logs in this directory; without it they are kept where something was found")
	f.BoolVar(&o.soak, "soak", false, "no faults: steady load, and what each process holds over time")
	f.BoolVar(&o.list, "list", false, "print the schedule of faults and run nothing")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%q is no flag; there are no arguments", f.Arg(0))
	case o.duration < shortest:
		return o, fmt.Errorf("--duration: found %v, allowed is %v and more", o.duration, shortest)
	}
	var err error
	if o.plants, err = planting(plant); err != nil {
		return o, err
	}
	if o.soak {
		o.sample = min(soakSampling, o.duration/40)
	}
	return o, nil
}

// result is the last line of a run.
type result struct {
	Seed       uint64                          `json:"seed"`
	Seconds    float64                         `json:"seconds"`
	Requests   int                             `json:"requests"`
	Faults     int                             `json:"faults"`
	Violations int                             `json:"violations"`
	Tardy      int                             `json:"tardy"`
	Tardiest   float64                         `json:"tardiest_ms"`
	Rules      map[check.Rule]int              `json:"rules,omitempty"`
	Kinds      map[kind]int                    `json:"kinds,omitempty"`
	Classes    map[messages.Class]*check.Tally `json:"classes"`
	Grown      int                             `json:"grown,omitempty"` // soak: series that grow
	OK         bool                            `json:"ok"`
}

// run makes a run and judges it.
func (o options) run(ctx context.Context, out io.Writer) (err error) {
	s, err := newStage(o, out)
	if err != nil {
		return err
	}
	good := false
	defer func() {
		if good && o.keep == "" {
			_ = os.RemoveAll(s.dir) // it is in the temporary directory
			return
		}
		fmt.Fprintf(os.Stderr, "histories and logs are kept in %s; of one request: grep -h ID %s/history-*.jsonl | sort; of one process: %s/NAME.log\n", s.dir, s.dir, s.dir)
	}()
	s.say("seed %d, %v", o.seed, o.duration)
	made, grown, err := s.perform(ctx)
	if err = errors.Join(err, s.close()); err != nil {
		return err
	}
	verdict, err := s.judge()
	if err != nil {
		return err
	}
	res := result{
		Seed: o.seed, Seconds: round1(time.Since(s.began).Seconds()), Requests: verdict.Requests, Violations: len(verdict.Violations),
		Tardy: verdict.Tardy, Tardiest: verdict.Tardiest,
		Rules: make(map[check.Rule]int), Kinds: made, Classes: verdict.Classes, Grown: grown,
	}
	for _, n := range made {
		res.Faults += n
	}
	for i, v := range verdict.Violations {
		if res.Rules[v.Rule]++; i < shownAtMost {
			s.say("%s: %s %s: %s", strings.ToUpper(string(v.Rule)), v.Class, v.ID, v.Text)
		}
	}
	short := o.short(res)
	for _, why := range short {
		s.say("TOO LITTLE: %s", why)
	}
	good = res.Violations == 0 && grown == 0 && len(short) == 0
	res.OK = good
	line, err := json.Marshal(res)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, string(line)); err != nil {
		return err
	}
	if !good {
		return errFound
	}
	return nil
}

// short says what a run has too little of to prove anything.
func (o options) short(r result) (why []string) {
	share := min(1, o.duration.Seconds()/fullLength.Seconds())
	if least := int(leastAsked * share); r.Requests < least {
		why = append(why, fmt.Sprintf("%d requests, %d are the least of %v", r.Requests, least, o.duration))
	}
	if least := int(leastFaults * share); r.Faults < least && !o.soak {
		why = append(why, fmt.Sprintf("%d faults, %d are the least of %v", r.Faults, least, o.duration))
	}
	for _, class := range []messages.Class{messages.Inference, messages.Action, messages.Training, check.Message, check.Sync} {
		t := r.Classes[class]
		if t == nil || float64(t.Answered) < leastServed*float64(t.Sent) {
			why = append(why, fmt.Sprintf("of class %s: %+v; a third is to be answered", class, t))
		}
	}
	return why
}

// perform raises the fleet, makes the faults, and lowers it.
func (s *stage) perform(ctx context.Context) (made map[kind]int, grown int, err error) {
	if err := s.raise(ctx); err != nil {
		return nil, 0, err
	}
	if s.soak {
		grown, err = s.soaked(ctx)
	} else {
		made = s.play(ctx, s.duration)
		err = s.allCurrent(ctx)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, 0, err
	}
	s.say("the load ends; what is under way is waited for")
	return made, grown, s.lower(ctx)
}

// judge reads what all have written.
func (s *stage) judge() (check.Verdict, error) {
	records, files, err := s.records()
	if err != nil {
		return check.Verdict{}, err
	}
	v := check.Check(records)
	for _, err := range s.crashes {
		v.Violations = append(v.Violations, check.Violation{Rule: check.Alive, Text: err.Error()})
	}
	s.say("%d records in %d histories", len(records), files)
	return v, nil
}

func round1(v float64) float64 { return float64(int(10*v+0.5)) / 10 }
