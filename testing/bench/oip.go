package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/testing/oip"
)

// oipBench runs the conformance checks of the Open Inference Protocol against a stand-in
// server and against the gateway in front of it, and measures what the way through the
// fleet costs. A check that fails ends it with an error; --fault plants one.
func oipBench(args []string, out io.Writer) error {
	for i, a := range args { // the faults are those of the stand-in
		if v, ok := strings.CutPrefix(a, "--fault="); ok {
			return oipRun(append(args[:i:i], args[i+1:]...), v, out)
		}
		if a == "--fault" && i+1 < len(args) {
			return oipRun(append(args[:i:i], args[i+2:]...), args[i+1], out)
		}
	}
	return oipRun(args, "", out)
}

func oipRun(args []string, fault string, out io.Writer) error {
	f, help, err := parseData("oip", args, []string{"conformance", "tensor/32", "bytes/301436"}, 7*time.Second, nil)
	if help {
		return nil
	}
	if err != nil {
		return err
	}
	f.fault = fault
	return f.run("oip", 1, out, (*stage).oip)
}

func (s *stage) oip(ctx context.Context, f dataFlags) (list []figure, err error) {
	task := messages.Task{Name: benchTask, Class: messages.Inference, Delivery: messages.Direct, Concurrency: 16, Deadline: 2000}
	_, server, err := s.start(ctx, part{Role: "oip", Name: "model server", Fault: f.fault})
	if err != nil {
		return nil, err
	}
	if _, err := s.agent(ctx, task, 0, part{Name: "edge", Kind: "oip", Target: "http://" + server + "/v2/models/" + oip.Model}); err != nil {
		return nil, err
	}
	if err := s.routes(ctx, task, "edge"); err != nil {
		return nil, err
	}
	_, door, err := s.start(ctx, part{Role: "gateway", Name: "gateway", Kind: "http", URL: s.url})
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 4}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: askWithin}
	through := oip.Target{URL: "http://" + door, Model: benchTask, Client: client}
	direct := oip.Target{URL: "http://" + server, Model: oip.Model, Client: client}
	for _, name := range f.cases {
		if name == "conformance" {
			checks, wrong := through.Conform(ctx)
			if len(wrong) > 0 {
				return nil, fmt.Errorf("conformance: %d of %d checks failed:\n%s", len(wrong), checks, strings.Join(wrong, "\n"))
			}
			list = append(list, newFigure("oip", name, "checks passed", float64(checks), "1", 0))
			continue
		}
		times, body := make([][]time.Duration, 2), make([]byte, droid)
		over := time.Now().Add(f.time)
		for round := 0; time.Now().Before(over) || round < 2; round++ {
			for i, t := range []oip.Target{through, direct} {
				for k := range 20 {
					var took time.Duration
					var err error
					if name == "tensor/32" { // eight numbers, doubled
						took, err = t.Infer(ctx, strconv.Itoa(round)+"-"+strconv.Itoa(k), 8)
					} else { // as large as an observation of DROID, and as large an answer
						took, err = t.Echo(ctx, body)
					}
					if err != nil {
						return nil, fmt.Errorf("%s: %w", name, err)
					}
					if round > 0 && k > 0 { // warm; the first of a block finds everything asleep
						times[i] = append(times[i], took)
					}
				}
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
		list = append(list, latencies("oip", name, times[0], times[1])...)
		list = append(list, newFigure("oip", name, "added p50", micros(percentile(times[0], 0.5))-micros(percentile(times[1], 0.5)), "us", 0))
	}
	return list, nil
}
