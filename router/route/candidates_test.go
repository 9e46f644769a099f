package route

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

func replica(agent, site string, rank int, state messages.ReplicaState) messages.Route {
	return messages.Route{ID: "x/" + agent, Agent: agent, Site: site, Rank: rank, State: state}
}

func TestSite(t *testing.T) {
	const ready, loading = messages.ReplicaReady, messages.ReplicaLoading
	for name, c := range map[string]struct {
		replicas []messages.Route
		want     string
	}{
		"none":           {nil, ""},
		"none ready":     {[]messages.Route{replica("a", "main", 0, loading)}, ""},
		"own":            {[]messages.Route{replica("a", "hub", 0, ready), replica("b", "main", 3, ready)}, "main"},
		"own not ready":  {[]messages.Route{replica("a", "main", 0, loading), replica("b", "hub", 1, ready)}, "hub"},
		"best elsewhere": {[]messages.Route{replica("a", "hub", 1, ready), replica("b", "far", 2, ready)}, "hub"},
	} {
		if got := Site(&messages.TaskRoute{Replicas: c.replicas}, "main"); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestCandidates(t *testing.T) {
	const ready = messages.ReplicaReady
	r := &messages.TaskRoute{Task: messages.Task{Name: "x", Concurrency: 2}, Replicas: []messages.Route{
		replica("robot", "main", 0, ready), replica("edge1", "main", 1, ready), replica("edge2", "main", 1, ready),
		replica("new", "main", 0, messages.ReplicaLoading), replica("cloud", "hub", 0, ready),
	}}
	for name, c := range map[string]struct {
		load map[string]Load
		want string
	}{
		"rest":         {nil, "robot (edge1|edge2) cloud"},
		"full":         {map[string]Load{"robot": {InFlight: 2}}, "(edge1|edge2) cloud robot"},
		"all own full": {map[string]Load{"robot": {InFlight: 2}, "edge1": {InFlight: 2}, "edge2": {InFlight: 3}}, "cloud robot (edge1|edge2)"},
		"down":         {map[string]Load{"robot": {Down: true}, "edge1": {InFlight: 2}}, "edge2 cloud edge1 robot"},
	} {
		for random := range uint64(20) {
			var got []string
			for _, e := range Candidates(r, "main", func(e *messages.Route) Load { return c.load[e.Agent] }, random) {
				got = append(got, e.Agent)
			}
			s := strings.Join(got, " ")
			s = strings.NewReplacer("edge1 edge2", "(edge1|edge2)", "edge2 edge1", "(edge1|edge2)").Replace(s)
			if s != c.want {
				t.Errorf("%s: got %s, want %s", name, s, c.want)
			}
		}
	}
}

// TestCandidatesBalance checks the choice of two: equal replicas get equal shares, the
// longest queue is never chosen, and nobody is lost from the list.
func TestCandidatesBalance(t *testing.T) {
	r := &messages.TaskRoute{Task: messages.Task{Name: "x", Concurrency: 200}}
	names := []string{"a", "b", "c", "d", "e"}
	for _, n := range names {
		r.Replicas = append(r.Replicas, replica(n, "main", 0, messages.ReplicaReady))
	}
	dice := rand.New(rand.NewPCG(1, 2))
	for _, worst := range []string{"", "c"} {
		first := map[string]int{}
		for range 10_000 {
			list := Candidates(r, "main", func(e *messages.Route) Load {
				if e.Agent == worst {
					return Load{InFlight: 9}
				}
				return Load{InFlight: 1}
			}, dice.Uint64())
			seen := map[string]bool{}
			for _, c := range list {
				seen[c.Agent] = true
			}
			if len(seen) != len(names) {
				t.Fatalf("got %v", list)
			}
			first[list[0].Agent]++
		}
		share := 10_000 / len(names)
		if worst != "" {
			share = 10_000 / (len(names) - 1)
		}
		for _, n := range names {
			if n == worst && first[n] > 0 || n != worst && (first[n] < share*9/10 || first[n] > share*11/10) {
				t.Errorf("with %q busiest, %s is first %d times of 10,000, want about %d", worst, n, first[n], share)
			}
		}
	}
}

// FuzzNewest compares Newest with what it promises: one under way per key, the newest
// waits, every other one is told.
func FuzzNewest(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 2, 0, 1, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		var n Newest[byte, int]
		wire, wait, fate := map[byte]int{}, map[byte]int{}, map[int]string{}
		for i, b := range script {
			key, v := b>>4&3, i+1
			switch b & 3 {
			case 0, 1:
				start, old, ok := n.Offer(key, v)
				if start != (wire[key] == 0) || ok != (wait[key] != 0) || ok && old != wait[key] {
					t.Fatalf("offer: start %v, replaced %v %v", start, old, ok)
				}
				if start {
					wire[key] = v
				} else {
					if ok {
						fate[old] += "superseded"
					}
					wait[key] = v
				}
			case 2:
				next, ok := n.Done(key)
				if ok != (wait[key] != 0) || ok && next != wait[key] {
					t.Fatalf("done: %v %v", next, ok)
				}
				fate[wire[key]] += "done"
				wire[key], wait[key] = wait[key], 0
			case 3:
				v := wait[key]
				if v == 0 {
					v = wire[key]
				}
				if got := n.Withdraw(key, v); got != (wait[key] != 0) {
					t.Fatalf("withdraw: %v", got)
				}
				if wait[key] != 0 {
					fate[v] += "withdrawn"
				}
				wait[key] = 0
			}
		}
		delete(fate, 0)
		for v, how := range fate {
			if how != "done" && how != "superseded" && how != "withdrawn" {
				t.Fatalf("%d ended %q", v, how)
			}
		}
	})
}

func TestPrefer(t *testing.T) {
	list := func(agents string) (c []Candidate) {
		for _, a := range agents {
			c = append(c, Candidate{Agent: string(a)})
		}
		return c
	}
	for _, c := range []struct {
		in, agent string
		only      bool
		want      string
	}{
		{"abc", "a", false, "abc"}, {"abc", "b", false, "bac"}, {"abc", "c", false, "cab"}, {"abc", "d", false, "abc"}, {"", "a", false, ""},
		{"abc", "b", true, "b"}, {"abc", "d", true, ""}, {"", "a", true, ""},
	} {
		got := ""
		for _, one := range Prefer(list(c.in), c.agent, c.only) {
			got += one.Agent
		}
		if got != c.want {
			t.Errorf("%q, %s first, only %v: %q, want %q", c.in, c.agent, c.only, got, c.want)
		}
	}
}
