package monitor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9*max(1, math.Abs(want)) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestReckon(t *testing.T) {
	at := time.Unix(100, 0)
	begin := Snapshot{At: at, Cores: 4, Busy: 1000, Own: 50, Link: "eth0", In: 1000, Out: 2000, OwnIn: 5, OwnOut: 6}
	second := func(f func(*Snapshot)) Snapshot {
		s := begin
		s.At = at.Add(2 * time.Second)
		f(&s)
		return s
	}
	for name, tt := range map[string]struct {
		b                 Snapshot
		cpu, own, foreign float64
	}{
		"idle":              {second(func(*Snapshot) {}), 0, 0, 0},
		"ours alone":        {second(func(s *Snapshot) { s.Busy += 4; s.Own += 4 }), 0.5, 0.5, 0},
		"others alone":      {second(func(s *Snapshot) { s.Busy += 6 }), 0.75, 0, 0.75},
		"both":              {second(func(s *Snapshot) { s.Busy += 6; s.Own += 2 }), 0.75, 0.25, 0.5},
		"counted apart":     {second(func(s *Snapshot) { s.Busy += 1.9; s.Own += 2 }), 0.25, 0.25, 0},
		"set back":          {second(func(s *Snapshot) { s.Busy = 3; s.Own = 0 }), 0, 0, 0},
		"more than time":    {second(func(s *Snapshot) { s.Busy += 99; s.Own += 99 }), 1, 1, 0},
		"a quota":           {second(func(s *Snapshot) { s.Quota = 2 }), 0, 0, 0},
		"ours in a quota":   {withQuota(second(func(s *Snapshot) { s.Busy += 2; s.Own += 2; s.Group += 2 })), 0.5, 0.5, 0},
		"others in it":      {withQuota(second(func(s *Snapshot) { s.Busy += 3; s.Own += 2; s.Group += 3 })), 0.75, 0.5, 0.25},
		"outside, no room":  {withQuota(second(func(s *Snapshot) { s.Busy += 7; s.Own++; s.Group++ })), 0.75, 0.25, 0.5},
		"outside, and room": {withQuota(second(func(s *Snapshot) { s.Busy += 4; s.Own++; s.Group++ })), 0.25, 0.25, 0},
	} {
		a := begin
		a.Quota = tt.b.Quota
		r, u := Reckon(a, tt.b, false)
		near(t, name+": cpu", r.CPU, tt.cpu)
		near(t, name+": own", r.Own, tt.own)
		near(t, name+": foreign", u.Compute, tt.foreign)
	}
	r, u := Reckon(begin, second(func(s *Snapshot) { s.In += 1e6; s.Out += 5e5; s.OwnIn += 9e5; s.OwnOut += 1e5 }), false)
	near(t, "in", r.In, 4)
	near(t, "out", r.Out, 2)
	near(t, "others' network", u.Network, 1.6)
	if r, u := Reckon(begin, second(func(s *Snapshot) { s.Link = "wlan0"; s.In += 1e9 }), false); r.In != 0 || u.Network != 0 {
		t.Error("another link's counters are compared")
	}
	if r, u := Reckon(begin, begin, false); r.CPU != 0 || u.Compute != 0 || r.Cores != 4 {
		t.Errorf("no time has passed: %+v, %+v", r, u)
	}
}

func withQuota(s Snapshot) Snapshot {
	s.Quota = 2
	return s
}

func TestForeign(t *testing.T) {
	capacity := messages.Resources{Compute: 10, Storage: 100, Network: 50}
	for name, tt := range map[string]struct {
		use  Use
		ours Ours
		want messages.Resources
	}{
		"cores":           {Use{Compute: 0.5, Storage: 60, Network: 5, GPU: -1}, Ours{Work: 3, Storage: 20}, messages.Resources{Compute: 5, Storage: 40, Network: 5}},
		"a model server":  {Use{Compute: 0.5, GPU: -1}, Ours{Work: 3, Outside: 3}, messages.Resources{Compute: 2}},
		"all of it ours":  {Use{Compute: 0.2, Storage: 5, GPU: -1}, Ours{Outside: 3, Storage: 20}, messages.Resources{}},
		"more than there": {Use{Compute: 1, Storage: 500, Network: 70, GPU: -1}, Ours{}, capacity},
		"a GPU":           {Use{Compute: 0.9, GPU: 0.6}, Ours{Work: 2}, messages.Resources{Compute: 4}},
	} {
		if got := tt.use.Foreign(capacity, tt.ours); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

// Whose time a GPU's is: ours where only we hold memory of it, else it is anybody's.
func TestGPUUse(t *testing.T) {
	g := []messages.GPU{{Use: 0.8}, {Use: 0.2}}
	for _, tt := range []struct {
		s    Snapshot
		want float64
	}{
		{Snapshot{GPUs: g, GPUOwn: true}, 0},
		{Snapshot{GPUs: g, GPUOthers: true}, 0.5},
		{Snapshot{GPUs: g, GPUOwn: true, GPUOthers: true}, 0.5},
		{Snapshot{}, -1},
	} {
		if _, u := Reckon(tt.s, tt.s, true); u.GPU != tt.want {
			t.Errorf("%+v: got %v, want %v", tt.s, u.GPU, tt.want)
		}
	}
	if _, u := Reckon(Snapshot{GPUs: g}, Snapshot{GPUs: g}, false); u.GPU >= 0 {
		t.Error("compute is that of the cores")
	}
}

// script is a source that says what it is told.
type script struct {
	mu          sync.Mutex
	cores, busy float64
	err         error
}

func (s *script) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *script) Read(context.Context) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{At: time.Now(), Cores: s.cores, Busy: s.busy}, s.err
}

// A load shows within one and a half seconds, with one signal; while nothing can be read the
// last word holds; and when it ends that shows as soon.
func TestMonitorFollowsALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{cores: 2}
		m := New(Config{Capacity: messages.Resources{Compute: 10, Storage: 5}, Measured: Which{Compute: true}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { m.Run(ctx); close(done) }()
		load := 0.0
		pass := func(d time.Duration) {
			for range d / (50 * time.Millisecond) {
				<-time.After(50 * time.Millisecond) // virtual
				s.set(func() { s.busy += load * 0.05 })
			}
			synctest.Wait()
		}
		if m.Readings() != nil {
			t.Error("it says something before it has read twice")
		}
		pass(3 * time.Second)
		if r := m.Readings(); r == nil || r.CPU != 0 || m.Foreign() != (messages.Resources{}) {
			t.Fatalf("at rest: %+v, %+v", r, m.Foreign())
		}
		load = 2
		pass(1500 * time.Millisecond)
		if f := m.Foreign().Compute; math.Abs(f-10) > 0.6 {
			t.Errorf("1.5 s after it began: %v of 10 TFLOPS", f)
		}
		select {
		case <-m.Changed():
		default:
			t.Error("no beat is asked for")
		}
		s.set(func() { s.err = errors.New("gone") })
		load = 0
		pass(5 * time.Second)
		if f := m.Foreign().Compute; math.Abs(f-10) > 0.6 {
			t.Errorf("while it cannot be read: %v", f)
		}
		s.set(func() { s.err = nil })
		pass(2 * time.Second)
		if f := m.Foreign().Compute; f > 0.1 {
			t.Errorf("when it has ended: %v", f)
		}
		cancel()
		<-done
	})
}

// stuck is a source that the kernel keeps, whatever its context says.
type stuck struct {
	script
	free  chan struct{}
	asked int
}

func (s *stuck) Read(ctx context.Context) (Snapshot, error) {
	var free chan struct{}
	s.set(func() { s.asked++; free = s.free })
	<-free
	return s.script.Read(ctx)
}

// A disk that hangs keeps nobody: it is said, it is asked once, what it brings when it is back
// is old, and the monitor ends meanwhile.
func TestMonitorOfADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{script: script{cores: 2}, free: make(chan struct{})}
		var log strings.Builder
		m := New(Config{Capacity: messages.Resources{Compute: 10}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { m.Run(ctx); close(done) }()
		pass := func(d time.Duration) {
			<-time.After(d) // virtual
			synctest.Wait()
		}
		pass(time.Minute)
		if s.asked != 1 || m.Readings() != nil || strings.Count(log.String(), "a disk or a sensor hangs") != 1 {
			t.Errorf("asked %d times, read %+v, logged\n%s", s.asked, m.Readings(), log.String())
		}
		close(s.free)
		pass(3 * time.Second)
		if m.Readings() == nil || !strings.Contains(log.String(), "can be read again") {
			t.Errorf("after that: %+v\n%s", m.Readings(), log.String())
		}
		s.set(func() { s.free = make(chan struct{}) })
		pass(time.Second)
		begun := time.Now()
		cancel()
		<-done
		if took := time.Since(begun); took > readTime {
			t.Errorf("it ended after %v", took)
		}
		close(s.free)
	})
}

func files(pairs ...string) fstest.MapFS {
	out := make(fstest.MapFS)
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1] + "\n")}
	}
	return out
}

func TestGroups(t *testing.T) {
	for name, tt := range map[string]struct {
		files fstest.MapFS
		want  group
	}{
		"none": {files("proc/self/cgroup", "0::/"), group{}},
		"v2, the tightest above": {files("proc/self/cgroup", "0::/system.slice/agent.service",
			"sys/fs/cgroup/system.slice/agent.service/cpu.max", "max 100000",
			"sys/fs/cgroup/system.slice/agent.service/memory.max", "2000000000",
			"sys/fs/cgroup/system.slice/agent.service/memory.current", "500000000",
			"sys/fs/cgroup/system.slice/cpu.max", "150000 100000",
			"sys/fs/cgroup/system.slice/cpu.stat", "usage_usec 2500000\nuser_usec 1",
			"sys/fs/cgroup/system.slice/memory.max", "max"), group{quota: 1.5, used: 2.5, memory: 2, held: 0.5}},
		"v2 in a container": {files("proc/self/cgroup", "0::/", "sys/fs/cgroup/cpu.max", "50000 100000", "sys/fs/cgroup/cpu.stat", "usage_usec 7000000"), group{quota: 0.5, used: 7}},
		"v1 together": {files("proc/self/cgroup", "4:memory:/docker/x\n2:cpu,cpuacct:/docker/x",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000", "sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "3000000000",
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "4000000000", "sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000000"), group{quota: 2, used: 3, memory: 4, held: 1}},
		"v1 apart": {files("proc/self/cgroup", "2:cpuacct:/\n1:cpu:/",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000", "sys/fs/cgroup/cpuacct/cpuacct.usage", "1000000000"), group{quota: 1, used: 1}},
		"v1 without limits": {files("proc/self/cgroup", "4:memory:/\n1:cpu:/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000",
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"), group{}},
		"v1 under its other name": {files("proc/self/cgroup", "4:cpuacct,cpu:/a",
			"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "100000", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000", "sys/fs/cgroup/cpu/a/cpuacct.usage", "2000000000"), group{quota: 1, used: 2}},
		"v2, files in memory": {files("proc/self/cgroup", "0::/", "sys/fs/cgroup/memory.max", "2000000000", "sys/fs/cgroup/memory.current", "1900000000",
			"sys/fs/cgroup/memory.stat", "anon 300000000\ninactive_file 1500000000\nactive_file 1"), group{memory: 2, held: 0.4}},
		"v1, files in memory": {files("proc/self/cgroup", "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000000", "sys/fs/cgroup/memory/memory.usage_in_bytes", "1900000000",
			"sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 1500000000"), group{memory: 2, held: 0.4}},
		"garbage": {files("proc/self/cgroup", "x\n0::/../..", "sys/fs/cgroup/cpu.max", "a b"), group{}},
	} {
		if got := groupOf(tt.files); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestBattery(t *testing.T) {
	f := files("sys/class/power_supply/AC/type", "Mains",
		"sys/class/power_supply/BAT0/type", "Battery", "sys/class/power_supply/BAT0/capacity", "80", "sys/class/power_supply/BAT0/status", "Discharging",
		"sys/class/power_supply/mouse/type", "Battery", "sys/class/power_supply/mouse/scope", "Device", "sys/class/power_supply/mouse/capacity", "3")
	if power, charge := battery(f); power != messages.PowerBattery || charge != 0.8 {
		t.Errorf("got %q, %v", power, charge)
	}
	f["sys/class/power_supply/BAT0/status"] = &fstest.MapFile{Data: []byte("Charging\n")}
	if power, charge := battery(f); power != messages.PowerMains || charge != 0.8 {
		t.Errorf("got %q, %v", power, charge)
	}
	if power, _ := battery(files()); power != "" {
		t.Errorf("without one: %q", power)
	}
}

func TestJetson(t *testing.T) {
	f := files("sys/devices/platform/bus@0/17000000.gpu/load", "425", "proc/device-tree/model", "NVIDIA Jetson Orin Nano\x00")
	if got := jetson(f); len(got) != 1 || got[0].Use != 0.425 || got[0].Name != "NVIDIA Jetson Orin Nano" {
		t.Errorf("got %+v", got)
	}
	if got := jetson(files()); got != nil {
		t.Errorf("without one: %+v", got)
	}
}

// Both ways to find children agree, and a name cannot lie.
func TestFamily(t *testing.T) {
	f := files("proc/7/stat", "7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 100 50 30 20 20 0 1 0 5",
		"proc/8/stat", "8 () 9 9 9) R 7 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 5",
		"proc/9/stat", "9 (x) R 8 7 7 0 -1 0 0 0 0 0 10 0 0 0 20 0 1 0 5",
		"proc/10/stat", "10 (other) R 1 7 7 0 -1 0 0 0 0 0 999 0 0 0 20 0 1 0 5", "proc/self/stat", "7")
	sum, who := family(f, 7)
	near(t, "by their parents", sum, 2.13)
	if len(who) != 3 || !who[9] || who[10] {
		t.Errorf("found %v", who)
	}
	for name, list := range map[string]string{"proc/7/task/7/children": "8 ", "proc/8/task/8/children": "9", "proc/9/task/9/children": ""} {
		f[name] = &fstest.MapFile{Data: []byte(list)}
	}
	sum, _ = family(f, 7)
	near(t, "by the kernel's lists", sum, 2.13)
	if sum, _ := family(files("proc/7/stat", "garbage"), 7); sum != 0 {
		t.Errorf("of garbage: %v", sum)
	}
}

func TestNvidia(t *testing.T) {
	out := "NVIDIA L4, 35, 1024, 23034, 55\nTesla, V\"x, [N/A], 0, 100, [Unknown Error]\nshort, 1\n"
	got := parseGPUs([]byte(out))
	if len(got) != 1 || got[0].Name != "NVIDIA L4" || got[0].Use != 0.35 || math.Abs(got[0].Memory-1.073741824) > 1e-9 || got[0].Temp != 55 {
		t.Errorf("got %+v", got)
	}
	if got := parseGPUs([]byte("A, [N/A], [N/A], [N/A], 40\n")); len(got) != 1 || got[0].Use != 0 || got[0].Temp != 40 {
		t.Errorf("not available: %+v", got)
	}
	if pids := parsePIDs([]byte("12\n13\n[Insufficient Permissions]\n")); len(pids) != 2 || !pids[13] {
		t.Errorf("got %v", pids)
	}
}

// What hangs is waited for by nobody, ends with its time, and its last word is forgotten.
func TestNvidiaThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		hang, calls := false, 0
		g := gpus{life: life, run: func(ctx context.Context, args ...string) ([]byte, error) {
			calls++
			if hang {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if args[0] == "--query-compute-apps=pid" {
				return []byte("41\n"), nil
			}
			return []byte("L4, 50, 1, 2, 3\n"), nil
		}}
		if list, _ := g.read(time.Now()); list != nil {
			t.Errorf("before it has answered: %v", list)
		}
		synctest.Wait()
		list, pids := g.read(time.Now())
		if len(list) != 1 || !pids[41] {
			t.Fatalf("got %v, %v", list, pids)
		}
		hang = true
		for range 20 {
			<-time.After(time.Second) // virtual
			begun := time.Now()
			list, _ = g.read(begun)
			if time.Since(begun) > 0 {
				t.Fatal("a reading waits for it")
			}
		}
		if list != nil {
			t.Error("its last word still holds")
		}
		end()
		g.all.Wait()
		before := calls
		if g.read(time.Now().Add(time.Hour)); calls != before {
			t.Error("it is asked after the end")
		}
	})
}

// One that cannot be killed, since it waits in the kernel, holds up no end.
func TestNvidiaThatCannotBeKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		free := make(chan struct{})
		m := &Machine{end: end, gpus: gpus{life: life, run: func(context.Context, ...string) ([]byte, error) {
			<-free
			return nil, errors.New("killed")
		}}}
		m.gpus.read(time.Now())
		begun := time.Now()
		m.Close()
		if took := time.Since(begun); took != closeTime {
			t.Errorf("it took %v", took)
		}
		close(free)
	})
}

// Garbage without an end fills no memory.
func TestNvidiaThatSaysTooMuch(t *testing.T) {
	out, err := runBounded(exec.CommandContext(t.Context(), "yes", "garbage"))
	if err == nil || len(out) > mostSaid {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if out, err := runBounded(exec.CommandContext(t.Context(), "echo", "L4, 50, 1, 2, 3")); err != nil || len(parseGPUs(out)) != 1 {
		t.Errorf("%q, %v", out, err)
	}
}

func TestNoNvidia(t *testing.T) {
	g := gpus{life: t.Context(), run: func(context.Context, ...string) ([]byte, error) { return nil, exec.ErrNotFound }}
	g.read(time.Now())
	g.all.Wait()
	if list, _ := g.read(time.Now()); list != nil || time.Until(g.next) < nvidiaAgain/2 {
		t.Errorf("got %v, next in %v", list, time.Until(g.next))
	}
	g.all.Wait()
}

// This machine can be read: what it has is more than nothing and what it does is no more
// than it has.
func TestThisMachine(t *testing.T) {
	m := NewMachine(t.TempDir())
	defer m.Close()
	m.Reach("127.0.0.1:4222")
	d, err := m.Detect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Cores <= 0 || d.Capacity.Compute <= 0 || d.Capacity.Network <= 0 || d.Model == "" {
		t.Errorf("detected %+v", d)
	}
	a, err := m.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, who := family(m.files, os.Getpid()); !who[os.Getpid()] {
		t.Error("it does not know itself")
	}
	if a.Own < 0 || a.Own > a.Busy+1 || a.Memory <= 0 || a.Memory > a.MemSize || a.Disk > a.DiskSize {
		t.Errorf("read %+v", a)
	}
	if a.Link == "" {
		t.Error("the link to this machine itself is not found")
	}
}

func TestCalibrate(t *testing.T) {
	got, err := Calibrate(t.Context(), 1, 100*time.Millisecond)
	if err != nil || !(got > 1e-5) || got > 10 {
		t.Errorf("got %v TFLOPS, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Calibrate(ctx, 1, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
}
