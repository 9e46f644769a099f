package messages

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func goodTask() Task {
	return Task{Name: "detect", Class: Inference, Demand: Resources{10, 10, 50}, Limit: 100, Replicas: 1}
}

func TestTaskCheck(t *testing.T) {
	for _, tc := range []struct {
		change func(*Task)
		want   string // "" for fine
	}{
		{func(*Task) {}, ""},
		{func(t *Task) { t.Replicas = 0 }, ""},
		{func(t *Task) { t.Per, t.Replicas = PerRobot, 0 }, ""},
		{func(t *Task) { t.Robot, t.Per, t.Replicas = "r1", PerRobot, 0 }, ""}, // pinned: one replica
		{func(t *Task) { t.Class, t.Tiers = Action, []Tier{Robot} }, ""},
		{func(t *Task) { t.Class, t.Delivery = Action, Direct }, ""},
		{func(t *Task) { t.Concurrency = MaxConcurrency }, ""},
		{func(t *Task) { t.Run = &Run{Command: []string{"serve", RunPort}} }, ""},
		{func(t *Task) {
			t.Run = &Run{Command: []string{"x"}, Serve: ServeOpenPI, URL: "ws://[::1]:8000"}
		}, ""},
		{func(t *Task) { t.Run = &Run{} }, "task.run.command: none found; name the program to run"},
		{func(t *Task) { t.Run = &Run{Command: make([]string, MaxRunWords+1)} }, "task.run.command: none found"},
		{func(t *Task) { t.Run = &Run{Command: slices.Repeat([]string{"x"}, MaxRunWords+1)} }, "task.run.command: found 257 words, allowed are 256"},
		{func(t *Task) { t.Run = &Run{Command: []string{strings.Repeat("x", MaxRunText+1)}} }, "command and env have 32769 bytes, allowed are 32768"},
		{func(t *Task) { t.Run = &Run{Command: []string{"a\x00b"}} }, "has a zero byte in it"},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, Artifact: strings.Repeat("A0", 32)} }, `task.run.artifact: found "A0A0`},
		{func(t *Task) { t.Run = &Run{Command: []string{RunArtifact}} }, "it names {artifact} and there is no artifact"},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, Env: map[string]string{"1A": ""}} }, `task.run.env: found "1A"`},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, Env: map[string]string{"FLEETBUS_TASK": ""}} }, `task.run.env: found "FLEETBUS_TASK"`},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, URL: "http://127.0.0.1:1/"} }, "task.run.url: found one with serve: exec"},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, Serve: "grpc"} }, `task.run.serve: found "grpc", allowed are exec, http, oip, openpi`},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, Serve: ServeHTTP} }, `task.run.url: found "", expected one on loopback like http://127.0.0.1:{port}/predict`},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, Serve: ServeOIP, URL: "http://127.0.0.1:{port}"} }, "like http://127.0.0.1:{port}/v2/models/MODEL"},
		{func(t *Task) {
			t.Run = &Run{Command: []string{"x"}, Serve: ServeOpenPI, URL: "ws://127.0.0.1:1", ReadyURL: "http://127.0.0.1:1"}
		}, "task.run.ready_url: found"},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, ReadyTimeout: -1} }, "task.run.ready_timeout: found -1 ms"},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, StopTimeout: MaxRunStop + 1} }, "task.run.stop_timeout: found 25001 ms"},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, HangTimeout: 1} }, "task.run.hang_timeout: found one with serve: exec"},
		{func(t *Task) { t.Run = &Run{Command: []string{"x"}, Warmup: strings.Repeat("a0", 32)} }, "task.run.warmup: found one with serve: exec; it is of serve: openpi"},
		{func(t *Task) {
			t.Run = &Run{Command: []string{"x"}, Serve: ServeHTTP, URL: "http://localhost:{port}/", Sessions: true}
		}, "task.run.sessions: found true with serve: http"},
		{func(t *Task) {
			t.Run = &Run{Command: []string{"x"}, Serve: ServeOpenPI, URL: "ws://127.0.0.1:1", Warmup: "observation.msgpack"}
		}, `task.run.warmup: found "observation.msgpack", expected a SHA-256`},
		{func(t *Task) {
			t.Run = &Run{Command: []string{"x"}, Serve: ServeOpenPI, URL: "ws://127.0.0.1:1", Warmup: strings.Repeat("a0", 32), Sessions: true, HangTimeout: 60_000}
		}, ""},
		{func(t *Task) {
			t.Run = &Run{Command: []string{"x"}, Serve: ServeOpenPI, URL: "ws://127.0.0.1:1", HangTimeout: -1}
		}, "task.run.hang_timeout: found -1 ms"},
		{func(t *Task) { t.Run, t.Handler = &Run{Command: []string{"x"}}, "h" }, `task.handler: found "h" beside run`},
		{func(t *Task) {
			t.Run, t.MaxBatch = &Run{Command: []string{"x"}, Serve: ServeHTTP, URL: "http://localhost:{port}/"}, 4
		}, "task.max_batch: found 4 with serve: http"},
		{func(t *Task) { t.Name = "a.b" }, `task.name name "a.b"`},
		{func(t *Task) { t.Class = "dreaming" }, `task.class: found "dreaming", allowed are training, inference, action`},
		{func(t *Task) { t.Demand.Compute = -1 }, "task.compute: found -1 TFLOPS"},
		{func(t *Task) { t.Demand.Network = math.NaN() }, "task.network: found NaN"},
		{func(t *Task) { t.Work = ptr(-3.0) }, "task.work: found -3 GFLOP"},
		{func(t *Task) { t.Transfer = ptr(math.Inf(1)) }, "task.transfer: found +Inf"},
		{func(t *Task) { t.Limit = -1 }, "task.limit: found -1 ms"},
		{func(t *Task) { t.Limit = 1e13 }, "task.limit: found 1e+13 ms, allowed are 0 to 1e+12 ms"},
		{func(t *Task) { t.Cost = -1 }, "task.cost: found -1"},
		{func(t *Task) { t.Deadline = -1 }, "task.deadline: found -1 ms"},
		{func(t *Task) { t.Replicas = 10_000_000 }, "task.replicas: found 1e+07, allowed are 0 to 10000"},
		{func(t *Task) { t.Replicas = -1 }, "task.replicas: found -1"},
		{func(t *Task) { t.Concurrency = MaxConcurrency + 1 }, "task.concurrency: found 201, allowed are 0 to 200"},
		{func(t *Task) { t.MaxAttempts = 1001 }, "task.max_attempts: found 1001"},
		{func(t *Task) { t.Per = "cloud" }, `task.per: found "cloud", allowed are robot, site`},
		{func(t *Task) { t.Per, t.Replicas = PerSite, 3 }, "task.replicas: found 3 beside per: site"},
		{func(t *Task) { t.Class, t.Delivery = Training, Direct }, "task.delivery: found direct on a training task"},
		{func(t *Task) { t.Delivery = "pigeon" }, `task.delivery: found "pigeon"`},
		{func(t *Task) { t.Tiers = []Tier{"fog"} }, `task.tiers: found "fog"`},
		{func(t *Task) { t.Class, t.Tiers = Action, []Tier{Edge} }, "an action runs on a robot"},
		{func(t *Task) { t.Sites = []string{"*"} }, "task.sites name"},
		{func(t *Task) { t.Robot = ">" }, "task.robot name"},
		{func(t *Task) { t.Handler = "a b" }, "task.handler name"},
		{func(t *Task) { t.Prefer = &Preference{Tiers: []Tier{Edge}, Penalty: ptr(0.0)} }, ""},
		{func(t *Task) {
			t.Sites, t.Prefer = []string{"a", "b"}, &Preference{Sites: []string{"b"}, Penalty: ptr(1e12)}
		}, ""},
		{func(t *Task) { t.Prefer = &Preference{Penalty: ptr(5.0)} }, "task.prefer: found nothing that is preferred, allowed are tiers, sites, labels"},
		{func(t *Task) { t.Prefer = &Preference{Tiers: []Tier{"fog"}} }, `task.prefer.tiers: found "fog"`},
		{func(t *Task) { t.Tiers, t.Prefer = []Tier{Cloud}, &Preference{Tiers: []Tier{Edge}} }, "task.prefer.tiers: found edge, which the task's own tiers [cloud] do not allow"},
		{func(t *Task) { t.Prefer = &Preference{Sites: []string{"a.b"}} }, "task.prefer.sites name"},
		{func(t *Task) { t.Sites, t.Prefer = []string{"a"}, &Preference{Sites: []string{"b"}} }, "task.prefer.sites: found b, which the task's own sites [a] do not allow"},
		{func(t *Task) {
			t.Labels, t.Prefer = map[string]string{"gpu": "l4"}, &Preference{Labels: map[string]string{"gpu": "a100"}}
		}, "task.prefer.labels: found gpu=a100, but"},
		{func(t *Task) { t.Prefer = &Preference{Tiers: []Tier{Edge}, Penalty: ptr(-1.0)} }, "task.prefer.penalty: found -1, allowed are 0 to 1e+12"},
		{func(t *Task) { t.Prefer = &Preference{Tiers: []Tier{Edge}, Penalty: ptr(math.NaN())} }, "task.prefer.penalty: found NaN"},
		{func(t *Task) { t.MovePrice = ptr(0.0) }, ""},
		{func(t *Task) { t.MovePrice = ptr(math.Inf(1)) }, "task.move_price: found +Inf"},
		{func(t *Task) { t.MovePrice = ptr(-1.0) }, "task.move_price: found -1, allowed are 0 to 1e+12"},
	} {
		task := goodTask()
		tc.change(&task)
		err := task.Check("task.")
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%+v: %v", task, err)
		case tc.want != "" && (CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
}

// A task must not make an agent connect to anything but what it has started.
func TestRunOnLoopback(t *testing.T) {
	for url, want := range map[string]bool{
		"http://127.0.0.1:{port}/x": true, "http://localhost:80": true, "http://[::1]:65535/a/b?c=d": true,
		"http://127.0.0.1": false, "http://127.0.0.1:": false, "http://127.0.0.1:0": false, "http://127.0.0.1:65536": false, "http://127.0.0.1:-1": false, "http://127.0.0.1:{port}{port}": false,
		"https://127.0.0.1:80": false, "ws://127.0.0.1:80": false, "http://10.0.0.1:80": false, "http://127.0.0.1.example:80": false, "http://127.0.0.1@10.0.0.1:80": false,
		"http://10.0.0.1:80/@127.0.0.1:80": false, "http://127.0.0.1:80\\@10.0.0.1": false, "http://127.0.0.1:80 ": false, "http://127.0.0.1:80#x": false, "http://localhost?.example:80": false, "": false,
	} {
		if onLoopback(url, "http") != want {
			t.Errorf("%q: %v", url, !want)
		}
	}
}

func TestTaskDefaults(t *testing.T) {
	task := goodTask()
	if task.WorkGFLOP() != 10 || task.TransferKbit() != 10 || task.HandlerName() != "detect" || task.Slots() != 1 || task.Attempts() != DefaultMaxAttempts {
		t.Errorf("defaults of %+v", task)
	}
	task.Work, task.Transfer, task.Handler, task.Concurrency, task.MaxAttempts = ptr(0.0), ptr(7.0), "vla", 4, 2
	if task.WorkGFLOP() != 0 || task.TransferKbit() != 7 || task.HandlerName() != "vla" || task.Slots() != 4 || task.Attempts() != 2 {
		t.Errorf("what was given of %+v", task)
	}
	for _, tc := range []struct {
		limit, deadline float64
		want            time.Duration
	}{
		{0, 0, 30 * time.Second}, {10, 0, time.Second}, {100, 0, time.Second}, {500, 0, 5 * time.Second}, {100, 250, 250 * time.Millisecond}, {1e12, 0, Millis(1e13)},
	} {
		task.Limit, task.Deadline = tc.limit, tc.deadline
		if got := task.CallerDeadline(); got != tc.want {
			t.Errorf("limit %v, deadline %v: %v, want %v", tc.limit, tc.deadline, got, tc.want)
		}
	}
	n := Task{Robot: "r1", Per: PerRobot}.Normal()
	if n.Per != PerFleet || n.Delivery != Durable {
		t.Errorf("normal form %+v", n)
	}
	if n = (Task{}).Normal(); n.Replicas != 1 {
		t.Errorf("normal form %+v", n)
	}
}

func TestEnvironmentCheck(t *testing.T) {
	for _, tc := range []struct {
		change func(*Environment)
		want   string
	}{
		{func(*Environment) {}, ""},
		{func(e *Environment) { e.Site, e.Billing = "", "" }, ""},
		{func(e *Environment) { e.Handlers = []string{AnyHandler} }, ""},
		{func(e *Environment) { e.ID = "a*" }, "env.id name"},
		{func(e *Environment) { e.Tier = "" }, `env.tier: found ""`},
		{func(e *Environment) { e.Site = "_fleet" }, "env.site name"},
		{func(e *Environment) { e.Capacity.Storage = -1 }, "env.storage: found -1 GB"},
		{func(e *Environment) { e.Latency = -1 }, "env.latency: found -1 ms"},
		{func(e *Environment) { e.Price = -1 }, "env.price: found -1"},
		{func(e *Environment) { e.Billing = "half" }, `env.billing: found "half"`},
		{func(e *Environment) { e.Handlers = []string{"a.b"} }, "env.handlers name"},
	} {
		e := anEnv
		tc.change(&e)
		err := e.Check("env.")
		if tc.want == "" && err != nil || tc.want != "" && (CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
	e := Environment{Handlers: []string{"vla"}}
	if !e.Serves("vla") || e.Serves("detect") {
		t.Error("serves by name")
	}
	if e.Handlers = []string{AnyHandler}; !e.Serves("detect") {
		t.Error("serves everything")
	}
	if e = (Environment{Offline: true}); !e.Serves("detect") {
		t.Error("nothing is known of handlers")
	}
}

func TestSettings(t *testing.T) {
	for name, s := range Presets() {
		if err := s.Check(""); err != nil {
			t.Errorf("preset %s: %v", name, err)
		}
	}
	if DefaultSettings() != Presets()["balanced"] {
		t.Error("the default is balanced")
	}
	for want, s := range map[string]Settings{
		"weight_latency: found 11, allowed are 0 to 10":             {WeightLatency: 11, Mode: Static},
		"weight_cost: found -1, allowed are 0 to 10":                {WeightCost: -1, Mode: Static},
		"resource_reserve_ratio: found 0.5, allowed are 0 to 0.3":   {Reserve: 0.5, Mode: Static},
		`mode: found "", allowed are static, dynamic, adaptive`:     {},
		`mode: found "wild", allowed are static, dynamic, adaptive`: {Mode: "wild"},
	} {
		if err := s.Check(""); CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestGoalStates(t *testing.T) {
	for s, ended := range map[GoalState]bool{
		GoalUnknown: false, GoalAccepted: false, GoalExecuting: false, GoalCanceling: false, GoalSucceeded: true, GoalCanceled: true, GoalAborted: true,
	} {
		if s.Ended() != ended {
			t.Errorf("%s ended: %v", s, s.Ended())
		}
	}
}

func TestReplicaID(t *testing.T) {
	task, suffix, err := ParseReplica(ReplicaID("detect", "hall-2"))
	if err != nil || task != "detect" || suffix != "hall-2" {
		t.Error(task, suffix, err)
	}
	for _, id := range []string{"", "detect", "detect/", "/0", "a/b/c", "a.b/0", "detect/*", "detect/ 1", strings.Repeat("x", 10_000)} {
		if _, _, err := ParseReplica(id); CodeOf(err) != CodeBadRequest {
			t.Errorf("%q: %v", shorten(id), err)
		}
	}
}

func TestFind(t *testing.T) {
	r := Routes{Tasks: []TaskRoute{{Task: Task{Name: "a"}}, {Task: Task{Name: "b"}, Waiting: "no room"}}}
	if got, ok := r.Find("b"); !ok || got.Waiting != "no room" {
		t.Error(got, ok)
	}
	if _, ok := r.Find("c"); ok {
		t.Error("found what is not there")
	}
}

func TestPreferenceSaysWhatIsNotMet(t *testing.T) {
	e := Environment{ID: "e", Tier: Edge, Labels: map[string]string{"gpu": "l4"}}
	all := &Preference{Tiers: []Tier{Cloud, Robot}, Sites: []string{"hall"}, Labels: map[string]string{"gpu": "a100", "arch": "arm64"}}
	for want, p := range map[string]*Preference{
		"": nil,
		"it prefers tier cloud or robot; it prefers site hall; it prefers arch=arm64, gpu=a100": all,
		"it prefers gpu=l4, x=": {Labels: map[string]string{"gpu": "l4", "x": ""}},
		"it prefers site b":     {Tiers: []Tier{Edge}, Sites: []string{"b"}, Labels: map[string]string{"gpu": "l4"}},
	} {
		got := p.Unmet(e)
		if strings.Join(got, "; ") != want || p.CountUnmet(e) != len(got) {
			t.Errorf("%+v: %q, %d, want %q", p, got, p.CountUnmet(e), want)
		}
	}
	if got := (&Preference{Sites: []string{DefaultSite}}).Unmet(e); len(got) > 0 {
		t.Errorf("an environment without a site is in %s: %q", DefaultSite, got)
	}
	same := *all
	same.Penalty = ptr(float64(DefaultPenalty))
	other := *all
	other.Penalty = ptr(1.0)
	var none *Preference
	if !all.Equal(&same) || all.Equal(&other) || all.Equal(none) || !none.Equal(nil) || none.Equal(all) {
		t.Error("Equal does not compare what a preference says")
	}
}

func TestBatches(t *testing.T) {
	for _, c := range []struct {
		task               Task
		slots, lanes, most int
		wait               time.Duration
	}{
		{Task{}, 1, 1, 1, 0},
		{Task{Concurrency: 3, MaxBatch: 1}, 3, 3, 1, 0},
		{Task{MaxBatch: 8}, 8, 1, 8, DefaultMaxWait},
		{Task{Concurrency: 2, MaxBatch: 4, MaxWait: 1.5}, 8, 2, 4, 1500 * time.Microsecond},
	} {
		if got := c.task; got.Slots() != c.slots || got.Lanes() != c.lanes || got.Batch() != c.most || got.BatchWait() != c.wait {
			t.Errorf("%+v: %d slots, %d lanes, batches of %d, wait %v", got, got.Slots(), got.Lanes(), got.Batch(), got.BatchWait())
		}
	}
	for want, task := range map[string]Task{
		"":                                     {MaxBatch: 8, MaxWait: 4},
		"max_batch: found 201":                 {MaxBatch: 201},
		"max_batch: found 64 with concurrency": {MaxBatch: 64, Concurrency: 4},
		"max_wait: found 4 ms without":         {MaxWait: 4},
		"max_wait: found 10001":                {MaxBatch: 8, MaxWait: 10_001},
		"on a task of class action":            {MaxBatch: 8, Class: Action},
	} {
		if task.Name = "t"; task.Class == "" {
			task.Class = Inference
		}
		err := task.Check("")
		if want == "" && err != nil || want != "" && (CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", task, err, want)
		}
	}
}
