package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/deploy"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go"
)

// guardWord as its first argument makes this program a guard, modelEnv the model that a
// task brings, or what that starts itself.
const (
	guardWord = "guard-process"
	modelEnv  = "FB_BENCH_MODEL"
)

// deployed is one agent: a process, or two, one after the other.
type deployed struct {
	name, dir string
	fault     string
	run       *actor
	bytes     uint64 // that came to its processes before the one that runs
	first     int64  // memory of the process when it had begun
	grown     int64  // at most, of all its processes
}

type deployFleet struct {
	s        *stage
	digest   string
	members  []*deployed
	received uint64

	processes int

	mu    sync.Mutex
	state map[string]messages.ReplicaState
	seen  map[string]bool // in the midst of fetching
	sub   *nats.Subscription
}

func (s *stage) newDeployFleet(f deployFlags, digest string) *deployFleet {
	fleet := &deployFleet{s: s, digest: digest, state: make(map[string]messages.ReplicaState), seen: make(map[string]bool)}
	for i := range f.agents {
		m := &deployed{name: "agent-" + strconv.Itoa(i), dir: filepath.Join(s.dir, "agent-"+strconv.Itoa(i))}
		if i == 0 {
			m.fault = f.fault
		}
		fleet.members = append(fleet.members, m)
	}
	return fleet
}

// listen keeps what the agents say of their replicas.
func (f *deployFleet) listen() (err error) {
	if f.sub != nil {
		return nil
	}
	f.sub, err = f.s.nc.Subscribe("fb."+benchFleet+".*.hb.*", func(m *nats.Msg) {
		var h messages.Heartbeat
		if messages.Decode(m.Data, &h) != nil {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, r := range h.Replicas {
			f.state[h.Agent] = r.State
			if r.State == messages.ReplicaLoading && r.Done > 0 && r.Done < 1 {
				f.seen[h.Agent] = true
			}
		}
	})
	return err
}

func (f *deployFleet) shown() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

// begin starts an agent, which finds its document waiting.
func (f *deployFleet) begin(ctx context.Context, m *deployed) error {
	if err := f.listen(); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	run := &messages.Run{Artifact: f.digest, Command: []string{exe}, Env: map[string]string{modelEnv: "model", "EXPECT": f.digest, "PIDS": f.pids(m), "FAULT": m.fault},
		Serve: messages.ServeHTTP, URL: "http://127.0.0.1:{port}/", ReadyURL: "http://127.0.0.1:{port}/health"}
	f.s.rev++
	doc := &messages.Placement{Agent: m.name, Term: messages.Term{Epoch: 1, Revision: 1}, Rev: f.s.rev,
		Replicas: []messages.PlacedReplica{{ID: messages.ReplicaID(benchTask, m.name), Task: messages.Task{Name: benchTask, Class: messages.Inference, Run: run}}}}
	if err := f.s.put(ctx, bus.Placements, m.name, doc); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.state, m.name)
	f.mu.Unlock()
	if m.run, _, err = f.s.start(ctx, part{Role: "deployer", Name: m.name, URL: f.s.url, Store: m.dir, Fault: m.fault}); err != nil {
		return err
	}
	m.first = m.run.memory("VmRSS")
	return nil
}

// pids is the file with the numbers of an agent's model and what that has started.
func (f *deployFleet) pids(m *deployed) string { return m.dir + ".pids" }

// ask asks a running process how many bytes came to it, and looks at its memory.
func (f *deployFleet) ask(m *deployed) (n uint64) {
	answer, err := f.s.nc.Request(statsSubject(m.name), nil, askWithin)
	if err == nil && len(answer.Data) == 8 {
		n = binary.BigEndian.Uint64(answer.Data)
	}
	m.grown = max(m.grown, m.run.peak()-m.first)
	return n
}

// killInFetch kills an agent that has a part of the artifact, and not all, and returns which
// share of it that was.
func (f *deployFleet) killInFetch(ctx context.Context, m *deployed) (float64, error) {
	info, err := os.Stat(filepath.Join(f.s.dir, "artifact"))
	if err != nil {
		return 0, err
	}
	note, share := filepath.Join(m.dir, ".fleetbus", f.digest+".part.json"), 0.0
	err = f.s.until(ctx, m.name+" to be in the midst of its artifact", func(context.Context) error {
		if _, err := os.Stat(filepath.Join(m.dir, f.digest)); err == nil {
			share = 1 // it was too fast; it is killed all the same
			return nil
		}
		var have struct {
			Bytes int64 `json:"bytes"`
		}
		text, err := os.ReadFile(note)
		if err == nil {
			err = json.Unmarshal(text, &have)
		}
		if share = float64(have.Bytes) / float64(info.Size()); err == nil && share < 0.4 {
			err = fmt.Errorf("it has %d bytes", have.Bytes)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	m.bytes = f.ask(m)
	m.run.kill()
	return share, nil
}

// ready waits until all models serve.
func (f *deployFleet) ready(ctx context.Context) error {
	return f.s.untilWithin(ctx, syncWithin, "all models to serve", func(context.Context) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, m := range f.members {
			if f.state[m.name] != messages.ReplicaReady {
				return fmt.Errorf("that of %s is %q", m.name, f.state[m.name])
			}
		}
		return nil
	})
}

// check reads what is on the disks, apart from what anybody says of it.
func (f *deployFleet) check() error {
	f.received = 0
	for _, m := range f.members {
		got, err := fileDigest(filepath.Join(m.dir, f.digest))
		if err != nil {
			return fmt.Errorf("%s is said to have the artifact: %w", m.name, err)
		}
		if got != f.digest {
			return fmt.Errorf("%s is said to have the artifact, and has %s, not %s", m.name, got, f.digest)
		}
		f.received += m.bytes + f.ask(m)
	}
	return nil
}

func (f *deployFleet) growth() (n int64) {
	for _, m := range f.members {
		n = max(n, m.grown)
	}
	return n
}

// killAll kills every agent, and returns how long it took until nothing that it had started
// was left.
func (f *deployFleet) killAll(ctx context.Context) (times []time.Duration, err error) {
	for _, m := range f.members {
		list, err := pidsIn(f.pids(m))
		if err != nil {
			return nil, err
		}
		for _, pid := range list {
			if !runs(pid) {
				return nil, fmt.Errorf("process %d of %s does not run, although its model serves", pid, m.name)
			}
		}
		f.processes += len(list)
		begun := time.Now()
		m.run.kill()
		err = f.s.untilWithin(ctx, orphanWithin, "the processes of "+m.name+" to be gone after it was killed", func(context.Context) error {
			for _, pid := range list {
				if runs(pid) {
					return fmt.Errorf("process %d is left", pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		times = append(times, time.Since(begun))
	}
	return times, nil
}

// end kills what a fault, or an error, has left.
func (f *deployFleet) end() {
	for _, m := range f.members {
		list, err := pidsIn(f.pids(m))
		if err != nil {
			continue // it never began
		}
		for _, pid := range list {
			if runs(pid) {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended since
			}
		}
	}
}

func pidsIn(file string) (list []int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for _, w := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(w)
		if err != nil {
			return nil, err
		}
		list = append(list, pid)
	}
	return list, nil
}

// runs reports whether a process runs; a zombie does not.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !os.IsNotExist(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// deployer is the process of one agent.
func (p part) deployer(ctx context.Context, log *slog.Logger) error {
	nc, err := bus.Connect(p.URL, p.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	bodies, err := bus.Connect(p.URL, p.Name+" artifacts")
	if err != nil {
		return err
	}
	defer bodies.Close()
	if _, err := nc.Subscribe(statsSubject(p.Name), func(m *nats.Msg) {
		_ = m.Respond(binary.BigEndian.AppendUint64(nil, bodies.Stats().InBytes)) // who asks asks again
	}); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	o := deploy.Options{Fleet: benchFleet, Site: benchSite, Agent: p.Name, Dir: p.Store, Guard: []string{exe, guardWord}, Logger: log}
	if p.Fault == faultOrphan {
		o.Guard = nil
	}
	d, err := deploy.New(bodies, o)
	if err != nil {
		return err
	}
	defer d.Close()
	env := messages.Environment{ID: p.Name, Tier: messages.Edge}
	fmt.Println("runs")
	return agent.New(nc, agent.Config{Fleet: benchFleet, Environment: env, HandoverWait: -1, Logger: log, Deployer: d}).Run(ctx)
}

// playModel plays what a task brings; ok is false where this process is nothing of it.
func playModel() (code int, ok bool) {
	switch os.Getenv(modelEnv) {
	case "":
		return 0, false
	case "helper":
		<-make(chan struct{}) // until it is killed
	}
	if err := model(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 1, true
}

// model reads its artifact, starts a process of its own, as a wrapper does, and serves.
func model() error {
	path := os.Getenv("FLEETBUS_ARTIFACT")
	got, err := fileDigest(path)
	if err != nil {
		return err
	}
	if want := os.Getenv("EXPECT"); got != want {
		return fmt.Errorf("the artifact is %s, not %s", got, want)
	}
	if os.Getenv("FAULT") == faultRot {
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(path, 1); err != nil {
			return err
		}
	}
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), modelEnv+"=helper")
	if err := helper.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(os.Getenv("PIDS"), []byte(fmt.Sprintf("%d %d", os.Getpid(), helper.Process.Pid)), 0o600); err != nil {
		return err
	}
	return http.ListenAndServe("127.0.0.1:"+os.Getenv("FLEETBUS_PORT"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body) // whoever has gone needs no answer
	}))
}
