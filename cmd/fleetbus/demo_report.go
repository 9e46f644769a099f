package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fleetbus/fleetbus/coordinator"
	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/messages"
)

// ms prints a duration as milliseconds.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// status is the line that is painted while the traffic runs.
func (d *demo) status() string {
	answered, bad, open := d.board.counts()
	served := d.board.servedBy("inference", time.Now().Add(-time.Second))
	var rates []string
	for _, e := range d.envs {
		if n := served[e.ID]; n > 0 {
			rates = append(rates, fmt.Sprintf("%s %d/s", e.ID, n))
		}
	}
	job := ""
	if p, ok := d.newest.Load().(messages.Progress); ok {
		job = fmt.Sprintf(" | job %.0f %%", 100*p.Done)
	}
	return fmt.Sprintf("%d answered, %d failed, %d under way | inference: %s%s", answered, bad, open, strings.Join(rates, ", "), job)
}

// showPlan prints who runs what.
func (d *demo) showPlan(ctx context.Context) error {
	s, err := coordinator.ReadState(ctx, d.bus)
	if err != nil {
		return err
	}
	where := make(map[string][]string)
	for _, r := range s.Replicas {
		where[r.Task] = append(where[r.Task], r.Agent)
	}
	var list []string
	for _, t := range d.tasks {
		slices.Sort(where[t.Name])
		list = append(list, t.Name+" on "+strings.Join(where[t.Name], " "))
	}
	d.out.say("placed: %s", strings.Join(list, "; "))
	return nil
}

// row is a line of the delay table.
type row struct {
	Task       string         `json:"task"`
	Tier       messages.Tier  `json:"tier"`
	Answers    int            `json:"answers"`
	Modelled   float64        `json:"modelled_ms"`
	P50        float64        `json:"measured_p50_ms"`
	P99        float64        `json:"measured_p99_ms"`
	CloudModel float64        `json:"cloud_modelled_ms"`
	CloudP50   float64        `json:"cloud_measured_p50_ms"`
	Saved      float64        `json:"saved_pct"` // of the measured median on the cloud
	Class      messages.Class `json:"class"`
}

// result is everything that the demo found, as --json prints it.
type result struct {
	Requests     history.Verdict `json:"requests"`
	Delays       []row           `json:"delays"`
	Kills        int             `json:"kills"` // SIGKILLs, the coordinator's included
	Failovers    int             `json:"failovers"`
	FailoverP50  float64         `json:"failover_median_ms"`
	FailoverMax  float64         `json:"failover_worst_ms"`
	FailoverLess float64         `json:"failover_worst_less_service_ms"`
	BackP50      float64         `json:"back_median_ms"`
	Seconds      float64         `json:"seconds"`
	OK           bool            `json:"ok"`
}

func (d *demo) model(task string, tier messages.Tier) float64 {
	for _, t := range d.tasks {
		for _, e := range d.envs {
			if t.Name == task && e.Tier == tier {
				return alloc.Delay(t, e)
			}
		}
	}
	return 0
}

func (d *demo) delayRows() []row {
	var rows []row
	for _, t := range d.tasks {
		if strings.HasPrefix(t.Name, "cloud-") {
			continue
		}
		cloud := d.board.delays("cloud-"+t.Name, anyAgent)
		if t.Class == messages.Training { // it is on the cloud in both
			cloud = d.board.delays(t.Name, anyAgent)
		}
		for _, tier := range messages.Tiers() {
			list := d.board.delays(t.Name, func(agent string) bool { return d.env(agent).Tier == tier })
			if len(list) == 0 {
				continue
			}
			r := row{Task: t.Name, Tier: tier, Class: t.Class, Answers: len(list), Modelled: d.model(t.Name, tier), CloudModel: d.model(t.Name, messages.Cloud),
				P50: inMillis(quantile(list, 0.5)), P99: inMillis(quantile(list, 0.99)), CloudP50: inMillis(quantile(cloud, 0.5))}
			if r.CloudP50 > 0 {
				r.Saved = 100 * (1 - r.P50/r.CloudP50)
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// conclude reads the histories, lets the checker judge them, prints the tables, and
// fails where a rule was broken.
func (d *demo) conclude(stdout io.Writer) error {
	files, err := filepath.Glob(filepath.Join(d.dir, "history-*.jsonl"))
	if err != nil {
		return err
	}
	var records []history.Record
	for _, f := range files {
		list, err := history.Read(f)
		if err != nil {
			return err
		}
		records = append(records, list...)
	}
	res := result{Requests: history.Check(records), Delays: d.delayRows(), Seconds: time.Since(d.began).Seconds()}
	var all, back, less []time.Duration
	for _, f := range d.falls {
		all, back = append(all, f.moved...), append(back, f.back)
		for _, m := range f.moved {
			less = append(less, m-messages.Millis(d.model("inference", messages.Edge)))
		}
	}
	slices.Sort(all)
	slices.Sort(back)
	slices.Sort(less)
	res.Kills, res.Failovers = len(d.falls), len(all)
	if d.kills > 0 {
		res.Kills++ // the coordinator
	}
	res.FailoverP50, res.FailoverMax, res.FailoverLess = inMillis(quantile(all, 0.5)), inMillis(quantile(all, 1)), inMillis(quantile(less, 1))
	res.BackP50 = inMillis(quantile(back, 0.5))
	res.OK = res.Requests.Good() && len(d.falls) == d.kills

	story := d.out.out
	d.tables(story, res, len(files))
	if d.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(res); err != nil {
			return err
		}
	}
	if !res.OK {
		return silentError{}
	}
	return nil
}

func (d *demo) tables(w io.Writer, res result, files int) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "task\ttier\tanswers\tmodelled\tmeasured p50\tp99\tall on the cloud: modelled\tmeasured p50\tsaved\t")
	for _, r := range res.Delays {
		saved := "–"
		if r.Tier != messages.Cloud {
			saved = fmt.Sprintf("%.0f %%", r.Saved)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.1f ms\t%.1f ms\t%.1f ms\t%.1f ms\t%.1f ms\t%s\t\n", r.Task, r.Tier, r.Answers, r.Modelled, r.P50, r.P99, r.CloudModel, r.CloudP50, saved)
	}
	t.Flush()

	if len(d.falls) > 0 {
		fmt.Fprintln(w)
		t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "killed\tcoordinator\theld and moved\ttook over\tmedian\tworst\tserves again after\t")
		for _, f := range d.falls {
			leader := "alive"
			if !f.leader {
				leader = "dead"
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t\n", f.agent, leader, len(f.moved), strings.Join(f.by, " "), ms(quantile(f.moved, 0.5)), ms(quantile(f.moved, 1)), ms(f.back))
		}
		t.Flush()
		fmt.Fprintf(w, "failover after SIGKILL, from the kill to the answer from elsewhere, service included: median %.1f ms, worst %.1f ms (%d requests, %d kills with the coordinator's)\n",
			res.FailoverP50, res.FailoverMax, res.Failovers, res.Kills)
	}

	v := res.Requests
	fmt.Fprintf(w, "\nrequests: sent %d, answered %d, refused %d%s, lost %d, twice %d   (%d executions, %d histories, %.0f s)\n",
		v.Sent, v.Answered, v.Refused, codes(v.Codes), v.Lost, v.Twice, v.Executions, files, res.Seconds)
	for i, x := range v.Violations {
		if i == 10 {
			fmt.Fprintf(w, "  … and %d more\n", len(v.Violations)-i)
			break
		}
		fmt.Fprintf(w, "  %s: %s %s: %s\n", x.Rule, x.Class, x.ID, x.Text)
	}
	if res.OK {
		fmt.Fprintln(w, "verdict: nothing was lost, nothing was done twice")
	} else {
		fmt.Fprintf(w, "verdict: FAILED, %d violations\n", len(v.Violations))
	}
}

// codes prints why requests were refused.
func codes(n map[messages.Code]int) string {
	var list []string
	for _, c := range messages.Codes() {
		if n[c] > 0 {
			list = append(list, fmt.Sprintf("%s %d", c, n[c]))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}
