package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
)

func main() {
	if err := replay(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

// hourNames are the hours that can be played.
var hourNames = []string{"calm", "rough"}

// result is one scheme in one hour.
type result struct {
	hour   string
	scheme scheme
	*figures
}

func replay(args []string, out io.Writer) error {
	var names []string
	for _, s := range schemes {
		names = append(names, s.name)
	}
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "of the robots' phases, and of what is left to chance")
	path := flags.String("trace", "", "`FILE` to play instead of the trace that is built in: Azure's CSV, or compressed")
	hours := flags.String("hour", strings.Join(hourNames, ","), "hours, with commas")
	cases := flags.String("case", strings.Join(names, ","), "cases, with commas; the first is what the others are compared with")
	svg := flags.String("svg", "", "draw the figures into this `FILE`")
	readme := flags.String("readme", "", "write the table into this `FILE`, where it has the place for it")
	asJSON := flags.Bool("json", false, "one JSON object a line")
	verbose := flags.Bool("v", false, "what the coordinator decides, on standard error")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is no flag; a trace is named with --trace FILE", flags.Arg(0))
	}
	var chosen []scheme
	for _, name := range strings.Split(*cases, ",") {
		i := slices.Index(names, name)
		if i < 0 {
			return fmt.Errorf("--case: found %q, allowed are %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, schemes[i])
	}
	var played []string
	for _, name := range strings.Split(*hours, ",") {
		if !slices.Contains(hourNames, name) {
			return fmt.Errorf("--hour: found %q, allowed are %s", name, strings.Join(hourNames, ", "))
		}
		played = append(played, name)
	}
	trace, err := readTrace(*path)
	if err != nil {
		return err
	}
	var listen func(string)
	if *verbose {
		listen = func(line string) { fmt.Fprintln(os.Stderr, line) }
	}
	results, err := playAll(played, chosen, trace, *seed, listen)
	if err != nil {
		return err
	}
	if *svg != "" {
		if err := os.WriteFile(*svg, draw(results), 0o644); err != nil {
			return fmt.Errorf("--svg: %w; name a file that can be written", err)
		}
	}
	if *readme != "" {
		text, err := os.ReadFile(*readme)
		if err == nil {
			text, err = withTable(text, results)
		}
		if err == nil {
			err = os.WriteFile(*readme, text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("--readme: %s: %w", *readme, err)
		}
	}
	if *asJSON {
		return printJSON(out, results)
	}
	return printTable(out, results)
}

// playAll plays every hour by every scheme: several at once, each alone in its world.
func playAll(hours []string, chosen []scheme, trace []arrival, seed uint64, listen func(string)) ([]result, error) {
	h := newHour(trace, seed)
	var results []result
	for _, name := range hours {
		for _, s := range chosen {
			results = append(results, result{hour: name, scheme: s})
		}
	}
	workers := runtime.GOMAXPROCS(0)
	if listen != nil {
		workers = 1 // or their words would be mixed up
	}
	errs := make([]error, len(results))
	next := make(chan int)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range next {
				r := &results[i]
				var troubles []trouble
				if r.hour == "rough" {
					troubles = roughHour()
				}
				if listen != nil {
					listen(r.hour + " " + r.scheme.name)
				}
				r.figures, errs[i] = run(r.scheme, h, troubles, seed, faults{}, listen)
			}
		})
	}
	for i := range results {
		next <- i
	}
	close(next)
	all.Wait()
	return results, errors.Join(errs...)
}
